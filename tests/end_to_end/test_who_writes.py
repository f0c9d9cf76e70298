"""A running primary tells who writes, also by itself when its replica falls behind, and names who outruns the link."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller import control
from pydbt.core.units import MIB
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.patience import until
from tests.lab.programs import command

SIZE, LARGE = 192 * MIB, 2048 * MIB


@contextmanager
def replicated(
    tmp_path: Path, *options: object, wired: bool = False, size_bytes: int = SIZE
) -> Iterator[tuple[Cluster, Path]]:
    """A file system that is replicated."""
    with loop_device(tmp_path, size_bytes) as device:
        make_filesystem("ext4", device)
        with (
            mounted(device, tmp_path / "mounted") as place,
            cluster(tmp_path / "c", device, wired=wired, primary_options=options) as both,
        ):
            both.start()
            both.wait()
            yield both, place


def writers(both: Cluster) -> dict[str, Any]:
    return control.call(both.primary_state, {"command": "writers"}, 20)


def attribution(both: Cluster) -> dict[str, Any]:
    return (both.status() or {"attribution": {}})["attribution"]


def until_named(both: Cluster) -> dict[str, Any]:
    """The first status that names a process which outruns the link."""
    found: list[dict[str, Any]] = []

    def is_named() -> bool:
        status = both.status()
        if status is not None and status["attribution"].get("outrun") is not None:
            found.append(status)
        return bool(found)

    until(is_named, "it is named")
    return found[0]


def test_a_question_for_the_writers_attaches_the_programs_and_they_go_when_nobody_asks(tmp_path: Path) -> None:
    with replicated(tmp_path) as (both, place):
        until(lambda: both.status() is not None, "it answers")
        until(lambda: "captured_bytes" in writers(both), "the programs are attached")
        with subprocess.Popen(["dd", "if=/dev/zero", f"of={place}/some-file", "bs=1M", "count=9", "conv=fsync"]) as dd:
            pass

        def of_dd() -> list[dict[str, Any]]:
            return [row for row in writers(both)["processes"] if row.get("process") == dd.pid]

        until(lambda: sum(row["written_bytes"] for row in of_dd()) >= 8 * MIB, "dd is told")

        def add_up() -> bool:
            told = writers(both)
            sums = {sum(row["written_bytes"] for row in told[view]) for view in ("processes", "groups", "files")}
            assert told["excess_bytes"] == 0, told
            return sums == {told["counted_bytes"]} and told["counted_bytes"] >= 9 * MIB

        until(add_up, "the rows have all that capture has counted")
        answer = writers(both)
        until(lambda: (both.status() or {})["written_bytes"] >= answer["counted_bytes"], "of the whole run it is more")
        until(
            lambda: str(place / "some-file") in [row.get("path") for row in writers(both)["files"]], "the file is named"
        )
        assert answer["out_of_sync"] is None and answer["outrun"] is None and not answer["problem"]
        told = command("status", "--state", both.primary_state)
        assert told.code == 0 and attribution(both)["state"] == "attached"
        assert not (both.status() or {})["tainted"]
        both.wait()


def test_a_process_that_outruns_the_link_is_named_in_the_status(tmp_path: Path) -> None:
    """The file is large: once each of its blocks is behind, nothing grows any more, and nobody can tell what the link carries.

    On a busy machine it takes long until the programs are attached, and until they have counted for long enough.
    """
    with replicated(tmp_path, "--ring-size", "4M", wired=True, size_bytes=LARGE) as (both, place):
        both.wire.throttle(1 * MIB)
        words = [
            "--rw=randwrite",
            "--bs=64k",
            "--size=1800m",
            "--direct=1",
            "--rate=8m",
            "--time_based",
            "--runtime=1200",
        ]
        with subprocess.Popen(["fio", "--name=w", f"--filename={place}/f", *words], stdout=subprocess.DEVNULL) as fio:
            try:
                status = until_named(both)
                outrun = status["attribution"]["outrun"]
                assert outrun["name"] == "fio" and outrun["rate_bytes"] > outrun["link_rate_bytes"]
                assert any("outruns the link" in notice for notice in status["notices"])

                def first_line() -> str:
                    return command("status", "--state", both.primary_state).output.partition("\n")[0]

                until(lambda: "outruns the link" in first_line(), "the first line tells it")

                def counts() -> bool:
                    answer = writers(both)
                    behind = answer["out_of_sync"] is not None and answer["out_of_sync"]["bytes"] > 0
                    return behind and max(row["out_of_normal_bytes"] for row in answer["processes"]) > 0

                until(counts, "who asks is told the same")
            finally:
                fio.terminate()
        assert not status["tainted"]
        both.primary.terminate()
        saved = json.loads(command("status", "--state", both.primary_state, "--json").output)
        assert saved["attribution"] is None and not any("outruns" in notice for notice in saved["notices"])


@pytest.mark.variant
def test_attribution_off_attaches_nothing_and_the_answer_names_the_setting(tmp_path: Path) -> None:
    with replicated(tmp_path, "--attribution", "off") as (both, _):
        assert "attribution" in writers(both)["problem"]
        assert attribution(both)["state"] == "off"

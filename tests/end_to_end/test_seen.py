"""The pictures of a real pair: the map agrees with the status, and the history outlives a restart and a kill."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pydbt.controller import control
from tests.end_to_end.in_sync import BLOCK, SIZE, in_sync, write
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, mounted
from tests.lab.files import place_of
from tests.lab.images import differing_blocks
from tests.lab.patience import run, until

MIB = 1 << 20


def ask(state_dir: Path, command: str, **arguments: object) -> dict[str, Any]:
    return control.call(state_dir, {"command": command, **arguments})


def numbers_of(state_dir: Path) -> set[int]:
    return {event["number"] for event in ask(state_dir, "history")["events"]}


def names_of(state_dir: Path) -> list[str]:
    return [event["name"] for event in ask(state_dir, "history")["events"]]


def blocks_of(both: Cluster, kind: str, first: int, count: int) -> list[int]:
    """The blocks of a part of the volume that are of a kind."""
    told = ask(both.primary_state, "map", start=first * BLOCK, end=(first + count) * BLOCK, cells=count)
    assert told["cell_bytes"] == BLOCK, "single blocks"
    return [first + cell for cell, share in enumerate(told["cells"][kind]) if share]


def agreed(both: Cluster, device: Device) -> dict[str, Any] | None:
    """The map of the whole volume, when its figure is that of the status before and after it; None otherwise."""
    before = both.status()
    told = ask(both.primary_state, "map", cells=64)
    after = both.status()
    assert before is not None and after is not None
    figures = {status["out_of_sync_bytes"] for status in (before, after)} | {told["bytes"].get("out_of_sync")}
    return told if len(figures) == 1 else None


def test_the_map_agrees_with_the_status_while_cut_off_and_during_a_resynchronization(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--rate-limit", "2M/s") as (device, both):
        until(lambda: ask(both.primary_state, "map")["bytes"]["out_of_sync"] == 0, "nothing is out of sync")
        assert both.secondary.terminate() == 0
        write(device, 100, 4096)
        write(device, 9000)
        assert set(blocks_of(both, "written", 9000, 1)) <= {9000}
        assert blocks_of(both, "out_of_sync", 8990, 20) == [9000], "at once, from the kernel's own bits"
        until(lambda: agreed(both, device), "the figures are the same")
        told = agreed(both, device)
        assert told is not None and told["bytes"]["out_of_sync"] == 4097 * BLOCK
        wanted = set(differing_blocks(device.path, both.target, SIZE))
        assert set(blocks_of(both, "out_of_sync", 0, 4096)) >= {block for block in wanted if block < 4096}
        assert blocks_of(both, "out_of_sync", 4190, 20) == list(range(4190, 4196))
        both.start_secondary()
        seen: list[tuple[dict[str, Any], dict[str, Any]]] = []

        def in_the_middle() -> bool:
            told = agreed(both, device)
            if told is not None and told["bytes"]["staged"] > MIB and told["sweep"]:
                seen.append((told, ask(both.primary_state, "method")))
            return bool(seen)

        until(in_the_middle, "the figures are the same in the middle of it")
        ((told, method),) = seen
        assert told["bytes"]["staged"] + told["bytes"]["swept"] <= told["bytes"]["out_of_sync"] <= 4100 * BLOCK
        assert method["mode"] == "resynchronizing" and method["why"] == "the secondary is available"
        both.wait()
        until(lambda: ask(both.primary_state, "map")["bytes"]["out_of_sync"] == 0, "all of it is in sync")
        told = ask(both.primary_state, "map")
        assert told["sweep"] is None and told["bytes"]["staged"] == 0 and told["unknown"] == ["free"]
        owner = ask(both.primary_state, "block", offset=BLOCK)
        assert owner["file"] is None and owner["why"].startswith("unknown: no ext4 or XFS is mounted")


@pytest.mark.variant
def test_the_method_shows_the_records_of_writes_that_wait_for_their_acknowledgement(tmp_path: Path) -> None:
    with in_sync(tmp_path, "--ack-timeout", 60, wired=True) as (device, both):
        both.wire.cut()
        write(device, 7, 3)
        until(lambda: ask(both.primary_state, "method")["updates"] == 3, "their updates wait")
        told = ask(both.primary_state, "method")
        assert told["mode"] == "normal" and told["why"].startswith("in sync at sequence")
        assert told["dirty_map"]["runs"] == [{"first_block": 7, "count": 3}]
        assert sorted(one["block"] for one in told["update_lists"]) == [7, 8, 9]
        status = both.status()
        assert status is not None and status["unacknowledged_bytes"] == status["out_of_sync_bytes"] == 3 * BLOCK
        both.wire.mend()
        both.wait()
        until(lambda: ask(both.primary_state, "method")["updates"] == 0, "they are acknowledged")


@pytest.mark.variant
def test_the_history_of_both_sides_outlives_a_restart_and_a_kill(tmp_path: Path) -> None:
    with in_sync(tmp_path) as (device, both):
        began = time.time()
        sides = (both.primary_state, both.secondary_state)

        def worst() -> int:
            told = ask(both.primary_state, "history")
            if "out_of_sync_bytes" not in told["columns"]:  # nothing was told yet
                return 0
            column = told["columns"].index("out_of_sync_bytes")
            return max((row[column] or 0 for row in told["rows"]), default=0)

        assert both.secondary.terminate() == 0
        write(device, 100, 512)
        until(lambda: worst() >= 512 * BLOCK, "what is out of sync is in the history")
        assert both.primary.terminate() == 0
        both.start_secondary()
        both.start_primary()
        both.wait()
        assert worst() >= 512 * BLOCK, "from before the restart"
        kept = [len(ask(side, "history")["restarts"]) for side in sides]
        assert kept == [2, 2]
        for side in sides:
            this_run = {event["number"] for event in ask(side, "events", since=0)["events"]}
            until(lambda side=side, wanted=this_run: wanted <= numbers_of(side), "its events are in the history", 60)
        until(lambda: all(len(ask(side, "history")["rows"]) >= 3 for side in sides), "a row of this run is over", 60)
        both.primary.kill()
        both.secondary.kill()
        both.start_secondary()
        both.start_primary()
        both.wait()
        for side, restarts in zip(sides, kept, strict=True):
            told = ask(side, "history", points=2000, **{"from": began - 60})
            assert len(told["restarts"]) == restarts + 1 and told["problem"] == ""
            until(lambda side=side, count=restarts + 1: names_of(side).count("started") == count, "it has begun again")
            assert names_of(side).count("stopped") == restarts - 1, "a kill has no end"
            assert len(told["rows"]) >= 3 and told["rows"] == sorted(told["rows"], key=lambda row: row[0])
        assert worst() >= 512 * BLOCK
        both.compare("at the end")


def test_a_file_on_the_volume_is_named_and_free_space_is_shown(tmp_path: Path) -> None:
    with loop_device(tmp_path, 400 * MIB) as device:
        run("mkfs.xfs", "-q", "-m", "rmapbt=1", device.path)
        with mounted(device, tmp_path / "mount") as point, cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            file = point / "named"
            file.write_bytes(os.urandom(MIB))
            os.sync()
            place = place_of(file)
            assert ask(both.primary_state, "block", offset=place)["file"] == str(file)
            until(lambda: "free" in ask(both.primary_state, "map")["bytes"], "the file system has told what is free")
            told = ask(both.primary_state, "map")
            assert told["unknown"] == [] and 200 * MIB < told["bytes"]["free"] < 400 * MIB
            cells = ask(both.primary_state, "map", start=place, end=place + MIB, cells=256)
            assert not any(cells["cells"]["free"]), "what a file has is not free"

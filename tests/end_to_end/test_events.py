"""A real pair tells what happens to it: to `controller events`, to hooks and to `controller check`, through a cut and a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.in_sync import in_sync, is_up_to_date, write
from tests.lab.patience import PATIENCE_S, StepFailed, until
from tests.lab.programs import PROGRAM, ROOT, command, end_with_parent

LATE_S = 2


class Follower:
    """A `controller events` in the background, and the lines that it has printed."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "events", *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT,
            text=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines)]

    def names(self) -> list[str]:
        return [event["name"] for event in self.told()]

    def until_told(self, *names: str) -> None:
        """These came in this order, whatever came between them."""

        def came() -> bool:
            found = iter(self.names())
            return all(name in found for name in names)

        try:
            until(came, f"{names} are told")
        except StepFailed as failure:
            raise StepFailed(f"{failure}: {self.names()}") from None

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        return code


@contextmanager
def following(*arguments: object) -> Iterator[Follower]:
    follower = Follower(*arguments)
    try:
        yield follower
    finally:
        follower.process.kill()
        follower.process.wait()
        follower._reader.join()


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every event of every controller runs a hook; the file that it writes to."""
    out, hook, settings = tmp_path / "hooked", tmp_path / "hook", tmp_path / "controller.toml"
    hook.write_text(f'#!/bin/sh\necho "$PYDBT_ROLE $PYDBT_EVENT $PYDBT_FIGURE_OUT_OF_SYNC_BYTES" >> {out}\n')
    hook.chmod(0o755)
    settings.write_text(f'[hooks]\nany = "{hook}"\nout-of-sync-after = {LATE_S}\n')
    monkeypatch.setenv("PYDBT_CONFIG", str(settings))
    out.touch()
    return out


def test_a_cut_a_late_replica_a_killed_controller_and_an_end_are_told_in_order(tmp_path: Path, hooked: Path) -> None:
    with in_sync(tmp_path, "--ack-timeout", 3, wired=True) as (device, both):
        with following("--state", both.primary_state, "--json") as one, following("--json") as all_of_them:
            one.until_told("exists", "now")
            until(
                lambda: (
                    len(
                        [
                            line
                            for line in all_of_them.told()
                            if line["name"] == "exists" and str(tmp_path) in line["state_dir"]
                        ]
                    )
                    >= 2
                ),
                "both sides",
            )
            assert command("check", "--state", both.primary_state).code == 0
            assert command("check", "--state", both.secondary_state).code == 0

            both.wire.cut()
            write(device, 7)
            one.until_told("exists", "now", "disconnected")
            one.until_told("exists", "now", "mode-changed")  # before or after: whichever is noticed first
            one.until_told("now", "out-of-sync")
            late = next(event for event in one.told() if event["name"] == "out-of-sync")
            assert late["figures"]["out_of_sync_s"] >= LATE_S and late["figures"]["out_of_sync_bytes"] >= 4096
            until(lambda: command("check", "--state", both.primary_state, "-w", 1, "-c", 2).code == 2, "it is critical")
            assert command("check", "--state", both.primary_state, "-w", 3600, "-c", 7200).code == 1, "not connected"

            both.wire.mend()
            both.wait()
            one.until_told("out-of-sync", "connected", "in-sync")

            both.primary.kill()
            one.until_told("in-sync", "not-running")
            stopped = command("check", "--state", both.primary_state, "-w", 3600, "-c", 7200)
            assert stopped.code == 1 and "no controller is running" in stopped.output, stopped
            both.start_primary()
            until(lambda: is_up_to_date(both.status()), "it follows again")
            one.until_told("not-running", "exists", "started", "connected", "in-sync")

            assert both.primary.terminate() == 0
            one.until_told("started", "in-sync", "stopped")
            numbers = [event["number"] for event in one.told() if event["number"]]
            assert numbers == sorted(set(numbers)), "each event once, and later ones have larger numbers"
            assert "gap" not in one.names()[one.names().index("started") + 1 :]
            until(
                lambda: (
                    {
                        event["role"]
                        for event in all_of_them.told()
                        if event["name"] == "disconnected" and str(tmp_path) in event["state_dir"]
                    }
                    == {"primary", "secondary"}
                ),
                "both sides have told that they lost each other",
            )
            assert one.interrupt() == 130 and all_of_them.interrupt() == 130
        lines = hooked.read_text().splitlines()
        primary = [line.split()[1:] for line in lines if line.startswith("primary ")]
        assert primary.count(["started"]) == 2
        second = len(primary) - 1 - primary[::-1].index(["started"])
        late_by = [
            int(size) for name, size in (line for line in primary[:second] if len(line) == 2) if name == "out-of-sync"
        ]
        assert len(late_by) == 1 and late_by[0] >= 4096, primary
        # The time without a controller counts too: longer than LATE_S, and the second one begins late.
        assert [name for name, *_ in primary[second:] if name != "out-of-sync"][-1] == "stopped", primary
        assert "secondary disconnected " in lines


def test_the_present_state_ends_with_a_line_of_its_own_and_a_reader_that_leaves_ends_the_command(
    tmp_path: Path, hooked: Path
) -> None:
    with in_sync(tmp_path) as (_, both):
        now = command("events", "--state", both.primary_state, "--now")
        first, last = now.output.splitlines()
        assert now.code == 0 and f" {both.source.path} exists: up to date; normal" in first and " - now: " in last
        read_end, write_end = os.pipe()
        process = subprocess.Popen([*PROGRAM, "events"], stdout=write_end, cwd=ROOT, preexec_fn=end_with_parent)
        os.close(write_end)
        with os.fdopen(read_end) as reader:
            assert any(f" {both.source.path} exists: " in line for line in iter(reader.readline, ""))
        assert process.wait(PATIENCE_S) == 141, "although nothing happens that could be written"
        assert both.primary.terminate() == 0
        gone = command("events", "--state", both.primary_state, "--now", "--json")
        assert gone.code == 9 and [json.loads(line)["name"] for line in gone.output.splitlines()] == [
            "not-running",
            "now",
        ]

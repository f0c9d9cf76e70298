"""The dashboard over a real pair: both sides as they are, also when a controller hangs or ends, and what is tracked then."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydbt.posix.privileges import Capability
from tests.end_to_end.in_sync import BLOCK, in_sync, write
from tests.lab.patience import until
from tests.lab.programs import ROOT

KEPT = {Capability.DAC_OVERRIDE, Capability.DAC_READ_SEARCH, Capability.BPF}


@contextlib.contextmanager
def dashboard(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Any, str]]:
    """The program, a question for the volume or replica of a state directory, and the link to the page."""
    with (folder / "dashboard.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pydbt.cli.main", "dashboard", "--listen", "127.0.0.1:0", "--peers", str(folder / "peers")],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        link = process.stdout.readline().strip()
        address, _, token = link.partition("/?token=")

        def ask(state_dir: Path) -> dict[str, Any]:
            with contextlib.closing(http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)) as wire:
                wire.request("GET", "/api/overview", headers={"Authorization": f"Bearer {token}"})
                overview = json.loads(wire.getresponse().read())
            volumes = overview["machines"][0]["volumes"]
            return next((one for one in volumes if one["status"].get("state_dir") == str(state_dir)), {})

        yield process, ask, link
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_both_sides_are_told_as_they_are_by_a_process_that_has_given_up_what_it_does_not_need(tmp_path: Path) -> None:
    with in_sync(tmp_path) as (device, both), dashboard(tmp_path) as (process, ask, _):
        until(lambda: ask(both.primary_state).get("level") == "good", "the volume is good")
        until(
            lambda: ask(both.secondary_state).get("level") == "good",
            "and its replica, which is told later",
        )
        volume, replica = ask(both.primary_state), ask(both.secondary_state)
        assert (
            volume["role"] == "primary"
            and volume["device"] == str(device.path)
            and volume["words"].startswith("up to date")
        )
        assert replica["role"] == "secondary" and volume["id"] != replica["id"]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == sum(1 << number for number in KEPT)
        assert status["NoNewPrivs"].strip() == "1"
        both.primary.freeze()
        until(lambda: ask(both.primary_state)["level"] == "unknown", "it is stale, and not green")
        assert ask(both.primary_state)["words"].startswith("STALE: ")
        both.primary.thaw()
        until(lambda: ask(both.primary_state).get("level") == "good", "it goes on")
        assert both.primary.terminate() == 0
        write(device, 7, 3)
        until(lambda: ask(both.primary_state)["level"] == "stopped", "it is stopped")
        until(lambda: (ask(both.primary_state)["out_of_sync_bytes"] or 0) >= 3 * BLOCK, "what is tracked is counted")
        stopped = ask(both.primary_state)
        assert stopped["stale"] and "writes are still tracked" in stopped["words"] and stopped["connected"] is False
        both.start_primary()
        until(lambda: ask(both.primary_state).get("level") == "good", "it runs again")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    log = (tmp_path / "dashboard.log").read_text()
    assert "bug" not in log and "Traceback" not in log

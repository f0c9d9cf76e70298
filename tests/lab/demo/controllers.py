"""The demo's two controllers, and the end of them, also by a later process than the one that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.cable import Cable
from tests.lab.patience import Patience, StepFailed
from tests.lab.programs import Controller

PRIMARY, SECONDARY = "primary", "secondary"
# A secondary first finishes its journal; asked a second time it ends at once.
_ENDINGS = {PRIMARY: (signal.SIGINT, signal.SIGINT), SECONDARY: (signal.SIGTERM, signal.SIGTERM)}
_ENDING_S = 8.0
# The folder of both identities, within that of the demo.
PKI = "pki"


def log_of(folder: Path, role: str) -> Path:
    return folder / f"{role}.log"


def state_of(folder: Path, role: str) -> Path:
    return folder / role


def start(role: str, folder: Path, arguments: Sequence[object], cable: Cable | None = None) -> Controller:
    """State directory and log are named by the role; it goes on when the demo has ended."""
    started = Controller(
        log_of(folder, role),
        [*arguments, "--identity", folder / PKI / f"{role}.identity"],
        state_of(folder, role),
        cable=cable,
        outlive=True,
    )
    pid = started.process.pid
    (folder / f"{role}.pid").write_text(f"{pid} {_started_at(pid)}\n")
    return started


def await_end(controller: Controller, patience: Patience) -> None:
    """StepFailed when it does not end well."""
    patience.until(lambda: not controller.alive, f"the {controller.role} ends")
    if controller.process.returncode:
        raise StepFailed(f"the {controller.role} ended with exit code {controller.process.returncode}")


def end_leftover(folder: Path, role: str) -> None:
    """End whatever of a controller of this folder still runs, by this process or an earlier one, politely at first."""
    try:
        pid, started = (int(word) for word in (folder / f"{role}.pid").read_text().split())
    except (OSError, ValueError):
        return
    for number in (*_ENDINGS[role], signal.SIGKILL):
        if _started_at(pid) != started:
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        _await_death(pid, started)
    # The compiler that a controller runs at its start is of the same group, and keeps the group's number from others.
    if _started_at(pid) == -1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _await_death(pid: int, started: int) -> None:
    end = time.monotonic() + _ENDING_S
    while _started_at(pid) == started and time.monotonic() < end:
        with contextlib.suppress(ChildProcessError):  # not ours when an earlier demo is stopped
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def _started_at(pid: int) -> int:
    """Tells a process from a later one of the same number; -1 when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])

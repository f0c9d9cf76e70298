"""The two controllers as people start them, each a process with a log of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydbt.controller import control
from pydbt.core.errors import PydbtError
from tests.lab.demo.network import Cable
from tests.lab.patience import Patience, StepFailed

PROGRAM = Path(sys.executable).with_name("controller")
PRIMARY, SECONDARY = "primary", "secondary"
_LOG_LINES = 12
# A secondary first finishes its journal; asked a second time it ends at once.
_ENDINGS = {PRIMARY: (signal.SIGINT, signal.SIGINT), SECONDARY: (signal.SIGTERM, signal.SIGTERM)}
_ENDING_S = 8.0


def log_of(folder: Path, role: str) -> Path:
    return folder / f"{role}.log"


def state_of(folder: Path, role: str) -> Path:
    return folder / role


def last_words(folder: Path, role: str) -> list[str]:
    """The end of a controller's log."""
    try:
        return log_of(folder, role).read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return []


class Controller:
    """A running ``controller run`` or ``controller secondary``, whose state directory and log are named by its role."""

    def __init__(self, role: str, folder: Path, arguments: list[object], cable: Cable | None = None) -> None:
        """Start it, in the namespace at the far end of a cable if one is given."""
        self.role, self.folder = role, folder
        self.state_dir = state_of(folder, role)
        # Only the network is another one: a mount namespace of its own would keep our mounts busy.
        prefix = ["nsenter", f"--net={cable.namespace_file}"] if cable else []
        with log_of(folder, role).open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, str(PROGRAM), *map(str, arguments), "--state", str(self.state_dir), "--insecure"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Whoever started the demo in the background made it ignore these.
                preexec_fn=_heed_signals,
            )
        (folder / f"{role}.pid").write_text(f"{self.process.pid} {_started_at(self.process.pid)}\n")

    def status(self) -> dict[str, Any]:
        """The object that ``controller status --json`` prints. StepFailed when the controller has ended."""
        code = self.process.poll()
        if code is not None:
            raise StepFailed(f"the {self.role} ended by itself with exit code {code}")
        return control.call(self.state_dir, {"command": "status"})

    def answers(self) -> bool:
        try:
            self.status()
        except StepFailed:
            raise
        except PydbtError:
            return False
        return True

    def end(self, patience: Patience) -> None:
        """Stop it as a service manager would. StepFailed when it does not end well."""
        self.process.send_signal(signal.SIGTERM)
        self.await_end(patience)

    def await_end(self, patience: Patience) -> None:
        patience.until(lambda: self.process.poll() is not None, f"the {self.role} ends")
        if self.process.returncode:
            raise StepFailed(f"the {self.role} ended with exit code {self.process.returncode}")


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


def _heed_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)

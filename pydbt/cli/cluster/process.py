"""The controller of a cluster's volume: a process that the agent starts, waits for, and stops.

The agent does not use the units of systemd. Pacemaker has to know when a role is truly taken, is the only one to start what
failed, and the same agent works where systemd is not the first process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from pydbt.cli.cluster.node import NodeVolume
from pydbt.cli.program import Stopped
from pydbt.core.errors import NotRunning, PydbtError, StateError
from pydbt.posix.ownership import open_own

_JOURNAL = Path("/run/systemd/journal/stdout")
_LOG_NAME = "cluster.log"
_LOOK_S = 0.25
# The cluster gives the role, and the agent itself starts what comes after a promotion.
_ROLE_OPTION = "--fixed-role"


class ProgramFailed(PydbtError):
    """A command of the program ended with an error; the sentence is its own."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class VolumeProcess:
    """Everything raises ProgramFailed, with the words of the command that failed."""

    def __init__(self, volume: NodeVolume) -> None:
        self._volume = volume

    def command(self, role: str, *words: str) -> str:
        """Run a command about the volume to its end, with the file of a role; what it printed."""
        done = subprocess.run(
            [*_program(), *words], cwd=self._folder(role), env=self._environment(role), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it said nothing, and ended with exit code {done.returncode}"]
            sentence = lines[-1].removeprefix("controller: ").removeprefix("pydbt: ")
            raise ProgramFailed(f"controller {words[0]} {self._volume.name}: {sentence}", done.returncode)
        return done.stdout

    def start(self, role: str) -> None:
        """Start the controller in a role, and return when it is in it: it tracks every write, or it listens."""
        # What can be seen before a start is told in a sentence of its own.
        self.command(role, role, self._volume.name, _ROLE_OPTION, "--check")
        name = f"pydbt-agent-{secrets.token_hex(8)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notes, self._log() as log:
            notes.bind(f"\0{name}")
            notes.settimeout(_LOOK_S)
            child = subprocess.Popen(
                [*_logged(self._volume.name), *_program(), role, self._volume.name, _ROLE_OPTION], cwd=self._folder(role),
                env=self._environment(role) | {"NOTIFY_SOCKET": f"@{name}"}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
            with _ended_with_us(child):
                self._until_ready(role, child, notes)

    def _until_ready(self, role: str, child: subprocess.Popen[bytes], notes: socket.socket) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                if notes.recv(4096).startswith(b"READY=1"):
                    return
            if (code := child.poll()) is not None:
                where = "the journal" if _logged(self._volume.name) else self._volume.state_dir / _LOG_NAME
                words = f"controller {role} {self._volume.name} ended with exit code {code}: {where} says why"
                raise ProgramFailed(words, code)

    def stop(self) -> None:
        """Stop whatever runs, in either role; nothing that runs is no failure."""
        try:
            self.command("run", "down", self._volume.name)
        except ProgramFailed as error:
            if error.code != NotRunning.exit_code:
                raise

    def _folder(self, role: str) -> Path:
        """A folder in which no file has the name of a volume, which would be ambiguous."""
        return self._volume.folder / role

    def _environment(self, role: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OCF_", "HA_", "PCMK_"))}
        return kept | {"PYDBT_VOLUMES": str(self._folder(role))}

    @contextlib.contextmanager
    def _log(self) -> Iterator[int]:
        if _logged(self._volume.name):
            yield subprocess.DEVNULL  # systemd-cat puts its own in the place
            return
        path = self._volume.state_dir / _LOG_NAME
        try:
            descriptor = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _ended_with_us(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """A controller that is not in its role when Pacemaker gives the action up must not come into it afterwards."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException:
        child.terminate()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _logged(name: str) -> list[str]:
    """What puts the output of a process into the journal, where there is one."""
    found = shutil.which("systemd-cat") if _JOURNAL.exists() else None
    return [found, f"--identifier=pydbt-{name}"] if found else []


def _program() -> list[str]:
    """This program, by the name by which it was called."""
    called = os.path.abspath(sys.argv[0])
    return [called] if os.access(called, os.X_OK) else [sys.executable, "-m", "pydbt.cli.main"]

"""The program as people run it: `controller` processes, started, asked, stopped, killed and frozen."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydbt.controller import control
from pydbt.controller.options import ALLOW_SHORT_TIMES
from pydbt.controller.state_dir import ALLOW_MEMORY
from pydbt.core.errors import PydbtError
from tests.lab.cable import Cable
from tests.lab.loaded import Process, loaded
from tests.lab.patience import PATIENCE_S, SIGNALS, StepFailed

PROGRAM = (sys.executable, "-m", "pydbt.cli.main")
ROOT = Path(__file__).parents[2]
_LAST_LINES = 12
_OF_THE_LOG = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z info ")

# The folders of tests and measurements may lie in memory: no power is lost there.
os.environ.setdefault(ALLOW_MEMORY, "1")
os.environ.setdefault(ALLOW_SHORT_TIMES, "1")

Status = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str
    errors: str

    def refused(self, code: int, *words: str) -> None:
        """Exactly one sentence on stderr, but for what the log told of the work until then; nothing on stdout, this exit code."""
        assert self.code == code, self
        assert self.output == "", self
        sentences = [line for line in self.errors.splitlines() if not _OF_THE_LOG.match(line)]
        assert len(sentences) == 1 and sentences[0].startswith("controller: "), self.errors
        assert "Traceback" not in self.errors
        for word in words:
            assert word in self.errors, f"{word!r} is not in: {self.errors}"


def _environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYDBT_DEBUG": "", **changes}


def command(
    *arguments: object,
    timeout_s: float = PATIENCE_S,
    prefix: Sequence[str] = (),
    user: int | None = None,
    **environment: str,
) -> Outcome:
    """Run one command to its end, as root or another user."""
    full = _environment(**environment)
    words = [*prefix, *PROGRAM, *map(str, arguments)]
    quick = None if prefix or user is not None else loaded(full)
    if quick is not None:
        done = quick.run(words, full, timeout_s)
        return Outcome(done.returncode, done.stdout, done.stderr)
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env=full,
        user=user,
        group=user,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


_forks_controllers = False


@contextlib.contextmanager
def controllers_are_forked() -> Iterator[None]:
    """Meanwhile they come out of the process that has loaded the program, as commands do, but for those with a prefix."""
    global _forks_controllers
    _forks_controllers = True
    try:
        yield
    finally:
        _forks_controllers = False


def status_of(state_dir: Path) -> Status | None:
    """The status of the controller of a state directory; None when none answers."""
    try:
        return control.call(state_dir, {"command": "status"}, 10)
    except (PydbtError, OSError, json.JSONDecodeError):
        return None


class Controller:
    """A ``controller run``, ``secondary`` or other command in the background.

    Its output goes to a file that grows over all its lives. It ends with the thread that started it, unless it is
    to ``outlive`` that.
    """

    def __init__(
        self,
        log: Path,
        arguments: Sequence[object],
        state_dir: Path | None = None,
        *,
        cable: Cable | None = None,
        outlive: bool = False,
        prefix: Sequence[str] = (),
        tree: Path = ROOT,
    ) -> None:
        """Start it, at the far end of a cable if one is given, behind the words of a ``prefix``.

        ``arguments`` are without the state directory. ``tree``: where the program's source is, another release's for example.
        """
        self.role = {"run": "primary"}.get(str(arguments[0]), str(arguments[0]))
        self.log, self._state_dir = log, state_dir
        where = [] if state_dir is None else ["--state", str(state_dir)]
        words, environment = [*PROGRAM, *map(str, arguments), *where], _environment()
        self.process: subprocess.Popen[bytes] | Process
        quick = loaded(environment) if _forks_controllers and not prefix and tree == ROOT else None
        with log.open("ab") as output:
            if quick is not None:
                streams, network = (output.fileno(), output.fileno()), cable.namespace_file if cable else None
                self.process = quick.start(words, streams, environment, network=network, session=True, outlive=outlive)
                return
            self.process = subprocess.Popen(
                [*(cable.enter if cable else ()), *prefix, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=tree,
                env=environment,
                start_new_session=True,
                preexec_fn=heed_signals if outlive else end_with_parent,
            )

    @property
    def state_dir(self) -> Path:
        assert self._state_dir is not None
        return self._state_dir

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    # --- asking -------------------------------------------------------------------------------------------
    def status(self) -> Status:
        """The object that ``controller status --json`` prints. StepFailed when the controller has ended."""
        if not self.alive:
            raise StepFailed(f"the {self.role} ended by itself with exit code {self.process.returncode}")
        return self.ask("status", 10)

    def ask(self, name: str, timeout_s: float = 600) -> dict[str, Any]:
        """Send a command over the control socket and wait for its end."""
        return control.call(self.state_dir, {"command": name, "timeout": timeout_s}, timeout_s + 10)

    def answers(self) -> bool:
        """Whether it listens yet. StepFailed when it has ended."""
        try:
            self.status()
        except StepFailed:
            raise
        except PydbtError:
            return False
        return True

    def is_normal(self) -> bool:
        """The primary's: its secondary is in sync."""
        return bool(self.status()["mode"] == "normal")

    # --- ending -------------------------------------------------------------------------------------------
    def kill(self) -> None:
        """SIGKILL, and gone."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise StepFailed(f"process still runs after {timeout_s} s: {self.words()[-3000:]}") from None

    def end(self) -> None:
        """Whatever state it is in: gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def last_words(log: Path, count: int = _LAST_LINES) -> list[str]:
    """The end of a controller's log."""
    try:
        return log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def free_port() -> int:
    """A port of this machine that nobody listens at now, and that the kernel gives to no connection of its own choice.

    One of those that it does could be taken before a program under load has begun to listen.
    """
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(20_000, max(first_of_kernel, 20_001)), min(200, max(first_of_kernel - 20_000, 1))):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def heed_signals() -> None:
    """For a child process about to begin: whoever started this one in the background made it ignore these."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def end_with_parent() -> None:
    """For a child process about to begin: the kernel kills it when its parent dies (PR_SET_PDEATHSIG)."""
    heed_signals()
    ctypes.CDLL(None).prctl(1, 9)

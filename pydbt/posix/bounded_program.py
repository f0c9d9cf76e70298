"""A program of somebody else, run so that nothing it does holds this process up: it may hang, fork, or print without end.

It has a session of its own, no descriptor of this process but a pipe for its output, no core dump, and an end at which it is
killed with everything that it started and that still has the mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from pydbt.core.printable import printable

OUTPUT_BYTES_MAX = 4096
LINES_MAX = 20
"""What is printed beyond that is read and thrown away, so that a program which only talks much comes to its end."""
LIMITS = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 1024), (resource.RLIMIT_MEMLOCK, 8 << 20))
"""It keeps those of this process where they are lower."""
PROCESSES_MAX = 64
"""One that forks without end would leave its controller, which shares the bound of a unit of systemd, no thread."""
GRACE_S = 1.0
"""Between SIGTERM and SIGKILL."""
_MARK = "PYDBT_HOOK"
_SLICE_S = 0.2
_COUNT_S = 1.0
_DISCARD_PAUSE_S = 0.05
_READ_BYTES = 65_536
_ROUNDS = 20
"""A program that forks faster than it is killed has lost after a few looks; and one that has not keeps nobody waiting."""


def run_bounded(
    command: Sequence[str],
    environment: dict[str, str],
    timeout_s: float,
    tell: Callable[[str], None],
    stop: threading.Event,
) -> str:
    """Run a program to its end, or to the end of its time, or until ``stop``. Empty when it ended with 0; else why not.

    ``tell`` gets its first lines, one at a time, without control characters.
    """
    mark = secrets.token_hex(16)
    given = {name: value.encode(errors="backslashreplace") for name, value in {**environment, _MARK: mark}.items()}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", umask=0o022,
            env={name.encode(): value for name, value in given.items()}, start_new_session=True, close_fds=True,
        )  # fmt: skip
    except OSError as error:
        return f"it cannot be started: {error.strerror}"
    except ValueError as error:  # a zero byte in an argument
        return f"it cannot be started: {error}"
    _bound(process.pid)
    output, whole = _Output(process, tell), f"{_MARK}={mark}".encode()
    deadline, next_count, too_many = time.monotonic() + timeout_s, time.monotonic() + _COUNT_S, False
    try:
        while process.poll() is None and time.monotonic() < deadline and not stop.is_set() and not too_many:
            output.take(min(_SLICE_S, max(deadline - time.monotonic(), 0.0)))
            if time.monotonic() >= next_count:
                next_count, too_many = time.monotonic() + _COUNT_S, len(_marked(whole)) > PROCESSES_MAX
        ended = process.poll() is not None
        if not ended:
            _signal_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        output.take(0.0)
    finally:
        _kill_all(process, whole)
        output.close()
    if too_many:
        return f"it was killed, because it had more than {PROCESSES_MAX} processes"
    if not ended:
        return "it was killed, because the controller ends" if stop.is_set() else f"it was killed after {timeout_s:g} s"
    code = process.returncode
    if code < 0:
        return f"it was killed by signal {-code}"
    return f"it ended with exit code {code}" if code else ""


class _Output:
    """The pipe from a program. What comes is told by lines, up to a bound."""

    def __init__(self, process: subprocess.Popen[bytes], tell: Callable[[str], None]) -> None:
        assert process.stdout is not None
        self._pipe, self._tell = process.stdout, tell
        os.set_blocking(self._pipe.fileno(), False)
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._left, self._lines, self._pending, self._over = OUTPUT_BYTES_MAX, LINES_MAX, b"", False

    def take(self, seconds: float) -> None:
        """Read what there is, waiting this long for it at most."""
        if self._over:
            time.sleep(min(seconds, _DISCARD_PAUSE_S))
            return
        if not self._poll.poll(seconds * 1000):
            return
        try:
            data = os.read(self._pipe.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._over = True
            return
        if not self._left or not self._lines:
            time.sleep(min(seconds, _DISCARD_PAUSE_S))  # it prints without end, and costs next to nothing all the same
            return
        kept, self._left = data[: self._left], max(self._left - len(data), 0)
        *whole, self._pending = (self._pending + kept).split(b"\n")
        for line in whole:
            self._line(line)
        if not self._left or not self._lines:
            self._line(self._pending)
            self._pending = b""
            self._tell("... (the rest of its output is left out)")

    def _line(self, line: bytes) -> None:
        if line and self._lines:
            self._lines -= 1
            self._tell(printable(line.decode(errors="backslashreplace")))

    def close(self) -> None:
        self._line(self._pending)
        self._pipe.close()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _bound(process: int) -> None:
    """Limits, and no better place than others when memory is short, which a service may have."""
    for kind, limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # it has ended already, or may have less
            resource.prlimit(process, kind, (limit, limit))
    with contextlib.suppress(OSError), open(f"/proc/{process}/oom_score_adj", "w") as score:
        score.write("0")


def _kill_all(process: subprocess.Popen[bytes], mark: bytes) -> None:
    """Everything that a program left behind: its process group, and whatever took its environment over."""
    for _ in range(_ROUNDS):
        _signal_group(process.pid, signal.SIGKILL)
        found = _marked(mark)
        for other in found:
            with contextlib.suppress(OSError):
                os.kill(other, signal.SIGKILL)
        if not found:
            break
    with contextlib.suppress(subprocess.TimeoutExpired):  # a process that the kernel does not let go is not waited for
        process.wait(GRACE_S)


def _marked(mark: bytes) -> list[int]:
    """Processes whose environment has this; those that have ended have none."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read():
                    found.append(int(name))
        except OSError:
            continue
    return found

"""A program of somebody else, run so that nothing it does holds this process up: it may hang, fork, or print without end.

It has a session of its own, no descriptor of this process but a pipe for its output, no core dump, and an end at which it is
killed with everything that it started. That is below a process of its own (``program_keeper``), in whatever session it is, and
nothing is asked of the processes of others: to read the memory of one of those may take for ever.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

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
START_S = 60.0
"""Until the program is there, on a busy machine; its own time begins then."""
_KEEPER = Path(__file__).with_name("program_keeper.py")
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
    try:
        kept = _Kept(command, {name: value.encode(errors="backslashreplace") for name, value in environment.items()})
    except OSError as error:
        return f"it cannot be started: {error.strerror}"
    except ValueError as error:  # a zero byte in an argument
        return f"it cannot be started: {error}"
    output = _Output(kept.output, tell)
    next_count, too_many = time.monotonic() + _COUNT_S, False
    try:
        kept.begin(stop)
        if kept.failure >= 0:
            return f"it cannot be started: {os.strerror(kept.failure)}"
        deadline = time.monotonic() + timeout_s
        while not kept.has_ended() and time.monotonic() < deadline and not stop.is_set() and not too_many:
            output.take(min(_SLICE_S, max(deadline - time.monotonic(), 0.0)))
            if time.monotonic() >= next_count:
                next_count, too_many = time.monotonic() + _COUNT_S, len(kept.processes()) > PROCESSES_MAX
        ended = kept.has_ended()
        if not ended:
            kept.signal_group(signal.SIGTERM)
            kept.wait(GRACE_S)
        output.take(0.0)
    finally:
        kept.kill_all()
        output.close()
    if too_many:
        return f"it was killed, because it had more than {PROCESSES_MAX} processes"
    if not ended:
        return "it was killed, because the controller ends" if stop.is_set() else f"it was killed after {timeout_s:g} s"
    if kept.status < 0:
        return "nobody knows how it ended: its keeper was killed"
    code = os.waitstatus_to_exitcode(kept.status)
    if code < 0:
        return f"it was killed by signal {-code}"
    return f"it ended with exit code {code}" if code else ""


class _Kept:
    """A program below its keeper. ``status``: as of wait(2), once it has ended; ``failure``: why it cannot be started, an errno.

    Both are -1 until then. ``output``: a pipe.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, bytes]) -> None:
        """OSError, ValueError."""
        self.status, self.failure, self._group, self._began = -1, -1, 0, False
        self._told, told = os.pipe()
        limits = ",".join(f"{kind}={number}" for kind, number in LIMITS)
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", _KEEPER, str(told), limits, *command], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", umask=0o022, start_new_session=True, pass_fds=(told,),
                env={name.encode(): value for name, value in environment.items()},
            )  # fmt: skip
        except (OSError, ValueError):
            os.close(self._told)
            raise
        finally:
            os.close(told)
        assert self._keeper.stdout is not None
        self.output = self._keeper.stdout

    def begin(self, stop: threading.Event) -> None:
        """Wait until the program is there, or cannot be."""
        deadline = time.monotonic() + START_S
        while not self._began and self.failure < 0 and not stop.is_set() and time.monotonic() < deadline:
            if not self._look(_SLICE_S):
                return

    def has_ended(self) -> bool:
        """Also when nobody can tell: its keeper was killed."""
        return not self._look(0.0) or self.status >= 0

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.has_ended() and (left := until - time.monotonic()) > 0:
            self._look(left)

    def _look(self, seconds: float) -> bool:
        """Hear what the keeper tells, waiting this long for it at most. False when it tells nothing any more."""
        if self.status >= 0:
            return True
        if not select.select([self._told], [], [], seconds)[0]:
            return True
        lines = os.read(self._told, _READ_BYTES).decode()  # a line is written at once, and a pipe keeps it whole
        for word, _, number in (line.partition(" ") for line in lines.splitlines()):
            match word:
                case "group":
                    self._group = int(number)
                case "began":
                    self._began = True
                case "ended":
                    self.status = int(number)
                case "failed":
                    self.failure = int(number)
        return bool(lines)

    def signal_group(self, number: signal.Signals) -> None:
        if self._group:
            with contextlib.suppress(OSError):
                os.killpg(self._group, number)

    def processes(self) -> list[int]:
        """All that is below its keeper."""
        return processes_below(self._keeper.pid)

    def kill_all(self) -> None:
        """Everything that the program left behind; its keeper ends then. Its group too: it may have killed its keeper."""
        self.signal_group(signal.SIGKILL)
        for _ in range(_ROUNDS):
            found = self.processes()
            for other in found:
                with contextlib.suppress(OSError):
                    os.kill(other, signal.SIGKILL)
            if not found:
                break
        try:
            self._keeper.wait(GRACE_S)
        except subprocess.TimeoutExpired:  # a process that the kernel does not let go is not waited for
            self._keeper.kill()
        os.close(self._told)


class _Output:
    """The pipe from a program. What comes is told by lines, up to a bound."""

    def __init__(self, pipe: IO[bytes], tell: Callable[[str], None]) -> None:
        self._pipe, self._tell = pipe, tell
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


def processes_below(top: int) -> list[int]:
    """The processes that descend from one, but for those that have ended.

    That is in ``/proc/PID/stat``, which is made without a look into a process's memory, and so without a wait for it.
    """
    children: dict[int, list[int]] = {}
    ended = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent, *_ = file.read().rpartition(b")")[2].split()  # a name may have anything in it
        except (OSError, ValueError):
            continue
        children.setdefault(int(parent), []).append(int(name))
        if state in (b"Z", b"X"):
            ended.add(int(name))
    found, left = [], children.get(top, [])
    while left:
        one = left.pop()
        found.append(one)
        left += children.get(one, [])
    return [one for one in found if one not in ended]

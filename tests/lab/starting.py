"""Commands of the program without the time that Python takes to load it.

``Starter`` is one process that has loaded all of the program, and forks for each command: a process with its own standard
streams, environment, signals and exit code, which runs ``pydbt.cli.main`` from its first line, or lines of a test. It is for
tests, which start thousands. What a start loads is not seen here: controllers, measurements and the demo start Python itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pydbt
from tests.lab.patience import SIGNALS, StepFailed

_MAIN = "pydbt.cli.main"
_ROOT = Path(__file__).parents[2]
_MESSAGE_BYTES_MAX = 1 << 20
# Python, the libraries and the allocator look at them once, when they are loaded.
_OF_THE_START = ("PYTHON", "LC_", "LANG", "LD_", "OPENBLAS", "MALLOC", "GLIBC")
_LIMITS = ("RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK", "RLIMIT_NPROC", "RLIMIT_CORE", "RLIMIT_DATA")


class Starter:
    """The process that forks, as it is seen by the tests. It ends with the process that has this."""

    def __init__(self) -> None:
        self._own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._surroundings = _surroundings(dict(os.environ))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.starting", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=_ROOT,
            )

    def suits(self, environment: dict[str, str]) -> bool:
        """Whether a process of its own would begin in the same surroundings: namespaces, limits, user, locale."""
        return _surroundings(environment) == self._surroundings

    def run(self, words: list[str], environment: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """One command to its end. TimeoutExpired when that does not come in time; its process is killed then."""
        request = {"words": words, "environment": environment}
        with _Pipe() as output, _Pipe() as errors, self._fork(request, output.write_end, errors.write_end) as forked:
            output.close_write_end()
            errors.close_write_end()
            _read_all(forked, (output, errors), words, timeout_s)
            return subprocess.CompletedProcess(words, forked.wait(), output.text(), errors.text())

    def start(self, code: str, argument: str, output: int) -> Forked:
        """A process that runs these lines of Python, as ``python -c CODE ARGUMENT``. It ends with the object at the latest."""
        return self._fork({"code": code, "words": [argument], "environment": dict(os.environ)}, output, output)

    def _fork(self, request: Mapping[str, object], output: int, errors: int) -> Forked:
        own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._own, [json.dumps(request).encode()], [theirs.fileno(), output, errors])
        return Forked(own)

    def close(self) -> None:
        self._own.close()
        self._process.wait()


class Forked:
    """One of its processes, with what the tests use of ``subprocess.Popen``."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self.returncode: int | None = None
        self.pid = self._next()

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._told.close()

    def fileno(self) -> int:
        """It is readable when the process has ended."""
        return self._told.fileno()

    def _next(self) -> int:
        message = self._told.recv(16)
        if not message:
            raise StepFailed("the process that forks others is gone")
        return int(message)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = self._next()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


_wanted = False
_started: list[Starter] = []
_starting = threading.Lock()


@contextlib.contextmanager
def forked_commands() -> Iterator[None]:
    """``started`` has a starter meanwhile."""
    global _wanted
    _wanted = True
    try:
        yield
    finally:
        _wanted = False
        while _started:
            _started.pop().close()


def started() -> Starter | None:
    """The one of this process, made at the first command; None where commands are to start Python themselves."""
    with _starting:
        if _wanted and not _started:
            _started.append(Starter())
        return _started[0] if _wanted else None


class _Pipe:
    """What a command prints."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self._parts: list[bytes] = []

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.read_end)
        self.close_write_end()

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
        self.write_end = -1

    def read(self) -> bool:
        """False at the end."""
        part = os.read(self.read_end, 1 << 16)
        self._parts.append(part)
        return bool(part)

    def text(self) -> str:
        return b"".join(self._parts).decode().replace("\r\n", "\n").replace("\r", "\n")


def _read_all(ended: Forked, pipes: tuple[_Pipe, ...], words: list[str], timeout_s: float) -> None:
    """Until nobody can print any more, and the process has ended."""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        for pipe in pipes:
            selector.register(pipe.read_end, selectors.EVENT_READ, pipe)
        while selector.get_map():
            left = deadline - time.monotonic()
            found = selector.select(max(left, 0))
            if not found and left <= 0:
                raise subprocess.TimeoutExpired(words, timeout_s)
            for key, _ in found:
                if key.data is None or not key.data.read():
                    selector.unregister(key.fileobj)


def _surroundings(environment: dict[str, str]) -> tuple[object, ...]:
    """What a forked process has of its parent, and a new one would have of the process that starts it."""
    spaces = [os.readlink(f"/proc/thread-self/ns/{name}") for name in ("mnt", "net", "pid", "user", "cgroup", "uts")]
    limits = [resource.getrlimit(getattr(resource, name)) for name in _LIMITS]
    start = sorted(one for one in environment.items() if one[0].startswith(_OF_THE_START))
    return spaces, limits, start, os.geteuid(), os.getegid(), os.getgroups()


# --- the process that forks -------------------------------------------------------------------------------


def _serve(asked: socket.socket) -> None:
    """Fork for each message, tell how that process ended, and kill it when nobody wants to know any more."""
    running: dict[int, tuple[int, socket.socket]] = {}
    # Who interrupts the tests may still want commands that take down what they have set up.
    as_begun = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is asked:
                    message, files, _, _ = socket.recv_fds(asked, _MESSAGE_BYTES_MAX, 3)
                    if not message:
                        for pid, _ in running.values():
                            os.kill(pid, signal.SIGKILL)
                        return
                    pid = os.fork()
                    if not pid:
                        for number, action in as_begun.items():
                            signal.signal(number, action)
                        _become(json.loads(message), files[1], files[2])
                    os.close(files[1])
                    os.close(files[2])
                    client, watched = socket.socket(fileno=files[0]), os.pidfd_open(pid)
                    with contextlib.suppress(OSError):
                        client.sendall(str(pid).encode())
                    running[watched] = pid, client
                    selector.register(watched, selectors.EVENT_READ, watched)
                    selector.register(client, selectors.EVENT_READ, watched)
                elif key.fileobj == key.data:
                    pid, client = running.pop(key.data)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with contextlib.suppress(OSError):
                        client.sendall(str(code).encode())
                    with contextlib.suppress(KeyError):
                        selector.unregister(client)
                    selector.unregister(key.data)
                    os.close(key.data)
                    client.close()
                elif key.data in running and key.fileobj is running[key.data][1]:
                    os.kill(running[key.data][0], signal.SIGKILL)
                    selector.unregister(key.fileobj)


def _become(request: dict[str, object], output: int, errors: int) -> NoReturn:
    """This process is the command from here to its end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, file in enumerate((nothing, output, errors)):
        os.dup2(file, number)
    os.closerange(3, 1 << 16)
    encoding, strict = sys.stdout.encoding, sys.stdout.errors
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), encoding, strict)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")), encoding, strict)
    errors_of_it = io.BufferedWriter(io.FileIO(2, "w"))
    sys.stderr = io.TextIOWrapper(errors_of_it, encoding, "backslashreplace", line_buffering=True)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    code = request.get("code")
    sys.argv = ["-c" if code else _MAIN, *request["words"]]  # type: ignore[misc]
    _end_as_python_does(str(code or ""))


def _end_as_python_does(lines: str) -> NoReturn:
    """Run these lines, or else the program, and do what the interpreter does at an end that others see."""
    code: object = 0
    try:
        if lines:
            exec(lines, {"__name__": "__main__"})
        else:
            runpy.run_module(_MAIN, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            code = 120
    os._exit((code or 0) & 0xFF)


def _load() -> None:
    """All modules of the program but its entry, which each command runs anew."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads do not survive a fork
    for module in pkgutil.walk_packages(pydbt.__path__, "pydbt."):
        if module.name != _MAIN:
            with contextlib.suppress(ImportError):  # of a library that this machine does not have
                importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))

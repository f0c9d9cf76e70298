"""A process that has loaded the program, and forks where Python is to be started with it: that then costs no loading.

So the supervisor starts its volumes as well (``pydbt/controller/supervisor.py``). The new process is a child of whoever asked,
not of this one (CLONE_PARENT of clone(2)). It has its own streams, environment, signals and words in /proc, runs the program's
entry or lines of a test, and ends as Python ends. It is for tests, which start thousands; measurements and the demo start Python.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydbt
from pydbt.posix.libc import PR_SET_PDEATHSIG, prctl
from tests.lab.patience import SIGNALS

_CLONE_PARENT, _CLONE_NEWNET, _SYS_CLONE3, _CLONE_ARGS_BYTES = 0x8000, 0x40000000, 435, 64  # linux/sched.h
_LONGEST_REQUEST_BYTES, _MOST_DESCRIPTORS, _PIPE_BYTES = 1 << 20, 3, 1 << 16
_ROOM_FOR_WORDS = "x" * 8000
"""The last argument of this process; what it becomes writes the words of its command over them, for /proc."""
_OF_THE_LOADING = ("PYTHON", "LC_", "LANG", "LD_", "OPENBLAS", "MALLOC", "GLIBC")
"""Variables that Python, its libraries and the allocator look at when they are loaded."""
_NAMESPACES = ("mnt", "net", "pid", "user", "cgroup", "uts")
_LIMITS = ("RLIMIT_AS", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK", "RLIMIT_NPROC", "RLIMIT_CORE", "RLIMIT_DATA")
_ROOT = Path(__file__).parents[2]


class Process:
    """One that was started: what ``subprocess.Popen`` offers of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.RLock()

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """TimeoutExpired, of ``subprocess``, when it still runs then."""
        with self._lock:
            if (code := self.poll()) is not None:
                return code
            end = os.pidfd_open(self.pid)
        try:
            looked = select.poll()
            looked.register(end, select.POLLIN)
            looked.poll(None if timeout is None else timeout * 1000)
        finally:
            os.close(end)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        with self._lock:
            if self.poll() is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Loaded:
    """The asking side. Made by a thread that outlives everything that it starts: what dies with its parent dies with that."""

    def __init__(self) -> None:
        self._surroundings = _surroundings(os.environ)
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.loaded", str(theirs.fileno()), _ROOM_FOR_WORDS],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # on a terminal Python would write out each line for itself
                pass_fds=(theirs.fileno(),),
                cwd=_ROOT,
            )

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether a start of Python would begin in the same surroundings: namespaces, limits, user, locale."""
        return _surroundings(environment) == self._surroundings

    def start(
        self,
        words: Sequence[str],
        streams: tuple[int, int],
        environment: Mapping[str, str],
        *,
        network: Path | None = None,
        session: bool = False,
        outlive: bool = False,
    ) -> Process:
        """What these words would start: Python with the program or with ``-c``. ``streams`` are its stdout and stderr.

        It may have a network namespace and a session of its own. It ends with this process, unless it is to ``outlive`` that.
        """
        asked = {"words": words, "environment": dict(environment), "session": session, "outlive": outlive}
        descriptors = [*streams, *([os.open(network, os.O_RDONLY | os.O_CLOEXEC)] if network else [])]
        try:
            with self._lock:
                socket.send_fds(self._socket, [json.dumps(asked).encode()], descriptors)
                answer = self._socket.recv(100)
        finally:
            for descriptor in descriptors[2:]:
                os.close(descriptor)
        assert answer, "the process that has loaded the program has ended"
        return Process(int(answer))

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """To its end, with what it says. TimeoutExpired when that does not come in time; it is killed then."""
        deadline = time.monotonic() + timeout_s
        pipes = [os.pipe() for _ in range(2)]
        with open(pipes[0][0], "rb", 0) as output, open(pipes[1][0], "rb", 0) as errors:
            with open(pipes[0][1], "wb", 0) as output_end, open(pipes[1][1], "wb", 0) as errors_end:
                process = self.start(words, (output_end.fileno(), errors_end.fileno()), environment)
            try:
                said = _read_all((output, errors), deadline)
                code = process.wait(max(deadline - time.monotonic(), 0))
            except BaseException:
                process.kill()
                process.wait()
                raise
        return subprocess.CompletedProcess(words, code, *said)

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # whatever holds a copy of it
        self._socket.close()
        self._process.wait()


def _read_all(pipes: Sequence[io.FileIO], deadline: float) -> list[str]:
    """Until nobody can print any more."""
    parts: list[list[bytes]] = [[] for _ in pipes]
    with selectors.DefaultSelector() as selector:
        for pipe, mine in zip(pipes, parts, strict=True):
            selector.register(pipe, selectors.EVENT_READ, mine)
        while selector.get_map():
            found = selector.select(max(deadline - time.monotonic(), 0))
            if not found and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("what it prints", 0)
            for key, _ in found:
                key.data.append(os.read(key.fd, _PIPE_BYTES))
                if not key.data[-1]:
                    selector.unregister(key.fileobj)
    return [b"".join(mine).decode().replace("\r\n", "\n").replace("\r", "\n") for mine in parts]


def _surroundings(environment: Mapping[str, str]) -> tuple[object, ...]:
    """What a forked process has of its parent, and a new one would have of the process that starts it."""
    spaces = [os.readlink(f"/proc/thread-self/ns/{name}") for name in _NAMESPACES]
    limits = [resource.getrlimit(getattr(resource, name)) for name in _LIMITS]
    settings = {name: value for name, value in environment.items() if name.startswith(_OF_THE_LOADING)}
    return spaces, limits, settings, os.geteuid(), os.getegid(), os.getgroups()


_made: list[Loaded] | None = None
"""At most one; None where Python is to be started itself."""


@contextlib.contextmanager
def loaded_once() -> Iterator[None]:
    """Meanwhile ``loaded`` has one for all of this process."""
    global _made
    made: list[Loaded] = []
    _made = made
    try:
        yield
    finally:
        _made = None
        for one in made:
            one.end()


def loaded(environment: Mapping[str, str]) -> Loaded | None:
    """The one of this process, made when its main thread first asks. None where Python is to be started itself."""
    if _made == [] and threading.current_thread() is threading.main_thread():
        _made.append(Loaded())
    return _made[0] if _made and _made[0].suits(environment) else None


# --- the process that has loaded it -----------------------------------------------------------------------
def _serve(place: socket.socket) -> dict[str, Any] | None:
    """Returns in each new process, with what is asked of it; and None in this one, when nobody asks any more."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(place, _LONGEST_REQUEST_BYTES, _MOST_DESCRIPTORS)
        if not text:
            return None
        if pid := _fork():
            for descriptor in descriptors:
                os.close(descriptor)
            place.send(str(pid).encode())
            continue
        place.close()
        return {**json.loads(text), "descriptors": descriptors}


def _fork() -> int:
    """``os.fork`` of a child of this process's parent."""
    python, libc = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    arguments = array.array("Q", [_CLONE_PARENT, *[0] * (_CLONE_ARGS_BYTES // 8 - 1)])  # its signal is this process's
    address, _ = arguments.buffer_info()
    python.PyOS_BeforeFork()
    pid: int = libc.syscall(ctypes.c_long(_SYS_CLONE3), ctypes.c_void_p(address), ctypes.c_long(_CLONE_ARGS_BYTES))
    if pid == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone3")
    return pid


def _become(asked: dict[str, Any]) -> None:
    """What is between fork and exec elsewhere, and what Python does with its words."""
    words: list[str] = asked["words"]
    output, errors, *network = asked["descriptors"]
    os.dup2(output, 1)
    os.dup2(errors, 2)
    if asked["session"]:
        os.setsid()
    if not asked["outlive"]:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for descriptor in network:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    for descriptor in asked["descriptors"]:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv[:] = ["-c" if words[1] == "-c" else str(_ROOT / "pydbt/cli/main.py"), *words[3:]]
    _show(words)


def _show(words: Sequence[str]) -> None:
    """As /proc tells it. The arguments of a process are in its own memory (proc_pid_stat(5), arg_start and arg_end)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    text = b"".join(word.encode() + b"\0" for word in words)[: end - begin - 1]
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the program's entry: its threads are not in what is forked
    for module in pkgutil.walk_packages(pydbt.__path__, "pydbt."):
        with contextlib.suppress(ImportError):  # of a library that this machine does not have
            importlib.import_module(module.name)
    from pydbt.cli.main import main as enter

    assert len(os.listdir("/proc/self/task")) == 1, "something that was loaded has begun a thread"
    # Who interrupts the tests may still want commands that take down what they have set up; what comes to a new process
    # before it listens is kept for it. Whoever runs the tests in the background made this process ignore these.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    gc.collect()
    gc.freeze()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is None:
        return
    _become(asked)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        if sys.argv[0] == "-c":
            exec(asked["words"][2], {"__name__": "__main__"})
        else:
            enter()
    except SystemExit as end:
        if isinstance(end.code, int):
            _end_quickly(end.code)
        raise


def _end_quickly(code: int) -> None:
    """What others see of the end of Python, without its work on all that is loaded. Returns where that shows more."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # nobody takes what is still to be written
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


if __name__ == "__main__":
    main()

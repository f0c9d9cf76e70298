"""A process that has loaded the program, and divides itself where one is to be started: that then costs no loading.

So the supervisor starts its volumes as well (``pydbt/controller/supervisor.py``). The new process is a child of whoever asked,
not of this one (CLONE_PARENT of clone(2)). It then runs the program's entry, with the words, streams and environment that were
asked for, in a session of its own, and ends as Python ends.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_CLONE_PARENT, _CLONE_NEWNET, _SYS_CLONE3, _CLONE_ARGS_BYTES = 0x8000, 0x40000000, 435, 64  # linux/sched.h
_LONGEST_REQUEST_BYTES, _MOST_DESCRIPTORS = 1 << 17, 4
_ROOM_FOR_WORDS = "x" * 8000
"""The last argument of this process; what it becomes writes the words of its command over them, for /proc."""
_OF_THE_LOADING = ("PYTHON", "LC_", "LANG", "LD_", "OPENBLAS", "MALLOC", "GLIBC")
"""Variables that Python, its libraries and the allocator look at when they are loaded."""
_ROOT = Path(__file__).parents[2]
_SHOWN = (sys.executable, "-m", "pydbt.cli.main")
_PARTS = (
    "pydbt.cli.group", "pydbt.cli.commands.run", "pydbt.cli.commands.secondary", "pydbt.cli.commands.status",
    "pydbt.cli.commands.promote", "pydbt.cli.commands.verify", "pydbt.cli.commands.down", "pydbt.cli.commands.wait",
    "pydbt.controller.primary.service", "pydbt.controller.secondary.service", "pyroute2.netlink.exceptions",
)  # fmt: skip


class Process:
    """One that was started: what ``subprocess.Popen`` offers of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
                    os.close(self._descriptor)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """TimeoutExpired, of ``subprocess``, when it still runs then."""
        while (code := self.poll()) is None:
            with contextlib.suppress(OSError):  # another thread has just seen its end
                if not _readable(self._descriptor, timeout):
                    raise subprocess.TimeoutExpired("controller", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Loaded:
    """The asking side. Made by a thread that outlives everything that it starts: what dies with its parent dies with that."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        """``prepare`` runs in the new process before anything else."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.loaded", str(theirs.fileno()), _ROOM_FOR_WORDS],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd=_ROOT,
                preexec_fn=prepare,
            )
        self._lock = threading.Lock()
        self._loading = _of_the_loading(os.environ)

    def suits(self, environment: Mapping[str, str]) -> bool:
        """Whether the program would be loaded with the same settings in this environment."""
        return _of_the_loading(environment) == self._loading

    def start(
        self,
        words: Sequence[str],
        streams: tuple[int, int],
        environment: dict[str, str],
        *,
        network: Path | None = None,
        outlive: bool = False,
    ) -> Process:
        """The program with these words, its stdout and stderr, in a session of its own and a network namespace."""
        asked = {"words": words, "environment": environment, "outlive": outlive}
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

    def end(self) -> None:
        self._socket.close()
        self._process.wait()


def _of_the_loading(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_OF_THE_LOADING)}


def _readable(descriptor: int, timeout_s: float | None) -> bool:
    looked = select.poll()
    looked.register(descriptor, select.POLLIN)
    return bool(looked.poll(None if timeout_s is None else timeout_s * 1000))


# --- the process that has loaded it -----------------------------------------------------------------------
def _serve(place: socket.socket) -> dict[str, Any] | None:
    """Returns in each new process, with what is asked of it; and None in this one, when nobody asks any more."""
    while True:
        text, descriptors, _, _ = socket.recv_fds(place, _LONGEST_REQUEST_BYTES, _MOST_DESCRIPTORS)
        if not text:
            return None
        if pid := _divide():
            for descriptor in descriptors:
                os.close(descriptor)
            place.send(str(pid).encode())
            continue
        place.close()
        return {**json.loads(text), "descriptors": descriptors}


def _divide() -> int:
    """``os.fork`` of a child of this process's parent."""
    python, libc = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    arguments = array.array(
        "Q", [_CLONE_PARENT, *[0] * (_CLONE_ARGS_BYTES // 8 - 1)]
    )  # the signal is this process's own
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
    """What is between fork and exec elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.setsid()
    if not asked["outlive"]:
        libc.prctl(1, 9)  # PR_SET_PDEATHSIG
    for descriptor in asked["descriptors"][2:]:
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    for number, descriptor in enumerate(asked["descriptors"][:2], 1):
        os.dup2(descriptor, number)
    for descriptor in asked["descriptors"]:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv[:] = [str(_ROOT / "pydbt/cli/main.py"), *asked["words"]]
    _show([*_SHOWN, *asked["words"]])


def _show(words: Sequence[str]) -> None:
    """As /proc tells it. The arguments of a process are in its own memory (proc_pid_stat(5), arg_start and arg_end)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    text = b"".join(word.encode() + b"\0" for word in words)[: end - begin - 1]
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def main() -> None:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the program's entry: its threads are not in what is divided
    from pydbt.cli.main import main as enter

    for part in _PARTS:
        importlib.import_module(part)
    assert len(os.listdir("/proc/self/task")) == 1, "something that was loaded has begun a thread"
    gc.collect()
    gc.freeze()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        _become(asked)
        enter()


if __name__ == "__main__":
    main()

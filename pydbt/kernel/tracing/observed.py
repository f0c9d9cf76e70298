"""Observing programs that are attached: the interface of this room.

    with Observed.attach("pydbt.kernel.tracing.block_io", values=..., sizes=..., programs=..., maps=...) as observed:
        observed.map_fd("figures")
        with counting_run_time():
            ...
        observed.run_time()

They run as long as this object is open, and end with the process at the latest. Whoever loads them needs what capture needs
(root, BTF, kernel headers at the first time), and no capture programs.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydbt.core.errors import MachineError, ShortNow
from pydbt.kernel import syscalls
from pydbt.kernel.btf import require_btf
from pydbt.kernel.child import child_environment, child_words, error_of
from pydbt.kernel.code_cache import FOLDER

# As that of the capture programs: minutes on an emulated machine that others use too.
_LOADER_TIMEOUT_S = 600
_ANSWER_BYTES_MAX = 64 * 1024
_DESCRIPTORS_MAX = 250  # SCM_MAX_FD of include/net/scm.h is 253

_NICE = 10


@dataclass(frozen=True, slots=True)
class RunTime:
    """The kernel's own counts of programs. Time is counted only while somebody asks the kernel for it."""

    run_time_ns: int
    run_count: int
    missed: int  # events that the kernel did not deliver, because a program had interrupted itself

    def since(self, before: RunTime) -> RunTime:
        return RunTime(
            self.run_time_ns - before.run_time_ns, self.run_count - before.run_count, self.missed - before.missed
        )


class Observed:
    """Attached programs with their maps. For one thread at a time; ``close`` detaches them."""

    def __init__(self, maps: dict[str, int], programs: list[int], links: list[int]) -> None:
        self._maps, self._programs, self._links = maps, programs, links

    @classmethod
    def attach(
        cls,
        plan: str,
        *,
        values: Mapping[str, int],
        sizes: Mapping[str, int],
        programs: Mapping[str, str],
        maps: Sequence[str],
        macros: Mapping[str, int] | None = None,
    ) -> Observed:
        """Load the plan of module ``plan`` and attach ``programs`` (by name, with their tracepoints), in this order.

        ``values``: what VALUE_* of its text stand for. ``sizes``: ``max_entries`` of maps; bytes of a ring buffer. ``macros``:
        more -D, beside the plan's. MachineError names what this machine lacks.
        """
        if os.geteuid() != 0:
            raise MachineError("looking into the kernel needs root: run it with sudo")
        require_btf()
        request = {
            "plan": plan,
            "macros": dict(macros or {}),
            "values": dict(values),
            "sizes": dict(sizes),
            "programs": dict(programs),
            "maps": list(maps),
            "kept": str(FOLDER),
            "parent": os.getpid(),
        }
        descriptors = _load(request, len(maps) + 2 * len(programs))
        first_link = len(maps) + len(programs)
        return cls(
            dict(zip(maps, descriptors, strict=False)),
            descriptors[len(maps) : first_link],
            descriptors[first_link:],
        )

    def __enter__(self) -> Observed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map_fd(self, name: str) -> int:
        """File descriptor of the map ``pydbt_<name>``; this object owns it."""
        return self._maps[name]

    def run_time(self) -> RunTime:
        """Summed over the programs; it grows only within ``counting_run_time``."""
        return run_time_of(self._programs)

    def identifiers(self) -> list[int]:
        """The kernel's numbers of the programs, as bpftool shows them."""
        return [syscalls.program_info(fd).identifier for fd in self._programs]

    def close(self) -> None:
        """Detach. Idempotent."""
        for fd in (*self._links, *self._programs, *self._maps.values()):
            os.close(fd)
        self._links, self._programs, self._maps = [], [], {}


def run_time_of(program_fds: Sequence[int]) -> RunTime:
    """The kernel's counts of any programs, summed."""
    infos = [syscalls.program_info(fd) for fd in program_fds]
    return RunTime(
        sum(info.run_time_ns for info in infos),
        sum(info.run_count for info in infos),
        sum(info.recursion_misses for info in infos),
    )


@contextlib.contextmanager
def counting_run_time() -> Iterator[None]:
    """Meanwhile the kernel counts the run time of every program of the machine, which costs each run some 20 ns more."""
    fd = syscalls.enable_run_time()
    try:
        yield
    finally:
        os.close(fd)


def _load(request: dict[str, object], expected: int) -> list[int]:
    assert expected <= _DESCRIPTORS_MAX
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = _start(theirs.fileno())
        try:
            _, messages = child.communicate(json.dumps(request).encode(), _LOADER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ShortNow(f"compiling the observing programs took longer than {_LOADER_TIMEOUT_S} s") from None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        return _received(ours, expected, child.returncode, messages)


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        child_words("pydbt.kernel.tracing.loader", str(descriptor)),
        cwd="/",
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[descriptor],
    )
    _put_back(child.pid)
    return child


def _put_back(process: int) -> None:
    """Observing is worth less than what it observes: when memory or processors are short, the compiler is not preferred, as its
    controller may be."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/oom_score_adj", "w") as score:
        score.write("0")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))


def _received(ours: socket.socket, expected: int, code: int, messages: bytes) -> list[int]:
    """The descriptors that the child has sent before it ended."""
    answer, descriptors, _, _ = (
        socket.recv_fds(ours, _ANSWER_BYTES_MAX, _DESCRIPTORS_MAX, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        if code == 0
        else (b"", [], 0, None)
    )
    told = json.loads(answer) if answer else {"error": f"the loader of the observing programs ended with {code}"}
    if "error" not in told and len(descriptors) == expected:
        return list(descriptors)
    for fd in descriptors:
        os.close(fd)
    told.setdefault("error", "the loader of the observing programs gave too few descriptors")
    raise error_of(told, messages.decode(errors="replace"))

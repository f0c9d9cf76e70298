"""Give up what a process needs no more once it has begun: core dumps, capabilities, and new privileges by running a program.

Called before any thread is started: capabilities belong to a thread, and a new thread takes over those of its maker.
"""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Collection
from enum import IntEnum

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38  # include/uapi/linux/prctl.h
_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h: two words of 32 bits each


_own_process = False


def own_this_process() -> None:
    """Said by the program's entry: this process is nobody else's, and may give up what others in it could need."""
    global _own_process
    _own_process = True


class Capability(IntEnum):
    """Those that a controller keeps, by their numbers in include/uapi/linux/capability.h."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    KILL = 5
    IPC_LOCK = 14
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    MKNOD = 27
    SYSLOG = 34
    PERFMON = 38
    BPF = 39


PRIMARY_KEEPS = frozenset(
    {
        Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.DAC_READ_SEARCH, Capability.FOWNER, Capability.KILL,
        Capability.IPC_LOCK, Capability.SYS_PTRACE, Capability.SYS_ADMIN, Capability.SYS_RESOURCE, Capability.MKNOD,
        Capability.SYSLOG, Capability.PERFMON, Capability.BPF,
    }
)  # fmt: skip
"""Its programs are replaced and its bitmaps read through bpf(2); file systems are frozen, snapshots made, mounts looked at."""
SECONDARY_KEEPS = frozenset({Capability.DAC_OVERRIDE, Capability.SYS_RESOURCE})
"""A state directory may lie in a folder of the user who called sudo; and the journal may use the room that is left for root."""


def forbid_core_dumps() -> None:
    """Neither a crash nor another process of this user gets at the memory, which holds keys and the data of the volume."""
    if not _own_process:
        return
    from pydbt.posix import libc  # only here: a command that asks for a status does without it

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(_PR_SET_DUMPABLE, 0)


def keep_only(kept: Collection[Capability], *, runs_programs: bool) -> None:
    """Give up every capability but these. OSError when the kernel refuses it. One that was given up before stays so.

    With ``runs_programs`` a program that this process runs as root has its own again; without, nothing that it could run has.
    """
    if not _own_process:
        return
    from pydbt.posix import libc

    if os.geteuid() == 0:
        if not runs_programs:
            bounding = _own("CapBnd:")
            for number in range(_last_capability() + 1):
                if number not in kept and bounding >> number & 1:
                    libc.prctl(_PR_CAPBSET_DROP, number)
        mask = sum(1 << number for number in kept) & _own("CapPrm:")
        low, high = mask & 0xFFFFFFFF, mask >> 32
        libc.capset(struct.pack("<Ii", _VERSION_3, 0), struct.pack("<6I", low, low, 0, high, high, 0))
    if not runs_programs:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _own(name: str) -> int:
    """A set of capabilities of this thread."""
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith(name))


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as last:
        return int(last.read())

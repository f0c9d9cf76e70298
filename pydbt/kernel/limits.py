"""Limits that others set for this process and kernel, in words for the operator: memory of a control group, and lockdown."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from pydbt.core.errors import MachineError, PydbtError, ShortNow
from pydbt.core.units import format_bytes
from pydbt.posix.files import read_entry

# The compiler's own; the rings and the controller come on top.
COMPILER_BYTES = 256 << 20
_GROUPS = Path("/sys/fs/cgroup")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_SIGNS_OF_SHORTAGE = re.compile(r"out of memory|cannot allocate memory|bad_alloc|MemoryError", re.IGNORECASE)


def short_of_memory(groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> str:
    """The sentence for memory that was refused, with the limit that was met, if there is one."""
    limit = memory_limit_bytes(groups, own)
    who = (
        f"the control group of this process may use {format_bytes(limit)}"
        if limit
        else "the machine has too little free"
    )
    return (
        f"there is not enough memory for the capture programs: {who}, and compiling them takes {format_bytes(COMPILER_BYTES)} "
        "beside their rings; raise that limit (MemoryMax= of a service), or give a smaller --ring-size"
    )


def shortage(words: str = "", groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> PydbtError:
    """The error of memory that was refused: MachineError where a limit refuses it every time, or else ShortNow.

    A service tries again after the latter. ``words``: what was seen of it, ``short_of_memory`` by default.
    """
    limit = memory_limit_bytes(groups, own)
    kind = MachineError if limit is not None and limit < 2 * COMPILER_BYTES else ShortNow
    return kind(words or short_of_memory(groups, own))


def memory_limit_bytes(groups: Path, own: Path) -> int | None:
    """The least limit of the control groups that this process is in (cgroup v2 and v1); None without one."""
    limits = []
    for line in (read_entry(own) or "").splitlines():
        _, colon, rest = line.partition(":")
        controllers, other, path = rest.partition(":")
        if not (colon and other) or controllers not in ("", "memory"):
            continue
        root = groups / controllers
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        place = root / path.lstrip("/")
        for folder in (place, *place.parents):
            text = read_entry(folder / name)
            if (
                text is not None and text.isascii() and text.isdigit() and int(text) < 1 << 60
            ):  # v1 shows no limit as a huge one
                limits.append(int(text))
            if folder == root:
                break
    return min(limits, default=None)


def lockdown_words(place: Path = _LOCKDOWN) -> str:
    """An addition for a program that the kernel refused while it is locked down so that none may read its memory."""
    if "[confidentiality]" not in (read_entry(place) or ""):
        return ""
    return (
        "; the kernel is locked down (Secure Boot) with 'confidentiality', which lets no program read its memory: "
        "boot with lockdown=integrity, with which pydbt works"
    )


def why_loader_ended(code: int, messages: str) -> str | None:
    """The reason of a loader that ended without an answer, where code or messages give one away; else None."""
    if code == -signal.SIGKILL or _SIGNS_OF_SHORTAGE.search(messages):
        killed = "its compiler was killed, as the kernel does when memory is short: " if code == -signal.SIGKILL else ""
        return f"{killed}{short_of_memory()}"
    return None


def reason_in(messages: str) -> str:
    """The line with the reason in what a loader has written: the compiler's first error, or the verifier's last line."""
    noise = ("processed", "verification time", "stack depth", "HINT")
    lines = [line.strip() for line in messages.splitlines() if line.strip() and not line.startswith(noise)]
    compiler = (line for line in lines if "error:" in line)
    return next(compiler, lines[-1] if lines else "")

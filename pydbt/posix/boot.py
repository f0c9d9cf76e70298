"""Which boot of the machine this is."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """The random identifier that the kernel gave itself at this boot (random(4)).

    It is read once: a process outlives no boot, and may later be without a free descriptor.
    """
    return _BOOT_ID.read_text().strip()

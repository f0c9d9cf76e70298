"""Which boot of the machine this is."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """The random identifier that the kernel gave itself at this boot (random(4))."""
    return _BOOT_ID.read_text().strip()

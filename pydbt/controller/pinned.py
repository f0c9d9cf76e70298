"""Which volumes have programs in the kernel, by the names of their folders in bpffs. No eBPF is needed for that."""

from __future__ import annotations

import contextlib
import os

from pydbt.controller.registry import PINS
from pydbt.core.errors import MachineError
from pydbt.posix.ownership import folder_intruder, is_planted


def pinned_names() -> list[str]:
    """Each is a volume's, perhaps with a suffix behind a hyphen. MachineError when another user could have changed the list.

    What another user made in the place of ``PINS`` has nothing of ours in it: a start refuses it, or takes it away. For a user
    who may not look there are none.
    """
    if not os.path.lexists(PINS) or is_planted(PINS):
        return []
    if wrong := folder_intruder(PINS):
        raise MachineError(
            f"it is unknown which programs are in the kernel: {PINS} is not safe from other users: {wrong}"
        )
    with contextlib.suppress(FileNotFoundError), os.scandir(PINS) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


def volume_of(name: str) -> str:
    """The volume of a folder of pins, in hexadecimal: its name without a suffix."""
    return name.split("-")[0]

"""A secondary of this very machine may not be the source, nor write to it; and no device is SOURCE and TARGET at once."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.controller.registry import living_primaries, living_secondaries, secondaries_at
from pydbt.core.errors import UsageError
from pydbt.device.checks import check_pair, state_on_source
from pydbt.device.stacking import places_under, same_place
from pydbt.device.sysfs import BlockDevice


def refuse_live_target(device: BlockDevice) -> None:
    """UsageError when SOURCE is, or lies on, the TARGET of any secondary of this machine, which overwrites it.

    The replica of a replica would have the name of the wrong volume, and no generations that tell of its writes.
    """
    for entry in living_secondaries():
        if _meet(device.path, entry.place):
            raise UsageError(
                f"SOURCE {device.path} is the TARGET {entry.place} of a running secondary ({entry.state_dir}), which overwrites "
                "it: 'controller promote' it first, or replicate from its primary to several secondaries"
            )


def refuse_live_source(target: Path) -> None:
    """UsageError when TARGET is, or carries, the SOURCE of any primary of this machine.

    Who is not root keeps a replica in a file of its own, and cannot see root's controllers.
    """
    if os.geteuid() != 0:
        return
    for entry in living_primaries():
        if _meet(entry.place, target):
            raise UsageError(
                f"TARGET {target} is the SOURCE {entry.place} of a running primary ({entry.state_dir}): use another device, or "
                "make it a replica with 'controller demote'"
            )


def _meet(source: str, target: str | Path) -> bool:
    """Whether a write to TARGET changes SOURCE."""
    tops = places_under(target)[:1]
    return any(same_place(top, layer) for top in tops for layer in places_under(source))


def refuse_own_target(device: BlockDevice, address: tuple[str, int], state_dir: Path) -> None:
    """Refuse a secondary of this very machine that is SOURCE, carries it, or writes anything to it."""
    for entry in secondaries_at(*address):
        check_pair(device, entry.place)
        if state_on_source(device, entry.state_dir):
            raise UsageError(
                f"the state directory {entry.state_dir} of the secondary lies on SOURCE {device.path}, so that every "
                "write would cause another: start the secondary with one on another disk"
            )
        if Path(entry.state_dir).exists() and state_dir.exists() and state_dir.samefile(entry.state_dir):
            raise UsageError(f"the state directory {state_dir} is the secondary's: name another with --state")

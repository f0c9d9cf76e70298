"""A secondary of this very machine may not be the source, nor write to it."""

from __future__ import annotations

from pathlib import Path

from pydbt.controller.registry import secondaries_at
from pydbt.core.errors import UsageError
from pydbt.device.checks import check_pair, state_on_source
from pydbt.device.sysfs import BlockDevice


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

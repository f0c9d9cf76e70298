"""Whether a disk of this machine is a replica now, by what is written in its state directory."""

from __future__ import annotations

from pathlib import Path

from pydbt.core.configured.role import SECONDARY, RoleRecord, recorded
from pydbt.core.secondary.belonging import Belonging, belonging
from pydbt.device.target import names_of
from pydbt.store.replica_state import load_record
from pydbt.store.target_names import load_target_names


def is_replica(role: str, state_dir: Path) -> bool:
    """Whether the device of a configured volume is that of a replica now. Its state counts for more than its file: a replica
    may have been promoted, and a volume demoted. StateError when the state cannot be read."""
    return RoleRecord(recorded(load_record(state_dir), is_volume=False)).role(role) == SECONDARY


def belonging_of(target: Path, state_dir: Path) -> Belonging:
    """What the state tells of the device at this path. StateError when it cannot be read, UsageError when no device is there."""
    record = load_record(state_dir)
    if record is None or record.promoted:
        return belonging(record, {}, "", {})
    return belonging(record, load_target_names(state_dir, record.target), *names_of(str(target)))

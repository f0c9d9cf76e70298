"""Whether a command has changed the role of a volume or replica since its controller saved the last status."""

from __future__ import annotations

from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.posix.ownership import other_owner
from pydbt.store.replica_state import load_record
from pydbt.store.volume_state import load_state


def changed_role(state_dir: Path, role: str | None) -> str:
    """``promoted``, ``demoted``, or nothing. ``role`` is that of the last status; what cannot be read has not changed.

    Nor has what is in another user's directory: whatever is there is that user's doing, a pipe without a writer for example.
    """
    if other_owner(state_dir):
        return ""
    try:
        record = load_record(state_dir)
        if record is None:
            return ""
        if role == "secondary":
            return "promoted" if record.promoted else ""
        if role == "primary" and not record.promoted:
            return "demoted"  # also where it was killed before the files of the primary were removed
        if role == "primary" and load_state(state_dir) is None:
            return "promoted"
    except StateError:
        pass
    return ""

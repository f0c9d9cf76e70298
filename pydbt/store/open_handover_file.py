"""A change of places of which it is not known that it was completed: the file ``open-handover`` in a replica's state directory.

One line of JSON and one with its checksum. It is for people alone, so that what cannot be read tells nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydbt.core.checksum import checked, with_checksum
from pydbt.core.errors import StateError
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own
from pydbt.store.replica_state import load_record
from pydbt.store.volume_state import load_state

OPEN_HANDOVER_NAME = "open-handover"
OPEN_HANDOVER_VERSION = 1


def as_of_now(found: OpenHandover) -> OpenHandover:
    """With this moment, unless it has one."""
    return found if found.since else replace(found, since=datetime.now(UTC).isoformat(timespec="seconds"))


def save_open_handover(state_dir: Path, found: OpenHandover) -> None:
    """Durable when it returns. StateError when it cannot be written."""
    values = {"version": OPEN_HANDOVER_VERSION, **found.to_values()}
    replace_file(state_dir / OPEN_HANDOVER_NAME, with_checksum(json.dumps(values).encode(), b"\n"))


def forget_open_handover(state_dir: Path) -> None:
    """It is over. StateError when the file cannot be removed."""
    remove_file(state_dir / OPEN_HANDOVER_NAME)


def load_open_handover(state_dir: Path) -> OpenHandover | None:
    """None where there is none. The replica's record decides whether this side gave its place up, or took one."""
    try:
        record = load_record(state_dir)
    except StateError:
        return None
    kept = _kept(state_dir)
    if record is None:
        return None
    if record.promoted:
        took = kept is not None and kept.stage in (HandoverStage.ASKED, HandoverStage.REFUSED) and _never_ran(state_dir)
        return OpenHandover(HandoverStage.PROMOTED, kept.other, record.promoted) if kept is not None and took else None
    was_given = kept is not None and kept.stage is HandoverStage.GIVEN
    if record.handed_to:
        same = was_given and kept is not None and kept.other == record.handed_to
        return kept if same else OpenHandover(HandoverStage.GIVEN, record.handed_to)
    return None if was_given else kept


def _never_ran(state_dir: Path) -> bool:
    """Of a side that was promoted: whether no run has begun there since. False when that is unknown."""
    try:
        state = load_state(state_dir)
    except StateError:
        return False
    return state is not None and not state.secondaries


def _kept(state_dir: Path) -> OpenHandover | None:
    try:
        values = json.loads(checked(read_own(state_dir / OPEN_HANDOVER_NAME), b"\n"))
        if values.pop("version") != OPEN_HANDOVER_VERSION:
            return None
        return OpenHandover.from_values(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None

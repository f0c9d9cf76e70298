"""What a state directory records of the role of its side, read for ``core/configured/role``."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydbt.controller.control import read_saved_status
from pydbt.core.configured.role import Recorded, RoleRecord, recorded
from pydbt.core.errors import StateError, UsageError
from pydbt.core.secondary.open_handover import HandoverStage
from pydbt.network.address import format_address, parse_address, split_address
from pydbt.store.listen_file import load_listen
from pydbt.store.open_handover_file import load_open_handover
from pydbt.store.replica_state import load_record
from pydbt.store.successor import Successor, load_successor
from pydbt.store.volume_state import VOLUME_FILE_NAME, load_state


def role_record(state_dir: Path) -> RoleRecord:
    """StateError when it cannot be read: then nobody knows the role, and nothing may start."""
    record = load_record(state_dir)
    found = recorded(record, is_volume=(state_dir / VOLUME_FILE_NAME).exists())
    match found:
        case Recorded.REPLICA:
            successor = _successor(state_dir)
            since, address = (successor.since, successor.address) if successor is not None else ("", "")
            return RoleRecord(found, since, address, listen=_listen(state_dir))
        case Recorded.PROMOTED:
            assert record is not None, "it was promoted"
            return RoleRecord(found, record.promoted, secondaries=_secondaries(state_dir))
        case _:
            return RoleRecord(found)


def _successor(state_dir: Path) -> Successor | None:
    """For words alone."""
    try:
        return load_successor(state_dir)
    except StateError:
        return None


def _listen(state_dir: Path) -> str:
    """What an earlier version has not kept is in the last status of its secondary."""
    with contextlib.suppress(StateError):
        if kept := load_listen(state_dir):
            return kept
    saved = read_saved_status(state_dir) or {}
    told = saved.get("listen") if saved.get("role") == "secondary" else ""
    try:
        return format_address(*parse_address(told)) if isinstance(told, str) and told else ""
    except UsageError:
        return ""


def _secondaries(state_dir: Path) -> tuple[str, ...]:
    """Those on record; of a side that took its primary's place and has not run since, that one."""
    state = load_state(state_dir)
    if state is not None and state.secondaries:
        return tuple(format_address(*split_address(record.address)) for record in state.secondaries)
    handover = load_open_handover(state_dir)
    return (handover.other,) if handover is not None and handover.stage is HandoverStage.PROMOTED else ()

"""What a state directory records of the role of its side, read for ``core/configured/role``."""

from __future__ import annotations

from pathlib import Path

from pydbt.core.configured.role import Recorded, RoleRecord, recorded
from pydbt.core.secondary.open_handover import HandoverStage
from pydbt.store.listen_file import load_listen
from pydbt.store.open_handover_file import load_open_handover
from pydbt.store.replica_state import load_record
from pydbt.store.successor import load_successor
from pydbt.store.volume_state import VOLUME_FILE_NAME, load_state


def role_record(state_dir: Path) -> RoleRecord:
    """StateError when it cannot be read: then nobody knows the role, and nothing may start."""
    record = load_record(state_dir)
    found = recorded(record, is_volume=(state_dir / VOLUME_FILE_NAME).exists())
    match found:
        case Recorded.REPLICA:
            successor = load_successor(state_dir)
            since, address = (successor.since, successor.address) if successor is not None else ("", "")
            return RoleRecord(found, since, address, listen=load_listen(state_dir))
        case Recorded.PROMOTED:
            assert record is not None, "it was promoted"
            return RoleRecord(found, record.promoted, secondaries=_secondaries(state_dir))
        case _:
            return RoleRecord(found)


def _secondaries(state_dir: Path) -> tuple[str, ...]:
    """Those on record; of a side that took its primary's place and has not run since, that one."""
    state = load_state(state_dir)
    if state is not None and state.secondaries:
        return tuple(record.address for record in state.secondaries)
    handover = load_open_handover(state_dir)
    return (handover.other,) if handover is not None and handover.stage is HandoverStage.PROMOTED else ()

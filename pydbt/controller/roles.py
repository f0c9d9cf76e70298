"""A replica becomes a volume, and a volume becomes a replica: files are written in an order that survives a crash."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from pydbt.core.errors import BusyError, StateError, UsageError
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.frames import SUPERSEDED
from pydbt.core.protocol.generations import NO_GENERATIONS, Generations, generation_name, lineage_of
from pydbt.core.secondary.journal import SEGMENT_BYTES
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.target_identity import Likeness, likeness
from pydbt.core.seen.view import View
from pydbt.device.clean import is_untouched
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import Target, names_of
from pydbt.posix.atomic import remove_file
from pydbt.store.gate_file import GATE_FILE_NAME
from pydbt.store.gate_question_file import forget_gate_question
from pydbt.store.lock import StateLock
from pydbt.store.map_file import load_map
from pydbt.store.open_handover_file import as_of_now, forget_open_handover, load_open_handover, save_open_handover
from pydbt.store.peer_pin import PEER_FILE_NAME, key_file_name
from pydbt.store.reached import REACHED_FILE_NAME
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.successor import forget_successor, load_successor
from pydbt.store.target_names import forget_target_names, load_target_names
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState, load_state, require_same_source, save_state

JOURNAL_FOLDER = "journal"

_log = logging.getLogger("pydbt")


def promoted(record: ReplicaRecord, target: Path, state_dir: Path, as_of: str = "") -> ReplicaRecord:
    """The record of a replica that is a volume of its own from here on; the state for ``controller run`` is written.

    ``as_of``: the moment of its primary whose image it is, if that is known. The caller saves the record: before that moment
    the replica is a replica, and can be promoted once more.
    """
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    name = generation_name(secrets.randbits(64), 0)
    generations = record.generations.written_alone(name) if record.generations.current else Generations(name)
    device = BlockDevice.identify(target) if target.is_block_device() else None
    state = VolumeState(
        volume=record.volume or "",
        size_bytes=record.size_bytes,
        block_bytes=record.block_bytes,
        source_path=str(target),
        source=device.identity() if device is not None else {},
        generations=generations,
        common_until=as_of,
        alone_since=moment,
    )
    save_state(state_dir, state)
    return replace(record, promoted=moment, generations=generations)


def another_target(state_dir: Path, target: Path) -> str:
    """The words about a state directory that was kept for another target."""
    return (
        f"the state directory {state_dir} belongs to another target than {target}: name the target it belongs to, or add "
        "--accept-target to 'secondary' or 'promote' if this one is the same disk or a copy of it"
    )


def require_replica(state_dir: Path, target: Path, *, accept_target: bool = False) -> ReplicaRecord:
    """The record of the replica on TARGET; to be called before anything is stopped or changed. UsageError, StateError.

    ``accept_target``: it may have been kept for another one.
    """
    record = load_record(state_dir)
    if record is None:
        raise UsageError(f"the state directory {state_dir} holds no replica: name that of a secondary")
    identity, names = names_of(str(target))
    kept = load_target_names(state_dir, record.target)
    if not accept_target and likeness(record.target, kept, identity, names) is Likeness.OTHER:
        raise UsageError(another_target(state_dir, target))
    return record


def require_volume(state_dir: Path, source: Path) -> VolumeState:
    """The state of the volume on SOURCE; to be called before anything is stopped or changed. UsageError, StateError."""
    state = load_state(state_dir)
    if state is None:
        raise UsageError(f"the state directory {state_dir} holds no volume: name that of a primary")
    require_no_replica(state_dir)
    if source.is_block_device():
        return require_same_source(state, BlockDevice.identify(source), state_dir, as_target=True)
    if state.source or source.stat().st_size < state.size_bytes:
        raise UsageError(f"{state_dir} belongs to {state.source_path}, not to {source}: name the SOURCE it belongs to")
    return state


def require_no_replica(state_dir: Path) -> None:
    """UsageError when the directory is that of a replica, which is no SOURCE before it is promoted."""
    record = load_record(state_dir)
    if record is None or record.promoted:
        return
    place = f"the state directory {state_dir} is that of a replica"
    if (successor := load_successor(state_dir)) is not None:
        raise UsageError(
            f"{place} since {successor.since}, when {successor.address} became the primary: run 'controller secondary' on it; "
            f"only if {successor.address} is lost, 'controller promote --force' it"
        )
    if (handover := load_open_handover(state_dir)) is not None:
        raise UsageError(f"{place}, on which 'controller secondary' may run: {handover.words}")
    raise UsageError(
        f"{place}: run 'controller secondary' on it, or name another directory; only if its primary is lost, 'controller "
        "promote' it first"
    )


def require_no_successor(state_dir: Path) -> None:
    """BusyError when this replica gave its place to another side, of which nobody here has heard since."""
    if (successor := load_successor(state_dir)) is not None:
        raise BusyError(
            f"{successor.address} became the primary of this volume at {successor.since}, and no secondary runs here that "
            "could have heard of it: run 'controller secondary' on this replica, or add --force if that primary is lost"
        )


def demote(source: Path, state_dir: Path, *, mapped: bool = False, handed_to: str = "") -> ReplicaRecord:
    """Make a primary's volume a replica of the same volume. Its controller has ended, and SOURCE is not in use.

    ``mapped``: the programs tracked the volume until a moment ago, and the maps have what they saw.
    ``handed_to``: the secondary that is told next to take over. Raises UsageError and StateError with nothing changed.
    """
    state = require_volume(state_dir, source)
    device = BlockDevice.identify(source) if source.is_block_device() else None
    views = [record.generations for record in state.secondaries] or [state.generations]
    generations = replace(lineage_of(views), shared=any(view.shared for view in views))
    lacking: dict[int, int | None] = {record.slot: None for record in state.secondaries}
    maps = lacking
    # Nothing was written since the clean stop after which the maps were kept, so that they have everything.
    if device is not None and is_untouched(state.clean, device):
        lacking = maps = _lacking(state, state_dir)
    elif mapped:
        maps = _lacking(state, state_dir)
    behind = [record for record in state.secondaries if lacking[record.slot] != 0]
    if any(record.generations.shared for record in behind):
        generations = generations.renamed(generation_name(secrets.randbits(64), 0), followed=False)
    target = Target(str(source))
    try:
        record = ReplicaRecord(
            replica=secrets.token_hex(16),
            target=target.identity,
            segment_bytes=SEGMENT_BYTES,
            volume=UUID(state.volume).hex,
            size_bytes=state.size_bytes,
            block_bytes=state.block_bytes,
            consistent=True,
            generations=generations,
            divergence=_divergence(source, state, maps),
            handed_to=handed_to,
            formerly=former_names(load_record(state_dir)),
        )
    finally:
        target.close()
    _remove_journal(state_dir / JOURNAL_FOLDER)  # from an earlier time as a replica
    remove_file(state_dir / REACHED_FILE_NAME)
    forget_target_names(state_dir)
    forget_successor(state_dir)
    if handed_to:  # first: it counts beside the record alone
        save_open_handover(state_dir, as_of_now(OpenHandover(HandoverStage.GIVEN, handed_to)))
    else:
        forget_open_handover(state_dir)
    forget_gate_question(state_dir)
    save_record(state_dir, record)  # from here on it is a replica, and nothing that fails may say that it is not
    kept = (
        PEER_FILE_NAME,
        key_file_name(PEER_FILE_NAME),
    )  # who the other machine is, which may be the primary from here on
    names = [name for one in state.secondaries for name in one.file_names if name not in kept]
    for name in (VOLUME_FILE_NAME, GATE_FILE_NAME, *names):
        try:
            remove_file(state_dir / name)
        except StateError as error:
            _log.warning("%s is a replica now, and a file of the primary stays: %s", source, error)
    return record


def _remove_journal(folder: Path) -> None:
    """StateError when it cannot be removed, or is no folder: ``rmtree`` opens a pipe as well, and waits for its writer."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise StateError(f"{folder} is not a directory, as a journal is: move it away")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise StateError(f"{folder} cannot be removed: {error.strerror}") from None


def note_promoted_other(state_dir: Path, status: dict[str, Any] | None) -> None:
    """Of a side that was demoted: its last status as a primary may tell which of its secondaries was promoted in its place."""
    secondaries = View(status).parts("secondaries")
    other = next((one.text("secondary") for one in secondaries if one.text("refused") == SUPERSEDED), None)
    if other:
        try:
            save_open_handover(state_dir, OpenHandover(HandoverStage.TAKEN, other))
        except (StateError, ValueError) as error:  # it is a replica all the same
            _log.warning("that %s was promoted could not be written down: %s", other, error)


def former_names(record: ReplicaRecord | None) -> tuple[str, ...]:
    """The names under which a primary may know the replica that is made in the place of this one."""
    return () if record is None else record.renamed("0" * 32).formerly


def invalidate(target: Path, state_dir: Path) -> ReplicaRecord:
    """Give up the content of a replica: any primary of its volume may overwrite it, and compares all of it."""
    lock = StateLock(state_dir)
    try:
        record = require_replica(state_dir, target)
        if record.promoted:
            raise UsageError(
                f"the replica of {state_dir} was promoted and is a volume of its own: make it a replica with 'controller demote'"
            )
        record = replace(
            record.renamed(secrets.token_hex(16)), consistent=False, must_reach=0, generations=NO_GENERATIONS,
            divergence=None,
        )  # fmt: skip
        save_record(state_dir, record)
        return record
    finally:
        lock.close()


def _lacking(state: VolumeState, state_dir: Path) -> dict[int, int | None]:
    """Blocks that each secondary lacks, by slot; None without a map, which is more than none. Raises StateError."""
    maps = {record.slot: load_map(state_dir / record.map_name) for record in state.secondaries}
    return {slot: None if kept is None else kept[1].count() for slot, kept in maps.items()}


def _divergence(source: Path, state: VolumeState, lacking: dict[int, int | None]) -> Divergence:
    """What no secondary is known to have. Of several, that of the one furthest behind: nobody knows which is promoted."""
    known = [count for count in lacking.values() if count is not None]
    behind = state.secondaries
    return Divergence(
        host=socket.gethostname(),
        device=str(source),
        last_common=min((record.last_common for record in behind), default=state.common_until),
        first_alone=min((record.first_alone for record in behind), default=state.alone_since),
        last_alone=state.last_written,
        differing_bytes=max(known) * state.block_bytes if known and len(known) == len(lacking) else None,
    )

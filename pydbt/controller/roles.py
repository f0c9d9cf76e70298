"""A replica becomes a volume, and a volume becomes a replica: files are written in an order that survives a crash."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from pydbt.core.errors import StateError, UsageError
from pydbt.core.protocol.generations import NO_GENERATIONS, Generations, generation_name, lineage_of
from pydbt.core.secondary.journal import SEGMENT_BYTES
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.device.block import DirectReader
from pydbt.device.clean import is_untouched
from pydbt.device.sysfs import BlockDevice
from pydbt.device.target import Target, identity_of, is_same
from pydbt.store.atomic import remove_file
from pydbt.store.lock import StateLock
from pydbt.store.map_file import load_map
from pydbt.store.reached import REACHED_FILE_NAME
from pydbt.store.replica_state import load_record, save_record
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState, load_state, require_same_source, save_state

JOURNAL_FOLDER = "journal"


def promoted(record: ReplicaRecord, target: Path, state_dir: Path) -> ReplicaRecord:
    """The record of a replica that is a volume of its own from here on; the state for ``controller run`` is written.

    The caller saves the record: before that moment the replica is a replica, and can be promoted once more.
    """
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
    )
    save_state(state_dir, state)
    return replace(record, promoted=datetime.now(UTC).isoformat(timespec="seconds"), generations=generations)


def require_replica(state_dir: Path, target: Path) -> ReplicaRecord:
    """The record of the replica on TARGET; to be called before anything is stopped or changed. UsageError, StateError."""
    record = load_record(state_dir)
    if record is None:
        raise UsageError(f"the state directory {state_dir} holds no replica: name that of a secondary")
    if not is_same(record.target, identity_of(str(target))):
        raise UsageError(
            f"the state directory {state_dir} belongs to another target than {target}: name the target it belongs to"
        )
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
    if record is not None and not record.promoted:
        raise UsageError(
            f"the state directory {state_dir} is that of a replica: 'controller promote' it first, or name another directory"
        )


def demote(source: Path, state_dir: Path) -> ReplicaRecord:
    """Make a primary's volume a replica of the same volume. Its controller has ended, and SOURCE is not in use.

    Raises UsageError and StateError with nothing changed.
    """
    state = require_volume(state_dir, source)
    device = BlockDevice.identify(source) if source.is_block_device() else None
    views = [record.generations for record in state.secondaries] or [state.generations]
    generations = replace(lineage_of(views), shared=any(view.shared for view in views))
    if any(record.generations.shared for record in _without_some_of_it(device, state, state_dir)):
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
        )
    finally:
        target.close()
    try:
        shutil.rmtree(state_dir / JOURNAL_FOLDER, ignore_errors=False)  # from an earlier time as a replica
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StateError(f"{state_dir / JOURNAL_FOLDER} cannot be removed: {error.strerror}") from None
    remove_file(state_dir / REACHED_FILE_NAME)
    save_record(state_dir, record)  # from here on it is a replica
    remove_file(state_dir / VOLUME_FILE_NAME)
    for secondary in state.secondaries:
        remove_file(state_dir / secondary.map_name)
        remove_file(state_dir / secondary.intent_name)
        remove_file(state_dir / secondary.free_name)
    return record


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
            record, replica=secrets.token_hex(16), consistent=False, must_reach=0, generations=NO_GENERATIONS
        )
        save_record(state_dir, record)
        return record
    finally:
        lock.close()


def _without_some_of_it(device: BlockDevice | None, state: VolumeState, state_dir: Path) -> list[SecondaryRecord]:
    """The secondaries that may lack some of the volume's writes. Raises StateError."""
    if device is None or not state.clean:
        return list(state.secondaries)
    with DirectReader(device) as reader:
        if not is_untouched(state.clean, device, reader):
            return list(state.secondaries)
    maps = [(record, load_map(state_dir / record.map_name)) for record in state.secondaries]
    return [record for record, kept in maps if kept is None or kept[1].any()]

"""The configuration of the brains of a volume's secondaries, made from the metadata when a run begins."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.era_recovery import Since, is_untracked
from pydbt.controller.primary.kept_marks import carried_over
from pydbt.controller.primary.leftover import require_map_of
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.protocol.generations import first_generations, generation_name
from pydbt.core.tracking.discards import ALWAYS_ZEROS, DiscardPromise
from pydbt.network.tls import Secure, load_identity
from pydbt.posix.boot import boot_id
from pydbt.store.map_file import load_map
from pydbt.store.peer_pin import PeerPin, Unpinned
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState

# Bytes of the log per captured write of 4 KiB: its own slot and its part of a DONE record.
LOG_SLOT_BYTES = 64
# A replica that stands at an earlier run than these is compared as a whole.
LATER_EPOCHS = 256

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class Joining:
    """A secondary that joins: the configuration of its brain, the blocks that may differ, and its identity.

    ``staged``: blocks of an unfinished resynchronization, which are not pending and in no image.
    ``since`` bounds the comparison after writes that may have gone untracked; None without a bound, or without such writes.
    ``left_out``: blocks that count for nobody, which it was not given.
    """

    config: PrimaryConfig
    pending: DirtyMap | None = None
    left_out: DirtyMap | None = None
    secure: Secure | None = None
    since: Since | None = None
    staged: DirtyMap | None = None


def new_epoch() -> int:
    """A name for the sequence numbers of one run for one secondary."""
    return secrets.randbits(63) | 1


def secure_of(options: PrimaryOptions, given: str | None, pin_name: str | None) -> Secure | None:
    """TLS to one secondary, if it is used: ``given`` is the name it must prove, which is kept under ``pin_name``, if given."""
    if options.identity is None:
        return None
    pin = (
        Unpinned(given)
        if pin_name is None
        else PeerPin(options.state_dir, given, pin_name, any_key=options.new_peer_key)
    )
    return Secure(load_identity(options.identity), pin)


def load_pending(state_dir: Path, state: VolumeState, record: SecondaryRecord) -> DirtyMap | None:
    """The blocks in its map file; None without one. StateError when it cannot be read, or belongs to another volume."""
    path = state_dir / record.map_name
    loaded = load_map(path)
    if loaded is None:
        return None
    require_map_of(state, record, loaded[0], path)
    return loaded[1]


def load_staged(state_dir: Path, state: VolumeState, record: SecondaryRecord) -> DirtyMap | None:
    """The blocks of an unfinished resynchronization, which are in no image yet; None when there is none.

    Where nobody wrote them down, or their map cannot be read, it may be any block: the map is for the status alone.
    """
    if not record.unfinished:
        return None
    with contextlib.suppress(StateError):
        loaded = load_map(state_dir / record.staged_name)
        if loaded is not None and (loaded[0].volume, loaded[0].geometry) == (state.uuid, state.geometry):
            return loaded[1]
    every = DirtyMap(state.geometry.block_count)
    every.set_range(0, every.block_count)
    return every


def load_left_out(state_dir: Path, state: VolumeState, record: SecondaryRecord) -> DirtyMap | None:
    """The blocks that count for nobody and were not given to it; None without a file that can be read."""
    try:
        loaded = load_map(state_dir / record.free_name)
    except StateError as error:
        _log.warning("%s", error)
        return None
    if loaded is None or (loaded[0].volume, loaded[0].geometry) != (state.uuid, state.geometry):
        return None
    return loaded[1]


def begun(state: VolumeState, untold: Collection[int], assumed: bool, disk_sequence: int | None) -> VolumeState:
    """The metadata to write down when a run begins, once the programs are attached: from then on every write is tracked.

    ``untold`` are the slots whose maps may lack a write; ``assumed``: the secondaries are trusted to equal the volume. The
    volume takes a new generation when a secondary may hold the name of the current one, but not all of its content.
    """
    seed = secrets.randbits(64)
    base = state.generations if state.generations.current else first_generations(seed)
    # Earlier versions could leave a secondary with an older name, when they were killed just as it was added.
    views = {
        r.slot: r.generations.caught_up(base.current) if r.generations.current else base for r in state.secondaries
    }
    if any(views[slot].shared for slot in untold) or (not views and base.shared):
        name = generation_name(seed, 0)
        base = base.renamed(name, followed=False)
        views = {slot: view.renamed(name, followed=False) for slot, view in views.items()}
    for record in state.secondaries:
        state = state.with_record(
            replace(
                record,
                generations=views[record.slot],
                compared_whole=record.compared_whole or assumed,
                later_epochs=[*record.later_epochs, new_epoch()][-LATER_EPOCHS:],
            )
        )
    boot = boot_id()
    more = carried_over(state, boot)
    return replace(state, clean=None, boot_id=boot, disk_sequence=disk_sequence, generations=base, more=more)


def tainted(record: SecondaryRecord, reason: str) -> SecondaryRecord:
    """The record with one taint more, unless it has that already."""
    if any(entry["reason"] == reason for entry in record.taints):
        return record
    entry = {"reason": reason, "since": datetime.now(UTC).isoformat(timespec="seconds")}
    return replace(record, taints=[*record.taints, entry])


def joining(
    options: PrimaryOptions,
    state: VolumeState,
    record: SecondaryRecord,
    secure: Secure | None,
    *,
    pending: DirtyMap | None = None,
    tells_all: bool = False,
    assumed: bool = False,
    quiet_held: bool = False,
    snapshot_based: bool = False,
    since: Since | None = None,
    bounded: bool = False,
    completed_first: bool = False,
    discards: DiscardPromise = ALWAYS_ZEROS,
) -> Joining:
    """``record`` as it was written down when this run began; ``tells_all``: its map and the bitmaps name all blocks that
    differ; ``snapshot_based``: only addresses are captured; ``since``: only the blocks that dm-era names are compared;
    ``bounded``: the rest of such a comparison is in the map; ``completed_first``: the volume has write-intent; ``discards``: what
    the source returns of discarded blocks."""
    # Where nothing tells what was written since, nothing tells what is still left out either.
    left_out = load_left_out(options.state_dir, state, record) if tells_all else None
    if since is not None:
        pending, tells_all = since.blocks, True
    initial, taints = record.phase is SyncPhase.INITIAL, tuple(entry["reason"] for entry in record.taints)
    config = PrimaryConfig(
        geometry=state.geometry,
        epoch=record.later_epochs[-1],
        log_slots=max(64, options.log_bytes // LOG_SLOT_BYTES),
        data_room_bytes=options.data_ring_bytes,
        rate_limit_bytes=options.rate_limit_bytes_per_s,
        digests=options.compare_first,
        acknowledge_timeout_s=options.acknowledge_timeout_s,
        initial=initial or assumed,
        scan_used=not assumed and not tells_all,
        scan_whole=options.whole_device or not initial,
        assumed_in_sync=assumed,
        replica=record.replica,
        replica_epoch=record.epoch,
        replica_sequence=record.sequence,
        replica_progress=record.progress,
        later_epochs=tuple(record.later_epochs),
        unfinished=record.unfinished,
        quiet_held=quiet_held,
        snapshot_interval_s=options.snapshot_interval_s if snapshot_based else None,
        hold_limit_s=options.freeze_limit_s,
        taints=taints,
        answered=tuple(filter(is_untracked, taints)) if since is not None or bounded else (),
        generations=record.generations,
        generation_seed=secrets.randbits(64),
        completed_first=completed_first,
        discards=discards,
    )
    staged = load_staged(options.state_dir, state, record)
    return Joining(config, pending, left_out, secure, since, staged)

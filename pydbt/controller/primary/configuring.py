"""What the brains of a volume's secondaries are told when they begin, from what was written down."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.era_recovery import UNTRACKED, Since
from pydbt.controller.primary.leftover import require_map_of
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.rename import first_generations
from pydbt.core.protocol.generations import generation_name
from pydbt.network.tls import Secure, load_identity
from pydbt.posix.boot import boot_id
from pydbt.store.map_file import load_map
from pydbt.store.peer_pin import PeerPin, Unpinned
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState

# What one captured write of 4 KiB costs the log: its own slot and its part of a DONE record.
LOG_SLOT_BYTES = 64
# A replica that stands at a run before so many that all came to nothing is compared as a whole.
LATER_EPOCHS = 256

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class Joining:
    """A secondary that is to be replicated to: what its brain is told, what may differ, and who it must prove to be.

    ``since`` bounds what is compared because writes may have gone untracked; None where nothing does, or none have.
    """

    config: PrimaryConfig
    pending: DirtyMap | None = None
    secure: Secure | None = None
    since: Since | None = None


def new_epoch() -> int:
    """Names the sequence numbers that one run counts for one secondary."""
    return secrets.randbits(63) | 1


def secure_of(options: PrimaryOptions, given: str | None, pin_name: str | None) -> Secure | None:
    """TLS to one secondary, if there is any: ``given`` is the name it must prove; it is kept under ``pin_name``, or not."""
    if options.identity is None:
        return None
    pin = Unpinned(given) if pin_name is None else PeerPin(options.state_dir, given, pin_name)
    return Secure(load_identity(options.identity), pin)


def load_pending(state_dir: Path, state: VolumeState, record: SecondaryRecord) -> DirtyMap | None:
    """What its map file names; None without one. StateError when it cannot be read, or is none of this volume."""
    path = state_dir / record.map_name
    loaded = load_map(path)
    if loaded is None:
        return None
    require_map_of(state, record, loaded[0], path)
    return loaded[1]


def begun(state: VolumeState, untold: Collection[int], assumed: bool, disk_sequence: int | None) -> VolumeState:
    """What is written down when a run begins, once the programs are there: from here on every write is tracked.

    ``untold`` are the slots whose maps do not name all that may have been written since; ``assumed``: the secondaries are
    trusted to hold what the volume holds. A secondary that may hold the content's name, and not all of the content,
    makes the volume take another one.
    """
    seed = secrets.randbits(64)
    base = state.generations if state.generations.current else first_generations(seed)
    views = {r.slot: r.generations if r.generations.current else base for r in state.secondaries}
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
    return replace(state, clean=None, boot_id=boot_id(), disk_sequence=disk_sequence, generations=base)


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
    by_epochs: bool = False,
    since: Since | None = None,
    bounded: bool = False,
    completed_first: bool = False,
) -> Joining:
    """``record`` as it was written down when this run began; ``tells_all``: its map and the bitmaps name all that differs;
    ``by_epochs``: only addresses are captured; ``since``: what dm-era names is compared, and nothing else; ``bounded``: what is
    left of such a comparison is in the map; ``completed_first``: the volume has write-intent."""
    if since is not None:
        pending, tells_all = since.blocks, True
    initial = record.phase is SyncPhase.INITIAL
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
        epoch_interval_s=options.epoch_interval_s if by_epochs else None,
        hold_limit_s=options.freeze_limit_s,
        taints=tuple(entry["reason"] for entry in record.taints),
        answered=(UNTRACKED,) if since is not None or bounded else (),
        generations=record.generations,
        generation_seed=secrets.randbits(64),
        completed_first=completed_first,
    )
    return Joining(config, pending, secure, since)

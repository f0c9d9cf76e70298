"""Opens the state directory for a run: the volume, its secondaries on record and on the command line, and their maps."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pydbt.controller.expiry import tell_expiry
from pydbt.controller.options import DEFAULT_BLOCK_BYTES, PrimaryOptions
from pydbt.controller.primary.armed import without_arming
from pydbt.controller.primary.configuring import Joining, begun, joining, load_pending, secure_of, tainted
from pydbt.controller.primary.era_recovery import UNTRACKED, EraRecovery, is_untracked, was_bounded
from pydbt.controller.primary.handshake import Refused, hello_of, part_from, shake_hands
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import NoAnswer, PeerError, Unreachable, UsageError
from pydbt.core.protocol.frames import Hello, Welcome
from pydbt.core.protocol.generations import lineage_of
from pydbt.core.protocol.peer_identity import IDENTITY_REFUSALS
from pydbt.core.protocol.refusals import FATAL_REFUSALS
from pydbt.core.tracking.discards import ALWAYS_ZEROS, DiscardPromise
from pydbt.device.sysfs import BlockDevice
from pydbt.network.address import format_address, split_address
from pydbt.network.connection import FramedConnection
from pydbt.network.tls import Secure
from pydbt.posix.atomic import remove_file
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState, create_state, load_state, require_same_source, save_state

# As often as a run that is under way tries to connect.
RETRY_S = 1.0

_log = logging.getLogger("pydbt")


def open_state(options: PrimaryOptions, device: BlockDevice) -> tuple[VolumeState, bool]:
    """The volume with the secondaries on record and those on the command line; and whether it is new."""
    state = load_state(options.state_dir)
    if state is None:
        return with_named(create_state(device, options.block_bytes or DEFAULT_BLOCK_BYTES), options, is_new=True), True
    state = require_same_source(state, device, options.state_dir, options.block_bytes)
    return with_named(state, options, is_new=False), False


def with_named(state: VolumeState, options: PrimaryOptions, is_new: bool) -> VolumeState:
    """A secondary on record stays, also when the command line does not name it. A new address in its place: it has moved.

    But the address of a removed secondary does not replace another one: it is a new secondary again.
    """
    known = {split_address(record.address): record for record in state.secondaries}
    named = [address for address in options.secondaries if address not in known]
    silent = [record for address, record in known.items() if address not in options.secondaries]
    if len(named) == len(silent) == 1 and format_address(*named[0]) not in state.removed:
        return state.with_record(replace(silent[0], address=format_address(*named[0])))
    phase = SyncPhase.ASSUMED if is_new and options.assume_in_sync else SyncPhase.INITIAL
    for address in named:
        record = SecondaryRecord(
            state.free_slot(), format_address(*address), phase, generations=lineage_of([state.generations]),
            last_common=state.common_until, first_alone=state.alone_since,
        )  # fmt: skip
        if not is_new:
            for name in record.file_names:  # of one that was removed in the middle of it
                remove_file(options.state_dir / name)
            _log.info("%s is a new secondary of this volume", record.address)
        state = state.with_record(record)
    for record in silent:
        _log.info("%s is already a secondary of this volume, and stays one: "
                  "'controller secondaries SOURCE --remove %s' ends that", record.address, record.address)  # fmt: skip
    return state


def secures_of(options: PrimaryOptions, state: VolumeState) -> dict[int, Secure | None]:
    """TLS to each secondary, by slot; ``--peer`` names them in the order of the command line."""
    given = dict(zip(options.secondaries, options.peers, strict=False))
    secures = {
        record.slot: secure_of(options, given.get(split_address(record.address)), record.pin_name)
        for record in state.secondaries
    }
    tell_expiry(next(iter(secures.values())))
    return secures


def prove_secondaries(
    device: BlockDevice, state: VolumeState, secures: dict[int, Secure | None], *, wait: bool
) -> None:
    """A first run must find its secondaries before anything is attached or written: it waits, or PeerError ends it."""
    hello = hello_of(state, device.logical_block_bytes, 0, state.generations)
    found: dict[str, str] = {}
    for record in state.secondaries:
        connection, welcome = _first_contact(record, hello, secures[record.slot], wait)
        part_from(connection)
        if (other := found.setdefault(welcome.replica, record.address)) != record.address:
            raise UsageError(f"{record.address} and {other} are one secondary: name every secondary once")


def _first_contact(
    record: SecondaryRecord, hello: Hello, secure: Secure | None, wait: bool
) -> tuple[FramedConnection, Welcome]:
    """Hands shaken with a secondary, however long it takes until it is there, with ``wait``. Raises Refused, PeerError."""
    told = ""
    while True:
        try:
            return shake_hands(*split_address(record.address), hello, secure)
        except PeerError as error:
            mended_by_time = isinstance(error, Unreachable | NoAnswer) or (
                isinstance(error, Refused) and error.code not in FATAL_REFUSALS | IDENTITY_REFUSALS
            )
            if not wait or not mended_by_time:
                raise
            if str(error) != told:
                _log.warning("%s; waiting for this secondary, nothing is tracked yet (--no-wait ends instead)", error)
                told = str(error)
        time.sleep(RETRY_S)


def distrust_maps(state_dir: Path, state: VolumeState) -> None:
    """Writes may have gone untracked: the maps may lack blocks, and no later run may use them."""
    for record in state.secondaries:
        path = state_dir / record.map_name
        if path.exists():
            remove_file(path)


def distrusted(record: SecondaryRecord, reason: str) -> SecondaryRecord:
    """The record of a secondary whose map may lack writes. The first link that was missing is the one that is told.

    dm-era bounds the answer to ``UNTRACKED`` alone, whichever link it names.
    """
    if is_untracked(reason) and any(is_untracked(entry["reason"]) for entry in record.taints):
        return record
    return tainted(record, reason)


def all_distrusted(state: VolumeState, reason: str) -> VolumeState:
    """The state with this taint for each secondary that has ever been in sync; the others are copied anyway."""
    for record in state.secondaries:
        if record.phase is not SyncPhase.INITIAL:
            state = state.with_record(distrusted(record, reason))
    return state


def before_attaching(state_dir: Path, state: VolumeState, why: str) -> VolumeState:
    """To be done before programs of before, or marks of them, are taken away: the state as it is on the disk then.

    A run that is killed before it has begun to track must not look as if it had tracked, and what shows to this run that writes
    may be missing may show to nobody after it. ``why`` they may; empty when none can be. Raises StateError.
    """
    before, state = state, without_arming(replace(state, boot_id=""))
    if why:
        state = all_distrusted(state, why)
    if state != before:
        save_state(state_dir, state)
    if why:
        distrust_maps(state_dir, state)
    return state


@dataclass(frozen=True, slots=True)
class Found:
    """The findings of a start. ``tracked``: every write since a map was made is in it, or in the kernel's bitmaps;
    ``reopened``: the bitmaps are from before, and ``in_kernel``: they name blocks; ``snapshot_based``: only addresses
    are captured; ``discards``: what the device returns of discarded blocks; ``untracked``: why writes may be missing, where
    they are not tracked."""

    is_new: bool
    tracked: bool
    reopened: bool
    in_kernel: bool
    snapshot_based: bool
    discards: DiscardPromise = ALWAYS_ZEROS
    untracked: str = UNTRACKED


def begin_run(
    options: PrimaryOptions,
    device: BlockDevice,
    state: VolumeState,
    secures: dict[int, Secure | None],
    found: Found,
    recovery: EraRecovery,
) -> tuple[VolumeState, dict[int, Joining]]:
    """The metadata to write down, and the configuration of each brain."""
    maps = load_maps(options.state_dir, state)
    assumed = found.is_new and options.assume_in_sync
    tells_all = {slot: pending is not None and found.tracked for slot, pending in maps.items()}
    untold = [
        slot for slot, pending in maps.items() if not tells_all[slot] or found.in_kernel or (pending and pending.any())
    ]
    if assumed:
        _log.warning("--assume-in-sync: the secondary is trusted to hold exactly what %s holds now", state.source_path)
    since, bounded = {}, {}
    for record in state.secondaries:
        slot = record.slot
        bounded[slot] = tells_all[slot] and was_bounded(options.state_dir, record)
        if not tells_all[slot]:
            remove_file(options.state_dir / record.free_name)
        if not assumed and not tells_all[slot] and record.phase is not SyncPhase.INITIAL:
            record = distrusted(record, found.untracked)
            since[slot] = recovery.of(state, record)
            if since[slot] is None:
                _log.warning("%s: every block is compared", record.taints[-1]["reason"])
            state = state.with_record(record)
    state = begun(state, untold, assumed, device.disk_sequence())
    joiners = {
        record.slot: joining(
            options, state, record, secures[record.slot], pending=maps[record.slot], tells_all=tells_all[record.slot],
            assumed=assumed, quiet_held=found.reopened, snapshot_based=found.snapshot_based, since=since.get(record.slot),
            bounded=bounded[record.slot], completed_first=recovery.layer is not None,
            discards=found.discards,
        )
        for record in state.secondaries
    }  # fmt: skip
    return state, joiners


def load_maps(state_dir: Path, state: VolumeState) -> dict[int, DirtyMap | None]:
    """The blocks in each secondary's map file, by slot. StateError when one cannot be read."""
    return {record.slot: load_pending(state_dir, state, record) for record in state.secondaries}

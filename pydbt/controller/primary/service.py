"""``controller run``: the start, in an order that leaves nothing half-done, and then the loop."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from dataclasses import dataclass, replace

from pydbt.controller.control import ControlServer, is_answering
from pydbt.controller.options import DEFAULT_BLOCK_BYTES, PrimaryOptions
from pydbt.controller.primary.configuring import Joining, begun, joining, load_pending, secure_of, tainted
from pydbt.controller.primary.ending import run_to_the_end
from pydbt.controller.primary.era_recovery import UNTRACKED, EraRecovery, was_bounded
from pydbt.controller.primary.handshake import hello_of, shake_hands
from pydbt.controller.primary.holder import room_of
from pydbt.controller.primary.leftover import let_go, merge_into_maps, pin_dir_of
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.volume import Volume
from pydbt.controller.registry import claimed_space, forget
from pydbt.controller.roles import require_no_replica
from pydbt.controller.state_dir import make_state_dir
from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import BusyError, MachineError, StateError, UsageError
from pydbt.core.protocol.generations import lineage_of
from pydbt.device.block import DirectReader
from pydbt.device.checks import check_source
from pydbt.device.clean import is_untouched
from pydbt.device.holdable import look
from pydbt.device.snapshot import Room, require_room
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec
from pydbt.kernel.pins import OtherVersion
from pydbt.kernel.replace import finish_replacement, tracked_volume
from pydbt.kernel.replace import replace as replace_programs
from pydbt.network.address import check_plain_tcp, format_address, split_address
from pydbt.network.tls import Secure
from pydbt.posix.boot import boot_id
from pydbt.store.atomic import remove_file
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import VolumeState, create_state, load_state, require_same_source, save_state

_log = logging.getLogger("pydbt")


def run_primary(options: PrimaryOptions) -> int:
    """Replicate until told to stop. Returns an exit code; raises PydbtError with everything undone that was begun."""
    if options.identity is None:
        for host, _ in options.secondaries:
            check_plain_tcp(host, options.insecure)
    device = check_source(options.source, options.state_dir)
    if is_answering(options.state_dir):
        raise BusyError(f"the state directory {options.state_dir} is in use by another controller: name another one")
    require_no_replica(options.state_dir)
    with contextlib.ExitStack() as stack:
        state, is_new = _open_state(options, device)
        let_go(state, device)
        room = room_of(options, state)
        if options.capture == "addresses":
            _require_room(device, room, stack)
            look(device, room)
            _require_one(state, "--capture addresses")
        secures = _secures(options, state)
        reader = stack.enter_context(DirectReader(device))
        if is_new:
            _prove_secondaries(device, state, secures)
        _load_maps(options, state)  # before anything is attached: a map that cannot be read ends here
        tracked, untouched = _is_tracked(device, state), _untouched(device, state, reader)
        if not tracked and not untouched:
            _distrust_maps(options, state)
        if not tracked and state.boot_id:
            # A run that is killed before it has begun to track must not look as if it had tracked.
            state = replace(state, boot_id="")
            save_state(options.state_dir, state)
        capture, reopened = _open_capture(options, device, state, tracked)
        # Until the state says that this volume is tracked, a failure takes the programs away again.
        undo = stack.enter_context(contextlib.ExitStack())
        undo.callback(capture.close if tracked else capture.detach)
        snapshot_based = not _captures_payload(options, device, capture, room)
        if snapshot_based and options.capture != "addresses":
            _require_room(device, room, stack)
            _require_one(state, "a kernel on which the data of writes cannot be captured")
        make_state_dir(options.state_dir)
        capture.set_payload(False)
        if untouched and not tracked and not _untouched(device, state, reader):
            untouched = False  # written while the programs were compiled
            _distrust_maps(options, state)
        found = Found(is_new, tracked or untouched, reopened, reopened and any(capture.dirty_counts()), snapshot_based)
        written = EraRecovery(device, options.state_dir)
        state, joiners = _begin(options, device, state, secures, found, written)
        written.begin(state.secondaries)
        save_state(options.state_dir, state)
        undo.pop_all()
        _log.info(
            "volume %s: %s, %d bytes in blocks of %d", state.volume, device.path, state.size_bytes, state.block_bytes
        )
        volume = Volume(
            options, device, Metadata(options.state_dir, state), capture, reader,
            inherited=reopened, room=room, completed_first=written.layer is not None,
        )  # fmt: skip
        for slot, secondary in joiners.items():
            volume.join(slot, secondary)
        loop = PrimaryLoop(volume, written.layer, written.problem)
        try:
            return _serve(loop, options, stack)
        finally:
            if not volume.detached:
                capture.close()


def _require_room(device: BlockDevice, room: Room, stack: contextlib.ExitStack) -> None:
    """Claim the device for snapshots, if one was named, for as long as this runs."""
    require_room(device, room)
    if room.space is not None:
        stack.enter_context(claimed_space(room.space.device, device))


def _captures_payload(options: PrimaryOptions, device: BlockDevice, capture: Capture, room: Room) -> bool:
    """Whether each write is followed; otherwise epochs are made. MachineError when neither is possible."""
    if options.capture == "addresses" or capture.payload_available:
        return options.capture == "payload"
    try:
        look(device, room)
    except UsageError as error:
        raise MachineError(
            f"the data of writes cannot be captured on this kernel ({capture.payload_reason}), nor can epochs be made: {error}"
        ) from None
    _log.warning(
        "the data of writes cannot be captured on this kernel (%s): the replica follows in epochs instead, every %g s",
        capture.payload_reason,
        options.epoch_interval_s,
    )
    return False


def _require_one(state: VolumeState, why: str) -> None:
    """An epoch holds the volume still for one secondary; two secondaries would need it held at the same time."""
    if len(state.secondaries) > 1:
        known = ", ".join(record.address for record in state.secondaries)
        raise UsageError(
            f"with {why} a volume has one secondary, and this one has {len(state.secondaries)} ({known}): name one of them, "
            "and remove the others with 'controller secondaries SOURCE --remove' while they are replicated to"
        )


def _serve(loop: PrimaryLoop, options: PrimaryOptions, stack: contextlib.ExitStack) -> int:
    stack.enter_context(ControlServer(options.state_dir, loop.answer))
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, lambda *_: loop.stop())
    try:
        code = run_to_the_end(loop)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if loop.volume.detached:
        forget(loop.volume.device)
    else:
        _log.info(
            "stopped; writes are still tracked, and the next run continues from here ('controller down' ends that)"
        )
    return code


def _open_state(options: PrimaryOptions, device: BlockDevice) -> tuple[VolumeState, bool]:
    """The volume with the secondaries on record and those on the command line; and whether it is new."""
    state = load_state(options.state_dir)
    if state is None:
        if options.state_dir.exists() and not options.state_dir.is_dir():
            raise StateError(f"{options.state_dir} is not a directory: name a directory for the state")
        return _with_typed(create_state(device, options.block_bytes or DEFAULT_BLOCK_BYTES), options, is_new=True), True
    state = require_same_source(state, device, options.state_dir, options.block_bytes)
    return _with_typed(state, options, is_new=False), False


def _with_typed(state: VolumeState, options: PrimaryOptions, is_new: bool) -> VolumeState:
    """A secondary on record stays, also when the command line does not name it. A new address in its place: it has moved.

    But the address of a removed secondary does not replace another one: it is a new secondary again.
    """
    known = {split_address(record.address): record for record in state.secondaries}
    typed = [address for address in options.secondaries if address not in known]
    silent = [record for address, record in known.items() if address not in options.secondaries]
    if len(typed) == len(silent) == 1 and format_address(*typed[0]) not in state.removed:
        return state.with_record(replace(silent[0], address=format_address(*typed[0])))
    phase = SyncPhase.ASSUMED if is_new and options.assume_in_sync else SyncPhase.INITIAL
    for address in typed:
        record = SecondaryRecord(
            state.free_slot(), format_address(*address), phase, generations=lineage_of([state.generations])
        )
        if not is_new:
            for name in record.file_names:  # of one that was removed in the middle of it
                remove_file(options.state_dir / name)
            _log.info("%s is a new secondary of this volume", record.address)
        state = state.with_record(record)
    for record in silent:
        _log.info("%s is already a secondary of this volume, and stays one: "
                  "'controller secondaries SOURCE --remove %s' ends that", record.address, record.address)  # fmt: skip
    return state


def _secures(options: PrimaryOptions, state: VolumeState) -> dict[int, Secure | None]:
    given = dict(zip(options.secondaries, options.peers, strict=False))
    return {
        record.slot: secure_of(options, given.get(split_address(record.address)), record.pin_name)
        for record in state.secondaries
    }


def _prove_secondaries(device: BlockDevice, state: VolumeState, secures: dict[int, Secure | None]) -> None:
    """A first run must find its secondaries, before anything is attached or written; later ones wait for them."""
    hello = hello_of(state, device.logical_block_bytes, 0, state.generations)
    found: dict[str, str] = {}
    for record in state.secondaries:
        connection, welcome = shake_hands(*split_address(record.address), hello, secures[record.slot])
        connection.close()
        if (other := found.setdefault(welcome.replica, record.address)) != record.address:
            raise UsageError(f"{record.address} and {other} are one secondary: name every secondary once")


def _volume_spec(device: BlockDevice, block_bytes: int) -> VolumeSpec:
    return VolumeSpec(
        disk_major=device.disk_major,
        disk_minor=device.disk_minor,
        start_sector=device.start_sector,
        size_sectors=device.size_sectors,
        block_bytes=block_bytes,
        bio_based=device.bio_based,
    )


def _is_tracked(device: BlockDevice, state: VolumeState) -> bool:
    """Whether programs, of this version or another, have tracked every write since the last controller ended."""
    pins = pin_dir_of(state)
    finish_replacement(pins)
    try:
        volume = tracked_volume(pins)
    except StateError as error:
        _log.warning("%s", error)
        return False
    # A device that was away, and perhaps written elsewhere, may come back with its old number.
    same = state.boot_id == boot_id() and state.disk_sequence == device.disk_sequence()
    return same and volume == _volume_spec(device, state.block_bytes)


def _open_capture(
    options: PrimaryOptions, device: BlockDevice, state: VolumeState, tracked: bool
) -> tuple[Capture, bool]:
    """The programs, and whether they are those that ran before, with their bitmaps."""
    pins = pin_dir_of(state)
    volume = _volume_spec(device, state.block_bytes)
    wanted = CaptureOptions(options.record_ring_bytes, options.data_ring_bytes, payload=options.capture == "payload")
    if not tracked:
        Capture.remove_pins(pins)
        return Capture.attach(volume, wanted, pins), False
    try:
        capture = Capture.reopen(pins)
    except OtherVersion as error:
        _log.info("%s", error)
        capture = None
    if capture is not None and capture.options == wanted:
        _log.info("writes were tracked while no controller ran; their programs are taken over")
        capture.release_orphans()
        return capture, True
    if capture is not None:
        capture.close()
    _log.info("writes were tracked while no controller ran; new programs replace the old ones without a gap")
    return replace_programs(volume, wanted, pins, lambda words: merge_into_maps(options.state_dir, state, words)), False


def _distrust_maps(options: PrimaryOptions, state: VolumeState) -> None:
    """Writes may have gone untracked: the maps may lack blocks, and no later run may use them."""
    for record in state.secondaries:
        path = options.state_dir / record.map_name
        if path.exists():
            remove_file(path)


@dataclass(frozen=True, slots=True)
class Found:
    """The findings of a start. ``tracked``: every write since a map was made is in it, or in the kernel's bitmaps;
    ``reopened``: the bitmaps are from before, and ``in_kernel``: they name blocks; ``snapshot_based``: only addresses
    are captured."""

    is_new: bool
    tracked: bool
    reopened: bool
    in_kernel: bool
    snapshot_based: bool


def _begin(
    options: PrimaryOptions,
    device: BlockDevice,
    state: VolumeState,
    secures: dict[int, Secure | None],
    found: Found,
    written: EraRecovery,
) -> tuple[VolumeState, dict[int, Joining]]:
    """The metadata to write down, and the configuration of each brain."""
    maps = _load_maps(options, state)
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
        if not assumed and not tells_all[slot] and record.phase is not SyncPhase.INITIAL:
            since[slot] = written.of(state, record)
            if since[slot] is None:
                _log.warning("writes may have gone untracked since the last run: every block is compared")
            state = state.with_record(tainted(record, UNTRACKED))
    state = begun(state, untold, assumed, device.disk_sequence())
    joiners = {
        record.slot: joining(
            options, state, record, secures[record.slot], pending=maps[record.slot], tells_all=tells_all[record.slot],
            assumed=assumed, quiet_held=found.reopened, snapshot_based=found.snapshot_based, since=since.get(record.slot),
            bounded=bounded[record.slot], completed_first=written.layer is not None,
        )
        for record in state.secondaries
    }  # fmt: skip
    return state, joiners


def _untouched(device: BlockDevice, state: VolumeState, reader: DirectReader) -> bool:
    if not state.clean:
        return False
    return is_untouched(state.clean, device, reader)


def _load_maps(options: PrimaryOptions, state: VolumeState) -> dict[int, DirtyMap | None]:
    return {record.slot: load_pending(options.state_dir, state, record) for record in state.secondaries}

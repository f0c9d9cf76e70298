"""``controller run``: start-up in the order that leaves nothing half-done, and the one loop."""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import threading
from dataclasses import replace
from datetime import UTC, datetime

from pydbt.controller.control import ControlServer, is_answering
from pydbt.controller.epoch_shell import let_go
from pydbt.controller.handshake import hello_of, shake_hands
from pydbt.controller.leftover import merge_into_map, pin_dir_of, require_map_of
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary_loop import PrimaryLoop
from pydbt.controller.registry import forget
from pydbt.controller.roles import require_no_replica
from pydbt.controller.state_dir import make_state_dir
from pydbt.core.ancestry import first_generations
from pydbt.core.errors import BusyError, MachineError, StateError, UsageError
from pydbt.core.generations import generation_name
from pydbt.core.primary_config import PrimaryConfig
from pydbt.device.block import DirectReader
from pydbt.device.checks import check_source
from pydbt.device.clean import is_untouched
from pydbt.device.holdable import look
from pydbt.device.sysfs import BlockDevice, boot_id
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec
from pydbt.kernel.pins import OtherVersion
from pydbt.kernel.replace import finish_replacement, tracked_volume
from pydbt.kernel.replace import replace as replace_programs
from pydbt.network.address import check_plain_tcp
from pydbt.network.tls import Secure, load_identity
from pydbt.store.atomic import remove_file
from pydbt.store.map_file import MAP_FILE_NAME, load_map
from pydbt.store.peer_pin import PeerPin
from pydbt.store.volume_state import (
    SyncPhase,
    VolumeState,
    create_state,
    load_state,
    require_same_source,
    save_state,
)

# What one captured write of 4 KiB costs the log: its own slot and its part of a DONE record.
LOG_SLOT_BYTES = 64

# A replica that stands at a run before so many that all came to nothing is compared as a whole.
LATER_EPOCHS = 256
# What a power loss, another system that had the disk, and a controller that could not detach have in common.
UNTRACKED = "writes may have gone untracked while no program was there to see them"

_log = logging.getLogger("pydbt")


def run_primary(options: PrimaryOptions) -> int:
    """Replicate until told to stop. Returns an exit code; raises PydbtError with everything undone that was begun."""
    secure = None
    if options.identity is None:
        check_plain_tcp(options.secondary_host, options.insecure)
    else:
        secure = Secure(load_identity(options.identity), PeerPin(options.state_dir, options.peer))
    device = check_source(options.source, options.state_dir)
    if is_answering(options.state_dir):
        raise BusyError(f"the state directory {options.state_dir} is in use by another controller: name another one")
    require_no_replica(options.state_dir)
    with contextlib.ExitStack() as stack:
        state, is_new = _open_state(options, device)
        let_go(state)
        if options.capture == "addresses":
            look(device)
        reader = stack.enter_context(DirectReader(device))
        if is_new:
            _prove_secondary(options, device, state, secure)
        _load_pending(options, state)  # before anything is attached: a map that cannot be read ends here
        tracked, untouched = _is_tracked(device, state), _untouched(device, state, reader)
        if not tracked and not untouched:
            _distrust_map(options)
        if not tracked and state.boot_id:
            # A run that is killed before it says that it tracks must not look as if it had.
            state = replace(state, boot_id="")
            save_state(options.state_dir, state)
        capture, reopened = _open_capture(options, device, state, tracked)
        # Until the state says that this volume is tracked, a failure takes the programs away again.
        undo = stack.enter_context(contextlib.ExitStack())
        undo.callback(capture.close if tracked else capture.detach)
        by_epochs = not _captures_payload(options, device, capture)
        make_state_dir(options.state_dir)
        capture.set_payload(False)
        if untouched and not tracked and not _untouched(device, state, reader):
            untouched = False  # written while the programs were compiled
            _distrust_map(options)
        pending = _load_pending(options, state)
        tells_all = pending is not None and (tracked or untouched)
        nothing_written = tells_all and not pending.any() and not (reopened and any(capture.dirty_counts()))
        config = _configure(options, device, state, is_new, tells_all, nothing_written)
        config = replace(config, quiet_held=reopened, epoch_interval_s=options.epoch_interval_s if by_epochs else None)
        state = _begun(state, config, device)
        save_state(options.state_dir, state)
        undo.pop_all()
        _log.info("volume %s: %s, %d bytes in blocks of %d", state.volume, device.path, state.size_bytes, state.block_bytes)
        loop = PrimaryLoop(options, device, state, config, capture, reader, pending, secure)
        try:
            return _serve(loop, options, stack)
        finally:
            if not loop.detached:
                capture.close()


def _captures_payload(options: PrimaryOptions, device: BlockDevice, capture: Capture) -> bool:
    """Whether each write is followed; else epochs are made. MachineError when neither can be had."""
    if options.capture == "addresses" or capture.payload_available:
        return options.capture == "payload"
    try:
        look(device)
    except UsageError as error:
        raise MachineError(
            f"the data of writes cannot be captured on this kernel ({capture.payload_reason}), nor can epochs be made: {error}"
        ) from None
    _log.warning(
        "the data of writes cannot be captured on this kernel (%s): the replica follows in epochs instead, every %g s",
        capture.payload_reason, options.epoch_interval_s,
    )
    return False


def _serve(loop: PrimaryLoop, options: PrimaryOptions, stack: contextlib.ExitStack) -> int:
    stack.enter_context(ControlServer(options.state_dir, loop.answer))
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, lambda *_: loop.stop())
    try:
        code = loop.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if loop.detached:
        forget(loop.device)
    else:
        _log.info("stopped; writes are still tracked, and the next run goes on from here ('controller down' ends that)")
    return code


def _open_state(options: PrimaryOptions, device: BlockDevice) -> tuple[VolumeState, bool]:
    state = load_state(options.state_dir)
    secondary = f"{options.secondary_host}:{options.secondary_port}"
    if state is None:
        if options.state_dir.exists() and not options.state_dir.is_dir():
            raise StateError(f"{options.state_dir} is not a directory: name a directory for the state")
        phase = SyncPhase.ASSUMED if options.assume_in_sync else SyncPhase.INITIAL
        return create_state(device, options.block_bytes or 4096, secondary, phase), True
    state = require_same_source(state, device, options.state_dir, options.block_bytes)
    return replace(state, secondary=secondary), False


def _prove_secondary(options: PrimaryOptions, device: BlockDevice, state: VolumeState, secure: Secure | None) -> None:
    """A first run must find its secondary, before anything is attached or written; later ones wait for it."""
    hello = hello_of(state, device.logical_block_bytes, epoch=0)
    connection, _ = shake_hands(options.secondary_host, options.secondary_port, hello, secure)
    connection.close()


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
        _log.info("tracking went on while no controller ran; it is taken over")
        capture.release_orphans()
        return capture, True
    if capture is not None:
        capture.close()
    _log.info("tracking went on while no controller ran; other programs take over from those that did it")
    return replace_programs(volume, wanted, pins, lambda words: merge_into_map(options.state_dir, state, words)), False


def _distrust_map(options: PrimaryOptions) -> None:
    """Something may have written untracked: the map tells too little, also to a later run that this one never helped."""
    path = options.state_dir / MAP_FILE_NAME
    if path.exists():
        remove_file(path)


def _configure(
    options: PrimaryOptions, device: BlockDevice, state: VolumeState, is_new: bool, tells_all: bool, nothing_written: bool
) -> PrimaryConfig:
    """``tells_all``: every write since the map was made is in it, or in the bitmaps; ``nothing_written``: there is none."""
    initial = state.phase is SyncPhase.INITIAL
    assumed = is_new and options.assume_in_sync
    scan = not assumed and not tells_all
    epoch, seed = secrets.randbits(63) | 1, secrets.randbits(64)
    taints = [entry["reason"] for entry in state.taints]
    if assumed:
        _log.warning("--assume-in-sync: the secondary is trusted to hold exactly what %s holds now", device.path)
    elif scan and not initial:
        _log.warning("writes may have gone untracked since the last run: every block is compared")
        taints.append(UNTRACKED)
    generations = state.generations if state.generations.current else first_generations(seed)
    return PrimaryConfig(
        geometry=state.geometry,
        epoch=epoch,
        log_slots=max(64, options.log_bytes // LOG_SLOT_BYTES),
        data_room_bytes=options.data_ring_bytes,
        rate_limit_bytes=options.rate_limit_bytes_per_s,
        digests=options.compare_first,
        acknowledge_timeout_s=options.acknowledge_timeout_s,
        hold_limit_s=options.freeze_limit_s,
        initial=initial or assumed,
        scan_used=scan,
        scan_whole=options.whole_device or not initial,
        assumed_in_sync=assumed,
        replica=state.replica,
        replica_epoch=state.epoch,
        replica_sequence=state.sequence,
        later_epochs=tuple([*state.later_epochs, epoch][-LATER_EPOCHS:]),
        taints=tuple(dict.fromkeys(taints)),
        generations=generations if nothing_written else generations.written_alone(generation_name(seed, 0)),
        generation_seed=seed,
    )


def _begun(state: VolumeState, config: PrimaryConfig, device: BlockDevice) -> VolumeState:
    """What is written down when a run begins: from here on every write is tracked."""
    known = {entry["reason"]: entry for entry in state.taints}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(
        state,
        clean=None,
        boot_id=boot_id(),
        disk_sequence=device.disk_sequence(),
        taints=[known.get(reason) or {"reason": reason, "since": now} for reason in config.taints],
        compared_whole=state.compared_whole or config.assumed_in_sync,
        later_epochs=list(config.later_epochs),
        generations=config.generations,
    )


def _untouched(device: BlockDevice, state: VolumeState, reader: DirectReader) -> bool:
    return bool(state.clean) and is_untouched(state.clean, device, reader)


def _load_pending(options: PrimaryOptions, state: VolumeState):
    loaded = load_map(options.state_dir / MAP_FILE_NAME)
    if loaded is None:
        return None
    header, pending = loaded
    require_map_of(state, header, options.state_dir / MAP_FILE_NAME)
    return pending

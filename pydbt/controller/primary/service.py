"""``controller run``: the start, in an order that leaves nothing half-done, and then the loop."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading

from pydbt.controller.control import ControlServer, is_answering
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary.armed import as_tracked, without_arming
from pydbt.controller.primary.below_watch import BelowWatch
from pydbt.controller.primary.ending import run_to_the_end
from pydbt.controller.primary.era_recovery import EraRecovery
from pydbt.controller.primary.former_address import answering_the_old_primary
from pydbt.controller.primary.holder import room_of
from pydbt.controller.primary.leftover import let_go
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.opening import (
    Found,
    before_attaching,
    begin_run,
    distrust_maps,
    load_maps,
    open_state,
    prove_secondaries,
    secures_of,
)
from pydbt.controller.primary.programs import chain_of, open_capture, unarmed_of
from pydbt.controller.primary.recalled import recall_in_sync
from pydbt.controller.primary.rest import Rest
from pydbt.controller.primary.transaction_watch import followed_transactions
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.ways import Ways
from pydbt.controller.primary.writer_watch import WriterWatch
from pydbt.controller.public_status import public_status
from pydbt.controller.registry import claimed_space, forget
from pydbt.controller.roles import require_no_replica
from pydbt.controller.state_dir import make_state_dir
from pydbt.core.errors import BusyError, MachineError, UsageError
from pydbt.core.units import exact_bytes, format_bytes
from pydbt.device.block import DirectReader
from pydbt.device.checks import check_source, had_before
from pydbt.device.clean import is_untouched
from pydbt.device.discards import discard_promise
from pydbt.device.holdable import look
from pydbt.device.loops import short_writes_of
from pydbt.device.snapshot import Room, require_room
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture
from pydbt.network.address import check_plain_tcp
from pydbt.posix.atomic import remove_unfinished
from pydbt.posix.ownership import remove_folders
from pydbt.posix.privileges import PRIMARY_KEEPS, keep_only
from pydbt.store.volume_state import VOLUME_FILE_NAME, VolumeState, save_state

_log = logging.getLogger("pydbt")


def run_primary(options: PrimaryOptions) -> int | SecondaryOptions:
    """Replicate until told to stop. Returns an exit code, or, after a change of places, the options of the secondary that this
    process is to be. Raises PydbtError with everything undone that was begun."""
    if options.identity is None:
        for host, _ in options.secondaries:
            check_plain_tcp(host, options.insecure)
    with had_before(options.state_dir / VOLUME_FILE_NAME):
        device = check_source(options.source, options.state_dir)
    if is_answering(options.state_dir):
        raise BusyError(f"the state directory {options.state_dir} is in use by another controller: name another one")
    require_no_replica(options.state_dir)
    with contextlib.ExitStack() as stack:
        remove_unfinished(options.state_dir)
        state, is_new = open_state(options, device)
        let_go(state, device)
        room = room_of(options, state)
        if options.capture == "addresses":
            _require_room(device, room, stack)
            look(device, room)
            _require_one(state, "--capture addresses")
        secures = secures_of(options, state)
        reader = stack.enter_context(DirectReader(device))
        if is_new:
            prove_secondaries(device, state, secures, wait=options.wait_for_secondary)
        load_maps(options.state_dir, state)  # before anything is attached: a map that cannot be read ends here
        below = BelowWatch(device, state)
        tracked, untouched, link = chain_of(device, state, reader, lambda: unarmed_of(options, state, device))
        if not tracked:
            why = "" if untouched or is_new else below.untracked(link)
            state = before_attaching(options.state_dir, state, why)
        capture, reopened = open_capture(options, device, state, tracked)
        state = as_tracked(state) if tracked else without_arming(state)
        # Until the state says that this volume is tracked, a failure takes the programs away again.
        undo = stack.enter_context(contextlib.ExitStack())
        undo.callback(capture.close if tracked else capture.detach)
        snapshot_based = not _captures_payload(options, device, capture, room)
        if snapshot_based and options.capture != "addresses":
            _require_room(device, room, stack)
            _require_one(state, "a kernel on which the data of writes cannot be captured")
        undo.callback(remove_folders, make_state_dir(options.state_dir))
        capture.set_payload(False)
        if untouched and not tracked and not is_untouched(state.clean, device, reader):
            untouched, link = False, "the device was written while the programs were compiled"
            distrust_maps(options.state_dir, state)
        in_kernel = reopened and any(capture.dirty_counts())
        promise = discard_promise(device)
        found = Found(is_new, tracked or untouched, reopened, in_kernel, snapshot_based, promise, below.untracked(link))
        recovery = EraRecovery(device, options.state_dir)
        state, joiners = begin_run(options, device, state, secures, found, recovery)
        recovery.begin(state.secondaries)
        save_state(options.state_dir, state)
        undo.pop_all()
        keep_only(PRIMARY_KEEPS, runs_programs=True)
        _introduce(state, device)
        volume = Volume(
            options, device, Metadata(options.state_dir, state), capture, reader,
            inherited=reopened, room=room, completed_first=recovery.layer is not None,
        )  # fmt: skip
        volume.transactions = followed_transactions(reader, state.size_bytes, with_data=not snapshot_based)
        for slot, secondary in joiners.items():
            volume.join(slot, secondary)
        loop = PrimaryLoop(volume, recovery.layer, recovery.problem, below)
        try:
            return _serve(loop, options, stack)
        finally:
            if not volume.detached:
                capture.close()


def _introduce(state: VolumeState, device: BlockDevice) -> None:
    sizes = format_bytes(state.size_bytes), exact_bytes(state.block_bytes)
    _log.info("volume %s: %s, %s in blocks of %s", state.volume, device.path, *sizes)


def _require_room(device: BlockDevice, room: Room, stack: contextlib.ExitStack) -> None:
    """Claim the device for snapshots, if one was named, for as long as this runs."""
    require_room(device, room)
    if room.space is not None:
        stack.enter_context(claimed_space(room.space.device, device))


def _captures_payload(options: PrimaryOptions, device: BlockDevice, capture: Capture, room: Room) -> bool:
    """Whether each write is followed; otherwise images are made. MachineError when neither is possible."""
    if options.capture == "addresses" or capture.payload_available:
        return options.capture == "payload"
    try:
        look(device, room)
    except UsageError as error:
        raise MachineError(
            f"the data of writes cannot be captured on this kernel ({capture.payload_reason}), nor can images be made: {error}"
        ) from None
    _log.warning(
        "the data of writes cannot be captured on this kernel (%s): the replica follows by images instead, one every %g s",
        capture.payload_reason,
        options.snapshot_interval_s,
    )
    return False


def _require_one(state: VolumeState, why: str) -> None:
    """An image holds the volume still for one secondary; two secondaries would need it held at the same time."""
    if len(state.secondaries) > 1:
        known = ", ".join(record.address for record in state.secondaries)
        raise UsageError(
            f"with {why} a volume has one secondary, and this one has {len(state.secondaries)} ({known}): name one of them, "
            "and remove the others with 'controller secondaries SOURCE --remove' while they are replicated to"
        )


def _serve(loop: PrimaryLoop, options: PrimaryOptions, stack: contextlib.ExitStack) -> int | SecondaryOptions:
    recall_in_sync(loop.volume)
    loop.volume.note_loops(short_writes_of(loop.volume.device, loop.volume.capture.shows_short_writes))
    stack.callback(loop.io.close)
    loop.writers = WriterWatch(loop.volume)
    stack.callback(loop.writers.close)
    stack.enter_context(ControlServer(options.state_dir, loop.answer))
    stack.enter_context(public_status(options.state_dir, loop.answer))
    loop.volume.former_address = stack.enter_context(answering_the_old_primary(options))
    loop.event_log.keep_history()
    loop.ways = Ways(loop.volume)
    stack.callback(loop.ways.close)
    loop.rest = Rest(loop.volume.capture.bell)
    stack.callback(loop.rest.close)
    loop.volume.inbox.ring, loop.volume.sleeps = loop.rest.ring, True
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, lambda *_: loop.stop())
        if options.identity is not None:  # on a terminal too (tmux, screen); without one it ends nothing
            previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: loop.reload())
    try:
        options.manager.ready(
            f"every write to {loop.volume.device.path} is tracked; 'controller status' tells how it stands"
        )
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

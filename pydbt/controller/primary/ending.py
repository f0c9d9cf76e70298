"""How a primary's loop ends: goodbye, the maps, and the programs, which stay unless they are taken down."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pydbt.core.errors import DeviceError, PydbtError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from pydbt.device.clean import clean_marker
from pydbt.device.sysfs import boot_id
from pydbt.store.map_file import map_digest

if TYPE_CHECKING:
    from pydbt.controller.primary.loop import PrimaryLoop

# When it goes down it waits so long for the secondaries that follow, and then for a moment in which all that was written
# is on them.
DRAIN_SECONDS = 10.0
RETIRE_SECONDS = 1.0
_POLL_S = 0.001
# The wait of the loop itself; commands' are numbered from 1.
LAST_EPOCH_TOKEN = 0

_log = logging.getLogger("pydbt")


def finish(loop: PrimaryLoop) -> None:
    """Stop cleanly: say goodbye, write the maps, and detach if taken down."""
    down = loop.commands.down
    loop.commands.fail_waits(PydbtError("the controller was stopped before every write was durable on the secondary"))
    gone = isinstance(loop.fatal, DeviceError)
    in_sync = drain_streams(loop) if down is not None and not gone else False
    loop.take(ev.PauseAsked("stopped"))
    for peer in loop.peers.values():
        peer.close()
    loop.intent.close()
    loop.snapshot()
    try:
        if down is not None or gone:
            _detach(loop, gone)
        else:
            _write_maps(loop)
    except StateError as error:
        if down is None:
            _log.error("%s", error)
        else:
            down.fail(error)
    if down is not None:
        down.answer({"detached": loop.detached, "in_sync": in_sync})
    for request in loop.left_in_inbox():
        request.fail(PydbtError("the controller was stopped"))


def drain_streams(loop: PrimaryLoop, seconds: float = DRAIN_SECONDS) -> bool:
    """Before going down, let what is captured reach the secondaries that follow. True when it reached all there are.

    Then the bits of what has reached them are taken back, if the writers leave a moment for that: the maps that stay
    name nothing, and say so to whoever asks later whether a secondary has all of this volume.
    """
    if any(brain.epochs.on for brain in loop.brains):
        return _last_epoch(loop, seconds)
    until, retire_until = time.monotonic() + seconds, 0.0
    target = loop.capture.producer_position()
    reached = False
    while time.monotonic() < until and (following := [b for b in loop.brains if b.mode is Mode.NORMAL]):
        loop.drain()
        loop.take_inbox(_POLL_S)
        loop.note_outbound()
        loop.process()
        there = [b.position >= target and b.acknowledged >= b.sequence and not len(b.settler) for b in following]
        if all(there):
            now = time.monotonic()
            reached = len(following) == len(loop.brains)
            retire_until = retire_until or now + RETIRE_SECONDS
            if now > retire_until or not any(loop.capture.dirty_counts()):
                break
            following[0].next_retire = now
    return reached


def _last_epoch(loop: PrimaryLoop, seconds: float) -> bool:
    """Before going down with addresses only: an epoch of now, and another one of what a freeze itself writes at its end."""
    (brain,) = loop.brains
    until, epochs = time.monotonic() + seconds, brain.epochs
    loop.events.append((None, ev.WaitAsked(LAST_EPOCH_TOKEN, loop.capture.producer_position())))
    while (now := time.monotonic()) < until and brain.mode is Mode.EPOCHS:
        loop.drain()
        loop.take_inbox(_POLL_S)
        loop.look_for_idle_disk()
        loop.note_outbound()
        loop.process()
        if not epochs.waits and not any(loop.capture.dirty_counts()) and epochs.in_sync_at(now) == now:
            return True
        if not epochs.waits:
            epochs.add(LAST_EPOCH_TOKEN, 0)
    return False


def _detach(loop: PrimaryLoop, gone: bool) -> None:
    """Write down everything the kernel's bitmaps hold, then take the programs away. StateError: they stay.

    The device's own counters are read first: a write after that moment changes them, and one before it is
    in the bitmaps. So the next start knows whether the maps still tell everything.
    """
    loop.look(time.monotonic())
    loop.process()
    # A secondary without a map has never been looked at, and will be as a whole: it takes nothing from what the others' tell.
    trusted = not gone and all((brain.scanned or not brain.mapped) and not brain.taints for brain in loop.brains)
    marker = clean_marker(loop.device, loop.reader) if trusted else None
    # Nothing is zeroed: if a map cannot be written the programs stay, and the next controller reads these bits.
    for flip in (False, True):
        if flip:
            loop.capture.flip()
        for brain in loop.brains:
            brain.tracker.pending.merge_words(loop.capture.quiet_words())
    _write_maps(loop)
    if marker is not None:
        names = [peer.record.map_name for peer in loop.peers.values()]
        marker["maps"] = {name: map_digest(loop.options.state_dir / name) for name in names}
    loop.capture.detach()
    loop.detached = True
    loop.kept.change(clean=marker, boot_id=boot_id())
    loop.kept.save()


def _write_maps(loop: PrimaryLoop) -> None:
    for peer in loop.peers.values():
        peer.write_map()

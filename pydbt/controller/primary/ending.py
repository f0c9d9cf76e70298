"""How a run of the primary ends: farewells, the maps, and the programs, which stay unless they are taken down."""

from __future__ import annotations

import time
from typing import Any

from pydbt.controller.options import SecondaryOptions
from pydbt.controller.primary.below_watch import without_look
from pydbt.controller.primary.loop import SHORTEST_POLL_S, PrimaryLoop
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.waits import LAST_SNAPSHOT_TOKEN
from pydbt.core.errors import DeviceError, PydbtError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.handover import Step
from pydbt.core.primary.modes import Mode
from pydbt.core.seen.event_names import DEMOTED
from pydbt.device.clean import clean_marker
from pydbt.posix.boot import boot_id
from pydbt.store.map_file import map_digest

# When it goes down it waits this long for the secondaries that follow, and then for a moment in which everything that
# was written is on them.
DRAIN_S = 10.0
RETIRE_S = 1.0


def run_to_the_end(loop: PrimaryLoop) -> int | SecondaryOptions:
    """Run the loop, and end it cleanly whatever happens; an exit code. Raises the error that ended it.

    Options: this side has become the replica of its secondary, and this process is to serve it.
    """
    options: SecondaryOptions | None = None
    try:
        loop.run()
        while (change := loop.commands.handing_over) is not None and change.ready and not loop.asked_to_end:
            loop.turn(SHORTEST_POLL_S)  # where nobody follows the drain ends at once, and time must pass here
            change.drained(drain_streams(loop), time.monotonic())
            if change.steps.step is Step.ENDING:
                loop.commands.down = change.request
                break
            loop.run()
    finally:
        options = finish(loop)
    if loop.fatal is not None:
        raise loop.fatal
    return options or 0


def finish(loop: PrimaryLoop) -> SecondaryOptions | None:
    """Stop cleanly: say goodbye, write the maps, and detach if taken down. And change places, if that was asked for."""
    options: SecondaryOptions | None = None
    change = loop.commands.handing_over
    if change is None:
        loop.volume.options.manager.stopping()
    elif change.steps.step in (Step.ASKING, Step.DRAINING):
        change.take_back()  # before the connection ends
    answer: dict[str, Any] = {}
    volume, down = loop.volume, loop.commands.down
    volume.waits.fail(PydbtError("the controller was stopped before every write was durable on the secondary"))
    gone = isinstance(loop.fatal, DeviceError)
    in_sync = drain_streams(loop) if down is not None and not gone else False
    loop.standings.tell(time.monotonic())
    loop.divergences.note(time.monotonic(), final=True)
    loop.feed.take(ev.PauseAsked("the controller ends", Mode.STOPPED))
    for peer in volume.peers.values():
        peer.close()
    loop.look_below(final=True)
    loop.checkpoints.close()
    loop.save_status(loop.report())
    try:
        if down is not None or gone:
            volume.audit(time.monotonic())
            loop.feed.process()
            _detach(volume, gone)
            if not gone:
                options, answer = _change_places(loop)
        else:
            _keep_everything(volume)
    except StateError as error:
        if down is not None:
            down.fail(error)
        loop.fatal = loop.fatal or _unsaved(error)
    except PydbtError as error:  # a change of places that could not be
        if down is not None:
            down.fail(error)
    volume.map_writer.close()
    if down is not None:
        down.answer({"detached": volume.detached, "in_sync": in_sync, **answer})
    for request in volume.inbox.left():
        request.fail(PydbtError("the controller was stopped"))
    if change is not None and change.steps.may_be_given_up:
        change.give_up(PydbtError("the controller was stopped before it changed places, and is still the primary"))
    _tell_the_end(loop, options)
    return options


def _tell_the_end(loop: PrimaryLoop, options: SecondaryOptions | None) -> None:
    """The last events. Hooks are waited for a moment; whoever asked for the end has been answered."""
    if options is not None:
        loop.event_log.say(DEMOTED, f"{loop.volume.device.path} is a replica from here on")
    tracked = "writes are not tracked any more" if loop.volume.detached else "writes are still tracked"
    loop.event_log.end(f"stopped; {tracked}" if loop.fatal is None else f"stopped; {tracked}: {loop.fatal}")


def _change_places(loop: PrimaryLoop) -> tuple[SecondaryOptions | None, dict[str, Any]]:
    """Become the replica of the secondary, if that is wanted. PydbtError, and this is still a primary, when it cannot be."""
    volume, change = loop.volume, loop.commands.handing_over
    if change is None or change.steps.step is not Step.ENDING:
        return None, {}
    (peer,) = volume.peers.values()
    if volume.metadata.state.clean is None or peer.brain.out_of_sync_map().any():
        raise PydbtError(
            f"{volume.device.path} was written at the last moment: it is still the primary, and was taken down"
        )
    try:
        return change.complete(peer.connection.hello())
    except StateError as error:
        raise PydbtError(f"the places were not changed: {error}") from None


def _keep_everything(volume: Volume) -> None:
    """The maps and the state to disk, for the next run. StateError when that cannot be."""
    volume.write_maps()
    volume.note()
    volume.metadata.save_now()


def _unsaved(error: StateError) -> StateError:
    """The end of a run whose last state is not on disk. The programs keep their bits until a map that has them is written."""
    return StateError(
        f"{error}; the last state is not saved, and writes are still tracked: make room or repair that disk before the next run, "
        "which begins with the state that was saved last"
    )


def drain_streams(loop: PrimaryLoop, seconds: float = DRAIN_S) -> bool:
    """Before going down, let captured writes reach the secondaries that follow. True when they reached all there are.

    Then the bits of these writes are cleared, if the writers leave a moment for that. So the maps that stay name nothing,
    and a later run finds that a secondary has all of this volume.
    """
    volume = loop.volume
    if any(brain.snapshot_based for brain in volume.brains):
        return _last_snapshot(loop, seconds)
    until, retire_until = time.monotonic() + seconds, 0.0
    target = volume.capture.producer_position()
    reached = False
    while time.monotonic() < until and (following := [b for b in volume.brains if b.mode is Mode.NORMAL]):
        loop.turn(SHORTEST_POLL_S, deadlines=False)
        # A secondary may have been removed in this turn.
        following = [brain for brain in volume.brains if brain in following]
        if following and all(_has_all(brain, target) for brain in following):
            now = time.monotonic()
            reached = len(following) == len(volume.brains)
            retire_until = retire_until or now + RETIRE_S
            if now > retire_until or not any(volume.capture.dirty_counts()):
                break
            # Nothing else may come that a brain hears: its secondary has said everything that there is to say.
            there = [number for number, peer in volume.peers.items() if peer.brain in following]
            volume.events.append((there[0], ev.EveryBitAsked()))
            volume.events.extend((number, ev.Tick()) for number in there[1:])
    return reached


def _last_snapshot(loop: PrimaryLoop, seconds: float) -> bool:
    """Before going down with addresses only: a snapshot of now, and another one, since a freeze itself writes at its end."""
    volume = loop.volume
    (brain,) = volume.brains
    until = time.monotonic() + seconds
    volume.events.append((None, ev.WaitAsked(LAST_SNAPSHOT_TOKEN, volume.capture.producer_position())))
    while (now := time.monotonic()) < until and brain.mode is Mode.SNAPSHOTS:
        loop.turn(SHORTEST_POLL_S, deadlines=False)
        snapshots = brain.status(now).snapshots
        if snapshots is None or snapshots.waits:
            continue
        if snapshots.in_sync_at == now and not any(volume.capture.dirty_counts()):
            return True
        volume.events.append((None, ev.WaitAsked(LAST_SNAPSHOT_TOKEN, 0)))
    return False


def _has_all(brain: Primary, position: int) -> bool:
    """Whether everything before a ring position is durable on the secondary."""
    state = brain.state
    return state.position >= position and state.acknowledged >= state.sequence and not len(state.unsettled)


def _detach(volume: Volume, gone: bool) -> None:
    """Write down everything the kernel's bitmaps hold, then take the programs away. StateError: they stay.

    The device's own counters are read first: a write after that moment changes them, and one before it is
    in the bitmaps. So the next start knows whether the maps still tell everything.
    """
    marker = clean_marker(volume.device, volume.reader) if not gone and volume.fanout.tells_everything else None
    # Nothing is zeroed: if a map cannot be written the programs stay, and the next controller reads these bits.
    for flip in (False, True):
        if flip:
            volume.capture.flip()
        volume.fanout.take_last_bits(volume.capture.quiet_words())
    volume.write_maps()
    if marker is not None:
        names = [peer.record.map_name for peer in volume.peers.values()]
        marker["maps"] = {name: map_digest(volume.metadata.state_dir / name) for name in names}
    volume.metadata.change(clean=marker, boot_id=boot_id(), more=without_look(volume.metadata.state.more))
    volume.metadata.save_now()  # first: while it is not on the disk the programs go on
    volume.capture.detach()
    volume.detached = True

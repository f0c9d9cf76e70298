"""Holds the source still for snapshot-based replication, in a thread of its own: a freeze or a snapshot takes its time."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import assert_never

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.block_reader import BlockReader
from pydbt.controller.primary.leftover import hold_file_of
from pydbt.core.errors import DeviceError, PydbtError
from pydbt.core.primary import events as ev
from pydbt.device.block import DirectReader
from pydbt.device.commands import COMMAND_S
from pydbt.device.freeze import CannotFreeze, FileSystemFreezer, sync_file_system
from pydbt.device.holdable import look
from pydbt.device.mapped import SnapshotSpace
from pydbt.device.snapshot import Room, Snapshotable, problem_of
from pydbt.device.sysfs import BlockDevice
from pydbt.store.volume_state import VolumeState

_log = logging.getLogger("pydbt")

# As long as one command may take: its step must not go on alone.
_LEAVE_S = COMMAND_S + 10.0


def room_of(options: PrimaryOptions, state: VolumeState) -> Room:
    """The place for snapshots of a volume. UsageError when it is no device."""
    space = options.snapshot_space
    tag = state.uuid.hex
    return Room(tag, space=SnapshotSpace.of(space)) if isinstance(space, str) else Room(tag, space)


HolderRequest = ev.Flush | ev.Hold | ev.Release


class Holder:
    """``post`` hands an event to the loop from any thread; ``position`` is the ring's end now.

    Nothing is logged between a freeze and its thaw: the log might wait for a file system that is frozen.
    """

    def __init__(
        self,
        device: BlockDevice,
        state: VolumeState,
        room: Room,
        blocks: BlockReader,
        position: Callable[[], int],
        post: Callable[[ev.Event], None],
    ) -> None:
        self._device, self._room, self._blocks, self._position, self._post = device, room, blocks, position, post
        self._volume: Snapshotable | None = None  # whose snapshot stands
        self._no_snapshot = ""  # why there was none the last time
        self._freezer = FileSystemFreezer(hold_file_of(state))
        self._held = ""  # the kind of the hold that stands
        self._taken_ms = 0.0  # how long the snapshot that stands took
        self._unfreezable: set[str] = set()
        self._requests: queue.SimpleQueue[HolderRequest | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, effect: HolderRequest) -> None:
        """Begin; the answer is posted."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no memory for a thread, or too many of them
                self._post(_failure(effect, str(error)))
                return
            self._thread = thread
        self._requests.put(effect)

    def close(self) -> None:
        """Let go of everything."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join(_LEAVE_S)
        if self._volume is not None:
            try:
                self._drop_snapshot(self._volume)
            except DeviceError as error:
                _log.warning("the snapshot that stands could not be removed; 'controller down' tries again: %s", error)
        self._freezer.close()

    # --- in the thread ------------------------------------------------------------------------------------
    def _run(self) -> None:
        while (effect := self._requests.get()) is not None:
            try:
                self._post(self._answer(effect))
            except Exception as error:  # also a fault of ours: a hold without an answer would never end
                if not isinstance(error, PydbtError):
                    _log.exception("holding the source failed")
                self._post(_failure(effect, str(error) or repr(error)))  # an empty error would be no failure

    def _answer(self, effect: HolderRequest) -> ev.Event:
        match effect:
            case ev.Flush():
                return self._flush()
            case ev.Hold():
                return self._hold(effect)
            case ev.Release(hold=hold):
                return self._release(hold)
            case _ as never:
                assert_never(never)

    def _flush(self) -> ev.Flushed:
        holdable = look(self._device, self._room)
        for mount in holdable.mounts:
            sync_file_system(mount)
        if holdable.mounts:
            self._freezer.start()
        apart = holdable.apart and not self._no_snapshot
        return ev.Flushed(holdable.kind if apart or not holdable.apart else "freeze", apart)

    def _hold(self, effect: ev.Hold) -> ev.Held:
        holdable = look(self._device, self._room)
        if holdable.volume and not effect.gently and (held := self._take_snapshot(effect, holdable.volume)):
            return held
        mounts = [] if effect.gently else [mount for mount in holdable.mounts if mount.fs_type not in self._unfreezable]
        if holdable.never_frozen and not effect.gently:
            raise DeviceError(f"{self._no_snapshot}; and {holdable.never_frozen}")
        if mounts:
            for mount in mounts:
                sync_file_system(mount)  # writers wait while the freeze itself has something to write
            try:
                self._freezer.freeze(mounts, effect.limit_s)
            except CannotFreeze as error:
                self._unfreezable |= {mount.fs_type for mount in mounts}
                _log.warning("%s: an image waits for a moment without writes", error)
                mounts = []
        self._held = "freeze" if mounts else "quiescent"
        return ev.Held(effect.hold, self._held, self._position())

    def _take_snapshot(self, effect: ev.Hold, volume: Snapshotable) -> ev.Held | None:
        """None when none can be taken: the source is frozen instead, and the reason is logged once."""
        began = time.monotonic()
        try:
            reader = DirectReader(volume.take())
        except DeviceError as error:
            with contextlib.suppress(DeviceError):
                volume.remove_leftover()
            if str(error) != self._no_snapshot:
                self._no_snapshot = str(error)
                _log.warning(
                    "no snapshot of %s can be taken: %s; it is held still in another way", self._device.path, error
                )
            return None
        self._taken_ms, self._no_snapshot = (time.monotonic() - began) * 1000, ""
        self._volume, self._held = volume, volume.kind
        self._blocks.hold(reader)
        return ev.Held(effect.hold, self._held, self._position(), apart=True)

    def _drop_snapshot(self, volume: Snapshotable) -> str:
        """Remove it; the reason why its content is not to be trusted, if there is one. It is checked after every read."""
        self._volume = None
        self._blocks.let_go()
        problem = ""
        try:
            problem = problem_of(volume)
        finally:
            volume.remove_leftover()
        return problem

    def _release(self, hold: int) -> ev.Released:
        held, self._held = self._held, ""
        if self._volume is not None:
            return ev.Released(hold, self._taken_ms, self._drop_snapshot(self._volume))
        if held != "freeze":
            return ev.Released(hold, 0.0)
        # Whether it had ended early is no matter: the brain has seen that nothing was written by the last read.
        held_ms, _ = self._freezer.thaw()
        return ev.Released(hold, held_ms)


def _failure(effect: HolderRequest, error: str) -> ev.Event:
    match effect:
        case ev.Flush():
            return ev.Flushed("", error=error)
        case ev.Hold(hold=hold):
            return ev.Held(hold, "", 0, error=error)
        case ev.Release(hold=hold):
            return ev.Released(hold, 0.0, error)
        case _ as never:
            assert_never(never)

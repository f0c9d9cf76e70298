"""Holds the source still for the brain's epochs, in a thread of its own, since a freeze or a snapshot takes its time."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from pydbt.controller.registry import RUN_DIR
from pydbt.core import primary_events as ev
from pydbt.core.errors import PydbtError
from pydbt.device.freeze import CannotFreeze, FileSystemFreezer, sync_file_system, thaw_leftover
from pydbt.device.holdable import look
from pydbt.device.sysfs import BlockDevice
from pydbt.store.volume_state import VolumeState

_log = logging.getLogger("pydbt")


def let_go(state: VolumeState) -> None:
    """What a run of this volume left frozen that was killed together with its helper."""
    if thaw_leftover(marker_of(state)):
        _log.warning("a run that was killed had left file systems frozen; they are thawed")


def marker_of(state: VolumeState) -> Path:
    """The file that is there while file systems of this volume are frozen."""
    return RUN_DIR / f"held-{state.uuid.hex}"


class EpochShell:
    """``post`` hands an event to the loop from any thread; ``position`` is the ring's end now.

    Nothing is logged between a freeze and its thaw, lest the log wait for what is frozen.
    """

    def __init__(
        self, device: BlockDevice, state: VolumeState, position: Callable[[], int], post: Callable[[object], None]
    ) -> None:
        self._device, self._position, self._post = device, position, post
        self._freezer = FileSystemFreezer(marker_of(state))
        self._held = ""  # the kind of the hold that stands
        self._unfreezable: set[str] = set()
        self._requests: queue.SimpleQueue[ev.Effect | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def carry_out(self, effect: ev.Effect) -> bool:
        """Do what concerns holds; False when the effect does not."""
        if not isinstance(effect, ev.Flush | ev.Hold | ev.Release):
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="epochs", daemon=True)
            self._thread.start()
        self._requests.put(effect)
        return True

    def close(self) -> None:
        """Let go of everything."""
        if self._thread is not None:
            self._requests.put(None)
            self._thread.join(60.0)
        self._freezer.close()

    # --- in the thread ------------------------------------------------------------------------------------
    def _run(self) -> None:
        while (effect := self._requests.get()) is not None:
            try:
                self._post(self._answer(effect))
            except Exception as error:  # also a fault of ours: a hold without an answer would never end
                if not isinstance(error, PydbtError):
                    _log.exception("holding the source failed")
                self._post(_failure(effect, str(error)))

    def _answer(self, effect: ev.Effect) -> ev.Event:
        match effect:
            case ev.Flush():
                return self._flush()
            case ev.Hold():
                return self._hold(effect)
            case ev.Release(hold=hold):
                return self._release(hold)
        raise AssertionError(effect)

    def _flush(self) -> ev.Flushed:
        holdable = look(self._device)
        for mount in holdable.mounts:
            sync_file_system(mount)
        if holdable.mounts:
            self._freezer.start()
        return ev.Flushed(holdable.kind)

    def _hold(self, effect: ev.Hold) -> ev.Held:
        mounts = [] if effect.gently else [mount for mount in look(self._device).mounts if mount.fs_type not in self._unfreezable]
        if mounts:
            for mount in mounts:
                sync_file_system(mount)  # what the freeze itself has to write holds everybody up
            try:
                self._freezer.freeze(mounts, effect.limit_s)
            except CannotFreeze as error:
                self._unfreezable |= {mount.fs_type for mount in mounts}
                _log.warning("%s: an epoch needs a moment in which nobody happens to write", error)
                mounts = []
        self._held = "freeze" if mounts else "quiescent"
        return ev.Held(effect.hold, self._held, self._position())

    def _release(self, hold: int) -> ev.Released:
        held, self._held = self._held, ""
        if held != "freeze":
            return ev.Released(hold, 0.0)
        # Whether it had ended early is no matter: the brain has seen that nothing was written by the last read.
        held_ms, _ = self._freezer.thaw()
        return ev.Released(hold, held_ms)


def _failure(effect: ev.Effect, error: str) -> ev.Event:
    match effect:
        case ev.Flush():
            return ev.Flushed("", error=error)
        case ev.Hold(hold=hold):
            return ev.Held(hold, "", 0, error=error)
    return ev.Released(effect.hold, 0.0)

"""``controller hold``: hold the target of a replica from boot on, and hand it on to the secondary.

The secondary gets a copy of the descriptor, so that at no moment nobody holds the target; when it ends, this process still does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from pydbt.controller.belonging import belonging_of
from pydbt.core.errors import MachineError, PydbtError
from pydbt.core.secondary.belonging import Belonging
from pydbt.device.hold import HeldDevice
from pydbt.posix.held_device import HOLDS, HoldServer
from pydbt.posix.service_manager import ServiceManager

READY_S = 10.0
"""Units that come after this one wait this long for a disk that is not there yet."""
LOOK_S, FIRST_LOOK_S = 2.0, 0.2
"""How often it looks for a disk that is not there, or whether one is still there; and before it is ready."""

_log = logging.getLogger("pydbt")


def nothing_to_hold(target: Path, state_dir: Path) -> str:
    """Why there is nothing to hold, whichever disk is at the path: no replica has been there, or it was promoted; else empty."""
    try:
        found = belonging_of(target, state_dir)
    except PydbtError:
        return ""  # it is looked at again and again
    return found.words(str(target), str(state_dir)) if found in (Belonging.NO_RECORD, Belonging.VOLUME) else ""


class TargetHold:
    """The target of one replica, held until asked to end."""

    def __init__(self, name: str, target: Path, state_dir: Path, manager: ServiceManager, folder: Path = HOLDS) -> None:
        """BusyError when another process holds under this name, MachineError when its socket cannot be made."""
        self._target, self._state_dir, self._manager = target, state_dir, manager
        self._device: HeldDevice | None = None
        self._problem = ""
        self._stop_asked = False
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            self._server = HoldServer(name, folder)
        except OSError as error:
            raise MachineError(f"a socket cannot be made in {folder}: {error.strerror}") from None
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Until ``stop``, or until somebody asks for an end; the exit code."""
        began, told_ready = time.monotonic(), False
        try:
            while not self._stop_asked:
                self._look()
                if not told_ready and (self._device is not None or time.monotonic() >= began + READY_S):
                    told_ready = True
                    self._manager.ready(f"{self._target} is held" if self._device else self._problem)
                self._manager.sign_of_life()
                descriptor = self._device.descriptor if self._device is not None else None
                if self._server.serve(descriptor, LOOK_S if told_ready else FIRST_LOOK_S, self._wake):
                    _log.info("%s is let go of, as was asked", self._target)
                    break
        finally:
            if self._device is not None:
                self._device.close()
            self._server.close()
            os.close(self._wake)
            os.close(self._waker)
        return 0

    def stop(self) -> None:
        """Ask for an end; may be called from a signal handler."""
        self._stop_asked = True
        with contextlib.suppress(OSError):
            os.write(self._waker, b"x")

    def _look(self) -> None:
        if self._device is not None and self._device.is_gone:
            _log.warning("%s is gone: it is held again when it is back", self._target)
            self._device.close()
            self._device = None
        if self._device is not None:
            return
        try:
            if problem := belonging_of(self._target, self._state_dir).words(str(self._target), str(self._state_dir)):
                raise MachineError(f"{problem}: it is not held")
            self._device = HeldDevice(str(self._target))
        except PydbtError as error:
            if self._problem != str(error):
                _log.warning("%s", error)
            self._problem = str(error)
            return
        self._problem = ""
        _log.info("%s is held", self._target)


def hold_until_stopped(hold: TargetHold) -> int:
    """In the main thread, until SIGTERM or SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hold.stop())
    return hold.run()

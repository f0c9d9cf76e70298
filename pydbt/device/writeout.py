"""Writes out what the kernel keeps in memory: before that, a completed ``write`` is not on the device, and nobody captures it.

It is what ``sync -f`` does (syncfs(2)), for every file system on a device, in whatever mount namespace.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from pydbt.core.errors import DeviceError
from pydbt.device.freeze import CannotReach, sync_file_system
from pydbt.device.mounts import devices_of_mount, mounts_on, one_of_each
from pydbt.device.stacking import devices_above
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import out_of_reach


@dataclass(slots=True)
class Round:
    """One time that all is written out. ``done`` is set last.

    ``left_out``: sentences on what cannot be reached. ``error``: why not everything was written out.
    """

    done: threading.Event = field(default_factory=threading.Event)
    left_out: list[str] = field(default_factory=list)
    error: DeviceError | None = None


class Writeout:
    """Writes out everything on a device, in a thread of its own: the kernel may hold it for as long as it likes.

    Called from any thread. There is one thread at most: who asks meanwhile gets the next round, together with all others.
    """

    def __init__(
        self, device: BlockDevice, write_out: Callable[[BlockDevice, Callable[[str], None]], list[str]] | None = None
    ) -> None:
        """``write_out`` does it in the place of this module's function; it tells where it is."""
        self._device, self._write_out = device, write_out or write_out_all
        self._lock = threading.Lock()
        self._running: Round | None = None
        self._next: Round | None = None
        self.place = ""
        """What is being written out; empty when nothing is."""

    def ask(self) -> Round:
        """A round that begins after this call."""
        with self._lock:
            if self._running is not None:
                self._next = self._next or Round()
                return self._next
            self._running = asked = Round()
            try:
                threading.Thread(target=self._run, name="writeout", daemon=True).start()
            except (
                RuntimeError
            ) as error:  # no memory for a thread, or too many of them: the next one that asks may have it
                self._running = None
                asked.error = DeviceError(f"the volume's file systems cannot be written out now: {error}")
                asked.done.set()
        return asked

    def _run(self) -> None:
        while (present := self._running) is not None:
            try:
                present.left_out = self._write_out(self._device, self._at)
            except DeviceError as error:
                present.error = error
            except Exception as error:  # a fault of ours: who waits must hear of it all the same
                present.error = DeviceError(f"the volume's file systems could not be written out: {error!r}")
            with self._lock:
                self.place = ""
                self._running, self._next = self._next, None
            present.done.set()

    def _at(self, place: str) -> None:
        self.place = place


def write_out_all(device: BlockDevice, at: Callable[[str], None]) -> list[str]:
    """Write out a device, and every file system on it. Sentences on what cannot be reached.

    ``at`` is told each place first. DeviceError: not everything could be written out.
    """
    stack = devices_above(device)
    at(device.path)  # to find its mounts takes long where a user has made very many of them
    found = mounts_on({part.number for part in stack})
    left_out = []
    for mount in one_of_each(mount for mount in found if "ro" not in mount.super_options):
        at(mount.point)
        try:
            sync_file_system(mount)
        except CannotReach as error:
            left_out.append(str(error))
    reached = {number for mount in found for number in devices_of_mount(mount)}
    for part in stack:
        if part.number not in reached:
            at(part.path)
            _sync_device(part)  # of programs that write to the device itself
    if hidden := out_of_reach(stack, reached):
        left_out.append(f"{hidden.path} is in use, perhaps mounted in a namespace without a process")
    return left_out


def _sync_device(device: BlockDevice) -> None:
    with contextlib.suppress(OSError):  # there is none, or no medium in it
        descriptor = os.open(device.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise DeviceError(f"{device.path} could not be written out: {error.strerror}") from None
        finally:
            os.close(descriptor)

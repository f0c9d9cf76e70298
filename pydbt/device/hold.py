"""Holds the device of a target exclusively, without a way to write to it."""

from __future__ import annotations

import errno
import os
import stat

from pydbt.core.errors import BusyError, DeviceError, PydbtError, UsageError
from pydbt.device.partitions import remove_partitions
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.ownership import way_intruder


class HeldDevice:
    """The device at a path, held from here to ``close``. Its partitions are taken out of the kernel."""

    def __init__(self, path: str) -> None:
        """BusyError when anything holds it; DeviceError when it is not there, UsageError when it cannot be held."""
        self.path = path
        if wrong := way_intruder(path):
            raise UsageError(f"TARGET {path} is not safe from other users: {wrong}")
        self.descriptor = _open(path)
        status = os.fstat(self.descriptor)
        self.number = status.st_rdev
        self._attachment = self._sequence()
        remove_partitions(self.descriptor)

    @property
    def is_gone(self) -> bool:
        """Whether the disk was unplugged or detached. Another one may have its number by now."""
        return self._sequence() != self._attachment or not os.lseek(self.descriptor, 0, os.SEEK_END)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1

    def _sequence(self) -> int | None:
        try:
            return BlockDevice.from_number(os.major(self.number), os.minor(self.number)).disk_sequence()
        except PydbtError:
            return -1


def _open(path: str) -> int:
    try:
        # Looked at by its descriptor, and then opened through that: nobody can exchange it in between.
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISBLK(os.fstat(found).st_mode):
                raise UsageError(
                    f"TARGET {path} is no block device: an image file is not held, because nothing takes it"
                )
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        finally:
            os.close(found)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"TARGET {path} is in use: something else holds it") from None
        raise DeviceError(f"TARGET {path} cannot be held: {error.strerror}") from None

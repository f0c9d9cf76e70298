"""The process that changes device-mapper's tables while nobody can write: a program of its own, run by ``mapper``.

``suspender.py VOLUME SNAPSHOT`` suspends the volume (a file system on it is frozen, what is in flight completes), brings the
loaded snapshot to life, and lets the volume go on with the table that was loaded for it, or with its old one if there is none,
or if there is no snapshot for it. ``suspender.py VOLUME`` only lets it go on with the loaded table, and
``suspender.py --hidden DEVICE`` holds nobody.

Whoever suspends must come to the resume. So it lives in a session of its own, hears no signal that can be ignored, has all it
needs in memory that is never paged out, and imports nothing but the standard library. ``dmsetup`` does the same and cannot be
used: the snapshot has the volume's file system on it, and udev would give it that one's links in /dev/disk; the flags that
keep it from doing so go with the resume itself. include/uapi/linux/dm-ioctl.h; udev/10-dm.rules.in and libdm of LVM2.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
import sys

CONTROL = "/dev/mapper/control"
# version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev, name, uuid, data
_DM_IOCTL = struct.Struct("=3I3Ii3IQ128s129s7s")
_SUSPEND_COMMAND, _CLEAR_COMMAND = 6, 10
_SUSPEND, _SKIP_LOCKFS = 1 << 1, 1 << 10
# What udev is to do, in the upper half of what would otherwise be a cookie somebody waits for.
_UDEV_SHIFT = 16
_UDEV_PRIMARY = 0x40
_UDEV_NO_SUBSYSTEM, _UDEV_NO_DISK, _UDEV_NO_OTHER = 0x2, 0x4, 0x8
_UDEV_HIDDEN = _UDEV_PRIMARY | _UDEV_NO_SUBSYSTEM | _UDEV_NO_DISK | _UDEV_NO_OTHER
_MCL_CURRENT_AND_FUTURE = 3


class Mapper:
    """Requests by the name of a device. OSError says which of them failed."""

    def __init__(self) -> None:
        try:
            self._control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"opening {CONTROL}: {error.strerror}") from None

    def suspend(self, name: str, *, freeze: bool) -> None:
        self._ask("suspending", name, _SUSPEND_COMMAND, _SUSPEND | (0 if freeze else _SKIP_LOCKFS))

    def resume(self, name: str, *, hidden: bool = False) -> None:
        """Let a device work, with the table that was loaded for it. A ``hidden`` one gets no links from udev."""
        self._ask("resuming", name, _SUSPEND_COMMAND, 0, _UDEV_HIDDEN if hidden else _UDEV_PRIMARY)

    def clear(self, name: str) -> None:
        """Forget the table that was loaded."""
        self._ask("clearing", name, _CLEAR_COMMAND, 0)

    def _ask(self, doing: str, name: str, command: int, flags: int, udev: int = 0) -> None:
        size = _DM_IOCTL.size
        request = bytearray(
            _DM_IOCTL.pack(4, 0, 0, size, 0, 0, 0, flags, udev << _UDEV_SHIFT, 0, 0, os.fsencode(name), b"", b"")
        )
        try:
            fcntl.ioctl(self._control, 3 << 30 | size << 16 | 0xFD << 8 | command, request)
        except OSError as error:
            raise OSError(error.errno, f"{doing} {name}: {error.strerror}") from None


def switch(mapper: Mapper, volume: str, snapshot: str | None) -> None:
    """The volume goes on whatever happens; what went wrong first is raised."""
    try:
        mapper.suspend(volume, freeze=snapshot is not None)
    except OSError:
        with contextlib.suppress(OSError):
            mapper.clear(volume)
        raise
    try:
        if snapshot is not None:
            mapper.resume(snapshot, hidden=True)
    except OSError:
        mapper.clear(volume)
        raise
    finally:
        try:
            mapper.resume(volume)
        except OSError:
            mapper.resume(volume)  # the loaded table could not be used, and is gone; the old one is there
            raise


def main(words: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        mapper = Mapper()
        if words[0] == "--hidden":
            mapper.resume(words[1], hidden=True)
            return 0
        if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT_AND_FUTURE):
            raise OSError(errno.ENOMEM, "locking its memory failed")
        switch(mapper, words[0], words[1] if len(words) > 1 else None)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The process that changes device-mapper's tables while a volume is suspended: a program of its own, run by ``mapper``.

``suspender.py take VOLUME SNAPSHOT [TABLE]`` suspends the volume (a file system on it is frozen, I/O in flight completes),
activates the loaded snapshot, and resumes the volume. With ``TABLE``, which must still be the volume's live table, the volume
continues with its loaded table. ``suspender.py put-back VOLUME TABLE`` does that without a snapshot. ``suspender.py hidden
DEVICE`` activates a device and suspends none.

After a suspend this process must reach the resume. So it runs in a session of its own, ignores every signal that it can, asks
the kernel to kill it last when memory runs out, and locks its memory. It runs isolated (``python -I -S``) and imports the
standard library only, which also keeps the locked memory small; therefore it loads the C library itself and does not use
``pydbt.posix``. ``dmsetup`` cannot be used: the snapshot contains the volume's file system, and udev would give the snapshot
that file system's links in /dev/disk. The flags that prevent this must go with the resume itself.
Sources: include/uapi/linux/dm-ioctl.h, drivers/md/dm-ioctl.c; udev/10-dm.rules.in and libdm of LVM2.
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
# sector_start, length, status, next, target_type; the arguments follow as a string.
_TARGET = struct.Struct("=QQiI16s")
_SUSPEND_COMMAND, _STATUS_COMMAND, _CLEAR_COMMAND, _TABLE_COMMAND = 6, 7, 10, 12
_SUSPEND, _WANT_TABLE, _BUFFER_FULL, _SKIP_LOCKFS = 1 << 1, 1 << 4, 1 << 8, 1 << 10
_TABLE_BYTES = 1 << 18
# Flags for udev, in the upper half of the event number. The lower half would be a cookie to wait for; it stays 0.
_UDEV_SHIFT = 16
_UDEV_PRIMARY = 0x40
_UDEV_NO_SUBSYSTEM, _UDEV_NO_DISK, _UDEV_NO_OTHER = 0x2, 0x4, 0x8
_UDEV_HIDDEN = _UDEV_PRIMARY | _UDEV_NO_SUBSYSTEM | _UDEV_NO_DISK | _UDEV_NO_OTHER
_MCL_CURRENT_AND_FUTURE = 3  # asm-generic/mman.h


class Mapper:
    """Requests to device-mapper by the name of a device. OSError names the request that failed."""

    def __init__(self) -> None:
        try:
            self._control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise OSError(error.errno, f"opening {CONTROL}: {error.strerror}") from None
        self._buffer = bytearray(_TABLE_BYTES)

    def is_suspended(self, name: str) -> bool:
        return bool(self._ask("looking at", name, _STATUS_COMMAND, 0)[1] & _SUSPEND)

    def table(self, name: str) -> list[list[str]]:
        """The live table, one row of words per target."""
        count, flags = self._ask("looking at", name, _TABLE_COMMAND, _WANT_TABLE)
        if flags & _BUFFER_FULL:
            raise OSError(errno.E2BIG, f"the table of {name} is too long")
        rows, at = [], _DM_IOCTL.size
        for _ in range(count):
            first, length, _, following, kind = _TARGET.unpack_from(self._buffer, at)
            begin = at + _TARGET.size
            words = self._buffer[begin : self._buffer.index(0, begin)].decode().split()
            rows.append([str(first), str(length), kind.rstrip(b"\0").decode(), *words])
            at = _DM_IOCTL.size + following
        return rows

    def suspend(self, name: str, *, freeze: bool) -> None:
        self._ask("suspending", name, _SUSPEND_COMMAND, _SUSPEND | (0 if freeze else _SKIP_LOCKFS))

    def resume(self, name: str, *, hidden: bool = False) -> None:
        """Resume a device, with its loaded table if it has one. A ``hidden`` device gets no links from udev."""
        self._ask("resuming", name, _SUSPEND_COMMAND, 0, _UDEV_HIDDEN if hidden else _UDEV_PRIMARY)

    def clear(self, name: str) -> None:
        """Drop the loaded table."""
        self._ask("clearing", name, _CLEAR_COMMAND, 0)

    def _ask(self, doing: str, name: str, command: int, flags: int, udev: int = 0) -> tuple[int, int]:
        """(number of targets, flags) of the answer; the rest of the answer is in the buffer."""
        start = _DM_IOCTL.size
        request = (
            4,
            0,
            0,
            len(self._buffer),
            start,
            0,
            0,
            flags,
            udev << _UDEV_SHIFT,
            0,
            0,
            os.fsencode(name),
            b"",
            b"",
        )
        _DM_IOCTL.pack_into(self._buffer, 0, *request)
        try:
            fcntl.ioctl(self._control, 3 << 30 | start << 16 | 0xFD << 8 | command, self._buffer)
        except OSError as error:
            raise OSError(error.errno, f"{doing} {name}: {error.strerror}") from None
        answer = _DM_IOCTL.unpack_from(self._buffer, 0)
        return answer[5], answer[7]


def switch(mapper: Mapper, volume: str, snapshot: str | None, table: list[list[str]] | None) -> None:
    """Suspend the volume, activate the snapshot, and resume the volume in every case. The first error is raised.

    ``table`` is the volume's live table, and another one is loaded. None: nothing was loaded, and the volume keeps its table.
    """
    try:
        if snapshot is not None and mapper.is_suspended(volume):
            raise OSError(errno.EBUSY, f"{volume} is suspended by another program")
        mapper.suspend(volume, freeze=snapshot is not None)
    except OSError:
        _forget(mapper, volume, table)
        raise
    try:
        if table is not None and mapper.table(volume) != table:
            raise OSError(errno.ESTALE, f"{volume} has another table than a moment ago: another program changed it")
        if snapshot is not None:
            mapper.resume(snapshot, hidden=True)
    except OSError:
        _forget(mapper, volume, table)
        raise
    finally:
        try:
            mapper.resume(volume)
        except OSError:
            mapper.resume(volume)  # the loaded table was refused and dropped; this resumes with the old one
            raise


def _forget(mapper: Mapper, volume: str, table: list[list[str]] | None) -> None:
    if table is not None:
        with contextlib.suppress(OSError):
            mapper.clear(volume)


def be_undisturbed() -> None:
    """Ignore signals, be killed last, and lock the memory of this process. OSError when it cannot be locked."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    if ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT_AND_FUTURE):
        raise OSError(ctypes.get_errno(), f"locking its memory: {os.strerror(ctypes.get_errno())}")


def main(words: list[str]) -> int:
    try:
        mapper = Mapper()
        match words:
            case ["hidden", device]:
                mapper.resume(device, hidden=True)
            case ["take", volume, snapshot, *table]:
                be_undisturbed()
                switch(mapper, volume, snapshot, parse_table(table[0]) if table else None)
            case ["put-back", volume, table]:
                be_undisturbed()
                switch(mapper, volume, None, parse_table(table))
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1
    return 0


def parse_table(table: str) -> list[list[str]]:
    """A table in the form that ``Mapper.table`` returns."""
    return [line.split() for line in table.splitlines()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

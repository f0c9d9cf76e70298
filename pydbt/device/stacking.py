"""The stack under a path: the devices and files that a write to the path ends up on.

A file lies on its file system's devices, a loop device on its backing file, dm and md on their slaves, and a partition on a
range of its disk. Two replicas that share a place in this tree destroy each other. A state directory on its own volume causes
endless writes. ``pydbt.device.checks`` refuses both.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydbt.core.errors import DeviceError
from pydbt.device.mounts import Mount, devices_of_mount, mount_of_path, read_mounts
from pydbt.device.sysfs import BlockDevice, all_disks

_LOOP_GET_STATUS64 = 0x4C05  # linux/loop.h
_LOOP_INFO64_BYTES = 232
_RAM_DISK = re.compile(r"z?ram\d+")  # brd and zram, drivers/block
_DEPTH_MAX = 32  # levels of stacking followed; the kernel's own limits end far below


@dataclass(frozen=True, slots=True)
class FileRange:
    """A regular file, or a range of one, identified by device number and inode, and not by name.

    ``size_bytes`` is 0 for a range that ends with the file.
    """

    device: tuple[int, int]
    inode: int
    path: str
    offset_bytes: int = 0
    size_bytes: int = 0

    @property
    def file(self) -> tuple[tuple[int, int], int]:
        return self.device, self.inode

    def overlaps(self, other: FileRange) -> bool:
        if self.file != other.file:
            return False
        before = self.size_bytes and self.offset_bytes + self.size_bytes <= other.offset_bytes
        behind = other.size_bytes and other.offset_bytes + other.size_bytes <= self.offset_bytes
        return not (before or behind)


Place = BlockDevice | FileRange


def places_under(path: str | os.PathLike[str]) -> list[Place]:
    """Every place that a write to ``path`` ends up on, the path itself first, each place once.

    ``path`` may be a block device, a file, or a directory (for files that will be made in it).
    A network or memory file system adds nothing.
    """
    found: list[Place] = []
    for place in _of_path(os.fspath(path), 0):
        if place not in found:
            found.append(place)
    return found


def memory_below(path: str | os.PathLike[str]) -> str:
    """What of a path lies in memory, and is gone after a power loss: a file system, or a RAM disk; empty when it is on a disk."""
    from pydbt.posix.memory import memory_file_system  # it loads ctypes, and few commands need it

    places = places_under(path)
    if (not places or isinstance(places[0], FileRange)) and (name := memory_file_system(path)):
        return name
    for place in places:
        if isinstance(place, BlockDevice):
            if _RAM_DISK.fullmatch(place.disk().name):
                return f"{place.path} is a RAM disk"
            continue
        with contextlib.suppress(OSError):  # the file behind a loop device may have lost its name
            if name := memory_file_system(place.path):
                return f"{place.path} is on {name}"
    return ""


def devices_above(device: BlockDevice) -> list[BlockDevice]:
    """The device, its partitions, and every device-mapper or RAID device that is built on any of them."""
    found: dict[tuple[int, int], BlockDevice] = {}
    names = {disk.name: disk for disk in all_disks()}
    waiting = [device]
    while waiting:
        part = waiting.pop()
        if part.number in found:
            continue
        found[part.number] = part
        waiting.extend(part.partitions())
        waiting.extend(names[name] for name in part.holders() if name in names)
    return list(found.values())


def same_place(one: Place, other: Place) -> bool:
    """Whether a write to one place changes the other."""
    match one, other:
        case BlockDevice(), BlockDevice():
            return one.overlaps(other)
        case FileRange(), FileRange():
            return one.overlaps(other)
        case _:
            return False


def kept_in(places: list[Place]) -> FileRange | None:
    """The file that the first place is, or that directly holds it (a loop device's file); None for other devices."""
    return next((place for place in places[:2] if isinstance(place, FileRange)), None)


def loops_on_file(path: str | os.PathLike[str]) -> list[BlockDevice]:
    """The loop devices whose backing file is this file, under any name."""
    status = os.stat(path)
    wanted = (os.major(status.st_dev), os.minor(status.st_dev)), status.st_ino
    loops = [disk for disk in all_disks() if disk.backing_file() is not None]
    return [loop for loop in loops if (file := _loop_file(loop)) and file.file == wanted]


def _of_path(path: str, depth: int) -> Iterator[Place]:
    try:
        status = os.stat(path)
    except OSError:
        return
    if stat.S_ISBLK(status.st_mode):
        number = os.major(status.st_rdev), os.minor(status.st_rdev)
        yield from _of_device(BlockDevice.from_number(*number, path=os.path.realpath(path)), depth)
        return
    device = os.major(status.st_dev), os.minor(status.st_dev)
    if stat.S_ISREG(status.st_mode):
        yield FileRange(device, status.st_ino, os.path.realpath(path))
    mount = mount_of_path(path)
    if mount is not None:
        yield from _of_mount(mount, depth + 1)
    # The mount is more reliable. The file's own device number is used in addition (overlay shows that of a lower file).
    yield from _of_number(device, depth + 1)


def _of_mount(mount: Mount, depth: int) -> Iterator[Place]:
    if depth > _DEPTH_MAX:
        return
    for number in devices_of_mount(mount):
        yield from _of_number(number, depth + 1)
    if mount.fs_type == "overlay":
        for option in ("upperdir", "workdir", "lowerdir"):
            for part in (mount.super_option(option) or "").split(":"):
                if part.startswith("/"):
                    yield from _of_path(part, depth + 1)


def _of_number(number: tuple[int, int], depth: int) -> Iterator[Place]:
    if number[0] == 0 or depth > _DEPTH_MAX:
        return
    try:
        device = BlockDevice.from_number(*number)
    except DeviceError:
        return
    yield from _of_device(device, depth)


def _of_device(device: BlockDevice, depth: int) -> Iterator[Place]:
    if depth > _DEPTH_MAX:
        return
    yield device
    for slave in device.slaves():
        yield from _of_device(slave, depth + 1)
    if device.backing_file() is not None and (file := _loop_file(device)):
        yield file
        yield from _of_backing_file(file, depth + 1)


def _of_backing_file(file: FileRange, depth: int) -> Iterator[Place]:
    if file.device[0]:
        yield from _of_number(file.device, depth)
        return
    # An anonymous number (btrfs, overlay): the path is more reliable while it still names that file.
    try:
        status = os.stat(file.path)
        named = (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino) == (*file.device, file.inode)
    except OSError:
        named = False
    if named:
        yield from _of_path(file.path, depth)
    else:
        for mount in read_mounts():
            if (mount.major, mount.minor) == file.device:
                yield from _of_mount(mount, depth)


def _loop_file(device: BlockDevice) -> FileRange | None:
    """The backing file of a loop device by number and inode, which is right also after it was renamed or unlinked."""
    path = device.backing_file()
    disk = device.disk()
    information = bytearray(_LOOP_INFO64_BYTES)
    try:
        descriptor = os.open(disk.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.ioctl(descriptor, _LOOP_GET_STATUS64, information)
    except OSError:
        return None  # detached meanwhile
    finally:
        os.close(descriptor)
    # lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit
    encoded, inode, _, offset, size = struct.unpack_from("=5Q", information)
    return FileRange(_decode_device(encoded), inode, path or "", offset, size)


def _decode_device(encoded: int) -> tuple[int, int]:
    """The kernel's 32-bit form of a device number: minor's low byte, 12 bits of major, the rest of minor."""
    return (encoded & 0xFFF00) >> 8, (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00)

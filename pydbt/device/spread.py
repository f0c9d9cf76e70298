"""File systems of which a part lies on another device: their replica could not be mounted.

An external journal of an ext4, an external log or a realtime device of an XFS, the other members of a btrfs. All of it is found
in the superblock, so that it shows also while the file system is not mounted; the name of the other device comes from the mount.
Sources: fs/ext4/ext4.h (struct ext4_super_block), fs/xfs/libxfs/xfs_format.h (struct xfs_dsb),
include/uapi/linux/btrfs_tree.h (struct btrfs_super_block).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from pydbt.core.errors import DeviceError, UsageError
from pydbt.core.units import KIB
from pydbt.device.block import DirectReader, aligned_buffer
from pydbt.device.magic import EXT4_SUPERBLOCK_BYTES, EXT4_SUPERBLOCK_OFFSET, is_ext4, is_xfs
from pydbt.device.mounts import device_numbers, devices_of_btrfs
from pydbt.device.stacking import devices_above, places_under, same_place
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.files import read_entry

_HEAD_BYTES = 68 * KIB  # up to the end of the superblock of a btrfs
_EXT4_HAS_JOURNAL = 0x4  # EXT4_FEATURE_COMPAT_HAS_JOURNAL
_EXT4_JOURNAL_DEVICE = 0x8  # EXT4_FEATURE_INCOMPAT_JOURNAL_DEV
_XFS_ZONED = 1 << 9  # XFS_SB_FEAT_INCOMPAT_ZONED: the realtime section may lie on the device itself
_BTRFS_AT, _BTRFS_MAGIC = 64 * KIB, b"_BHRfS_M"
_JOURNAL_OF_ANOTHER = "the journal of an ext4 that is"
_BY_UUID = Path("/dev/disk/by-uuid")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A part of a file system that is not on the device with its superblock.

    ``part`` is what lies there, in words; ``places`` the devices, as far as they are known; ``name`` tells of them otherwise.
    """

    part: str
    places: tuple[str, ...] = ()
    name: str = "another device"

    @property
    def where(self) -> str:
        return " and ".join(self.places) or self.name


def refuse_spread(source: BlockDevice) -> None:
    """UsageError when a file system on SOURCE, or on a partition or volume of it, lies in part on a device outside of it."""
    for device in devices_above(source):
        elsewhere = parts_elsewhere(device)
        if elsewhere is None or _all_on(source, elsewhere.places):
            continue
        if elsewhere.part == _JOURNAL_OF_ANOTHER and device.number != source.number:
            continue  # its file system may be on SOURCE; else what is there beside it needs it not
        raise UsageError(
            f"{device.path} has {elsewhere.part} on {elsewhere.where}, which is not replicated with it, so that the replica "
            "could not be mounted: keep all of the file system on one SOURCE"
        )


def parts_elsewhere(device: BlockDevice) -> Elsewhere | None:
    """The part of the file system on a device that lies elsewhere; None without such a part, or when it cannot be read."""
    if read_entry(Path(f"/sys/dev/block/{device.major}:{device.minor}/dm/suspended")) == "1":
        return None  # a read would wait for its resume
    head = aligned_buffer(_HEAD_BYTES)
    try:
        with DirectReader(device) as reader:
            reader.read_extent(0, min(_HEAD_BYTES, reader.size_bytes), head)
    except (DeviceError, ValueError):
        return None
    content = bytes(head)
    if is_ext4(content):
        return _of_ext4(content[EXT4_SUPERBLOCK_OFFSET : EXT4_SUPERBLOCK_OFFSET + EXT4_SUPERBLOCK_BYTES])
    if is_xfs(content):
        return _of_xfs(device, content[:512])
    if content[_BTRFS_AT + 64 : _BTRFS_AT + 72] == _BTRFS_MAGIC:
        return _of_btrfs(device, content[_BTRFS_AT:])
    return None


def _of_ext4(superblock: bytes) -> Elsewhere | None:
    compatible, incompatible = struct.unpack_from("<II", superblock, 92)
    if incompatible & _EXT4_JOURNAL_DEVICE:
        return Elsewhere(_JOURNAL_OF_ANOTHER)
    uuid, inode, number = superblock[208:224], *struct.unpack_from("<II", superblock, 224)
    if not compatible & _EXT4_HAS_JOURNAL or inode:
        return None
    found = _journal_with(uuid, number)
    return Elsewhere("an ext4 with its journal", (found,) if found else (), f"the device with UUID {UUID(bytes=uuid)}")


def _journal_with(uuid: bytes, number: int) -> str | None:
    """The device of an external journal: that with its UUID, or that with the number which the superblock has for it."""
    candidates = [str(_BY_UUID / str(UUID(bytes=uuid)))]
    with contextlib.suppress(DeviceError):  # numbers change with a reboot
        candidates.append(BlockDevice.from_number((number & 0xFFF00) >> 8, number & 0xFF | number >> 12 & 0xFFF00).path)
    for path in candidates:
        try:
            journal = BlockDevice.identify(path)
            head = aligned_buffer(4 * KIB)
            with DirectReader(journal) as reader:
                reader.read_extent(0, min(4 * KIB, reader.size_bytes), head)
        except (DeviceError, UsageError, ValueError):
            continue
        if head[EXT4_SUPERBLOCK_OFFSET + 104 : EXT4_SUPERBLOCK_OFFSET + 120] == uuid:
            return journal.path
    return None


def _of_xfs(device: BlockDevice, superblock: bytes) -> Elsewhere | None:
    (realtime_blocks,) = struct.unpack_from(">Q", superblock, 16)
    (log_start,) = struct.unpack_from(">Q", superblock, 48)
    (version,) = struct.unpack_from(">H", superblock, 100)
    (incompatible,) = struct.unpack_from(">I", superblock, 216)
    (realtime_start,) = struct.unpack_from(">Q", superblock, 288)
    inside = version & 0xF == 5 and incompatible & _XFS_ZONED and realtime_start
    if not log_start:
        return Elsewhere("an XFS with its log", _xfs_places(device, "logdev"))
    if realtime_blocks and not inside:
        return Elsewhere("an XFS with its realtime section", _xfs_places(device, "rtdev"))
    return None


def _xfs_places(device: BlockDevice, option: str) -> tuple[str, ...]:
    return tuple(_paths(number for mount in device.mounts() for number in device_numbers(mount, option)))


def _of_btrfs(device: BlockDevice, superblock: bytes) -> Elsewhere | None:
    (members,) = struct.unpack_from("<Q", superblock, 136)
    if members <= 1:
        return None
    numbers = {number for mount in device.mounts() for number in devices_of_btrfs(mount)} - {device.number}
    return Elsewhere("a btrfs with a part", tuple(_paths(sorted(numbers))))


def _paths(numbers: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> Iterator[str]:
    for number in dict.fromkeys(numbers):
        try:
            yield BlockDevice.from_number(*number).path
        except DeviceError:
            continue


def _all_on(source: BlockDevice, places: tuple[str, ...]) -> bool:
    """Whether all of these devices lie on SOURCE; False when none is known."""
    return bool(places) and all(any(same_place(source, layer) for layer in places_under(path)) for path in places)

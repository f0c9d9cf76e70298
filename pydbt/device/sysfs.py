"""The facts about a block device, from ``/sys`` and never from its name.

Sectors are 512 bytes everywhere in ``/sys``, also when the device's logical block is larger
(Documentation/ABI/stable/sysfs-block, Documentation/block/stat.rst).
"""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydbt.core.errors import DeviceError, NotThere, UsageError
from pydbt.core.units import SECTOR_BYTES
from pydbt.device.mounts import Mount, mounts_of, swap_paths
from pydbt.posix.disk_identity import identifiers
from pydbt.posix.files import read_entry

_DEVICES = Path("/sys/dev/block")


@dataclass(frozen=True, slots=True)
class IoCounters:
    """The kernel's own counts of a device since it appeared (Documentation/block/stat.rst)."""

    writes: int
    write_sectors: int
    discard_sectors: int

    @classmethod
    def parse(cls, text: str) -> IoCounters:
        """The counts in the text of ``stat``, from which kernels before v4.18 leave out discards."""
        fields = [int(field) for field in text.split()]
        return cls(fields[4], fields[6], fields[13] if len(fields) > 13 else 0)


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """One block device at one instant: a whole disk, a partition, a loop, dm or md device.

    ``disk_major`` and ``disk_minor`` name the whole disk, which is the device itself unless it is a partition;
    ``start_sector`` is its first sector on that disk. ``bio_based`` devices (most dm and md, zram, brd) complete bios; other
    devices complete requests.
    """

    path: str
    name: str
    major: int
    minor: int
    disk_major: int
    disk_minor: int
    partition: int | None
    start_sector: int
    size_sectors: int
    logical_block_bytes: int
    bio_based: bool
    read_only: bool

    @classmethod
    def identify(cls, path: str | os.PathLike[str]) -> BlockDevice:
        """The block device behind a path, symbolic links followed. UsageError when there is none."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            raise NotThere(f"{path} does not exist: name a block device, such as /dev/vdb or /dev/vg/data") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be looked at: {error.strerror}") from error
        if not stat.S_ISBLK(status.st_mode):
            raise UsageError(f"{path} is {_kind_of_file(status.st_mode)}, not a block device{_hint(status.st_mode)}")
        return cls.from_number(os.major(status.st_rdev), os.minor(status.st_rdev), os.path.realpath(path))

    @classmethod
    def from_number(cls, major: int, minor: int, path: str | None = None) -> BlockDevice:
        """The block device of a device number. DeviceError when the kernel has no such device."""
        folder = _folder(major, minor)
        try:
            partition_text = read_entry(folder / "partition")
            disk_folder = folder if partition_text is None else folder.parent
            disk_major, disk_minor = (int(number) for number in _require(disk_folder / "dev").split(":"))
            return cls(
                path=path or "/dev/" + folder.name.replace("!", "/"),
                name=folder.name,
                major=major,
                minor=minor,
                disk_major=disk_major,
                disk_minor=disk_minor,
                partition=None if partition_text is None else int(partition_text),
                start_sector=0 if partition_text is None else int(_require(folder / "start")),
                size_sectors=int(_require(folder / "size")),
                logical_block_bytes=int(_require(disk_folder / "queue/logical_block_size")),
                # The kernel makes this folder only for queues that take requests (blk_mq_sysfs_register).
                bio_based=not (disk_folder / "mq").is_dir(),
                read_only=read_entry(folder / "ro") == "1",
            )
        except FileNotFoundError as error:
            name = path or f"block device {major}:{minor}"
            raise DeviceError(f"{name} has vanished: the kernel knows no block device {major}:{minor}") from error

    @property
    def number(self) -> tuple[int, int]:
        return self.major, self.minor

    @property
    def disk_number(self) -> tuple[int, int]:
        return self.disk_major, self.disk_minor

    @property
    def size_bytes(self) -> int:
        return self.size_sectors * SECTOR_BYTES

    @property
    def is_partition(self) -> bool:
        return self.partition is not None

    def exists(self) -> bool:
        """Whether the kernel still has a device of this number."""
        return (_DEVICES / f"{self.major}:{self.minor}").exists()

    def has_gone(self, sequence: int | None) -> bool:
        """Whether the kernel has removed the device that had this ``disk_sequence``, and perhaps has another one of its number.

        A sequence that cannot be read, as by a process without a free descriptor, tells nothing.
        """
        present = self.disk_sequence()
        return not self.exists() or (present is not None and sequence is not None and present != sequence)

    def disk(self) -> BlockDevice:
        """The whole disk: of a partition, the disk that it lies on; else the device itself."""
        return self if not self.is_partition else BlockDevice.from_number(*self.disk_number)

    def partitions(self) -> list[BlockDevice]:
        """The partitions of a whole disk, in the order of their numbers; none for a partition."""
        if self.is_partition:
            return []
        children = [BlockDevice.from_number(*_number_in(entry.parent)) for entry in self._folder().glob("*/partition")]
        return sorted(children, key=lambda child: child.partition or 0)

    def overlaps(self, other: BlockDevice) -> bool:
        """Whether the two share sectors of one disk: the same device, or a disk and its partition."""
        if self.disk_number != other.disk_number:
            return False
        if self.number == other.number or not (self.is_partition and other.is_partition):
            return True
        ends = self.start_sector + self.size_sectors, other.start_sector + other.size_sectors
        return self.start_sector < ends[1] and other.start_sector < ends[0]

    def holders(self) -> list[str]:
        """Names of the devices stacked on this one (dm, md, bcache), which hold it open."""
        return sorted(entry.name for entry in _list(self._folder() / "holders"))

    def slaves(self) -> list[BlockDevice]:
        """The devices that this one is built of (dm, md); for a partition, those that its disk is built of."""
        folder = _folder(*self.disk_number)
        return [BlockDevice.from_number(*_number_in(entry)) for entry in sorted(_list(folder / "slaves"))]

    @property
    def is_md(self) -> bool:
        """Whether it is an md volume, or a partition of one."""
        return (_folder(*self.disk_number) / "md").is_dir()

    def mapper_name(self) -> str:
        """Its name in device-mapper; empty for other devices, and for a partition."""
        return read_entry(self._folder() / "dm/name") or ""

    def backing_file(self) -> str | None:
        """The file behind a loop device, as the kernel names it now; None for other devices."""
        return read_entry(_folder(*self.disk_number) / "loop/backing_file")

    def in_flight_writes(self) -> int:
        """Write requests that the device has not completed at this instant."""
        return int(self._require("inflight").split()[1])

    def counters(self) -> IoCounters:
        """The kernel's counts of requests and sectors."""
        return IoCounters.parse(self._require("stat"))

    def counts_io(self) -> bool:
        """Whether the kernel keeps ``counters()`` for this device.

        ``queue/iostats`` shows it, except for devices that count their bios themselves: until v6.5 dm always counted and showed
        0 there ("dm: Support turning off io stat accounting"). For these, a read shows whether the count grows.
        """
        off = read_entry(_folder(*self.disk_number) / "queue/iostats") == "0"
        return not off or (self.bio_based and _counts_a_read(self.path, self.major, self.minor))

    def mounts(self) -> list[Mount]:
        """The mounts whose file system lies directly on this device."""
        return mounts_of(self.major, self.minor)

    def is_swap(self) -> bool:
        """Whether the device itself is in use as swap."""
        for path in swap_paths():
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISBLK(status.st_mode) and status.st_rdev == os.makedev(self.major, self.minor):
                return True
        return False

    def disk_sequence(self) -> int | None:
        """A number that the kernel never uses again within a boot: a loop device that is attached again gets a new one."""
        text = read_entry(_folder(*self.disk_number) / "diskseq")
        return None if text is None else int(text)

    def identity(self) -> dict[str, str]:
        """The identifiers of this device that stay across reboots, by kind (``posix.disk_identity``).

        Empty when only its kernel name is known. A partition has its disk's identifiers and its own.
        """
        found = identifiers(_folder(*self.disk_number))
        if self.partition is not None:
            found["partition"] = str(self.partition)
            if uuid := _partition_uuid(self._folder(), self.name):
                found["partition_uuid"] = uuid
        return found

    def _folder(self) -> Path:
        return _folder(self.major, self.minor)

    def _require(self, entry: str) -> str:
        try:
            return _require(self._folder() / entry)
        except FileNotFoundError as error:
            raise DeviceError(f"{self.path} has vanished: the kernel removed the device while it was in use") from error


def all_disks() -> list[BlockDevice]:
    """Every whole disk the kernel has now."""
    disks = []
    for entry in sorted(_list(Path("/sys/block"))):
        try:
            disks.append(BlockDevice.from_number(*_number_in(entry)))
        except (DeviceError, FileNotFoundError):
            continue  # removed meanwhile
    return disks


def _folder(major: int, minor: int) -> Path:
    """Where the link leads: to a folder without links on the way, each of which ``realpath`` would look at."""
    link = f"{_DEVICES}/{major}:{minor}"
    try:
        return Path(os.path.normpath(os.path.join(_DEVICES, os.readlink(link))))
    except OSError:  # no such device, as the caller will find
        return Path(link)


def _number_in(folder: Path) -> tuple[int, int]:
    major, minor = _require(folder / "dev").split(":")
    return int(major), int(minor)


def _partition_uuid(folder: Path, name: str) -> str | None:
    for line in (read_entry(folder / "uevent") or "").split("\n"):
        if line.startswith("PARTUUID="):
            return line.removeprefix("PARTUUID=")
    for link in _list(Path("/dev/disk/by-partuuid")):
        if os.path.basename(os.path.realpath(link)) == name:
            return link.name
    return None


def _kind_of_file(mode: int) -> str:
    kinds = ((stat.S_ISREG, "a regular file"), (stat.S_ISDIR, "a directory"), (stat.S_ISCHR, "a character device"))
    return next((words for test, words in kinds if test(mode)), "something else")


def _hint(mode: int) -> str:
    return ": attach an image file with losetup first and name the loop device" if stat.S_ISREG(mode) else ""


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


@cache
def _counts_a_read(path: str, major: int, minor: int) -> bool:
    """Whether a direct read of the device's first page makes its count of reads grow. Measured once per device."""
    stat_file = _folder(major, minor) / "stat"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            before = _require(stat_file).split()[0]
            with mmap.mmap(-1, mmap.PAGESIZE) as memory:
                os.preadv(descriptor, [memory], 0)
            return _require(stat_file).split()[0] != before
        finally:
            os.close(descriptor)
    except OSError:
        return False


def _require(path: Path) -> str:
    """As ``read_entry``, but FileNotFoundError when the file is missing or its device is going away."""
    text = read_entry(path)
    if text is None:
        raise FileNotFoundError(str(path))
    return text

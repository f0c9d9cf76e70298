"""The secondary's target: a block device that is held exclusively, or an image file that is held by a lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydbt.core.blocks.apply_plan import ZEROS, PlannedWrites
from pydbt.core.errors import BusyError, DeviceError, MediumError, PydbtError, UsageError
from pydbt.core.secondary.target_identity import NAMELESS, Likeness, likeness
from pydbt.core.units import KIB, MIB, SECTOR_BYTES, Buffer
from pydbt.device.block import MEDIUM_FAULTS
from pydbt.device.partitions import remove_partitions
from pydbt.device.read_back import NotTaken, ReadBack
from pydbt.posix import libc
from pydbt.posix.disk_identity import lasting_file_name, lasting_name, lasting_names
from pydbt.posix.files import IOV_MAX, hand_over, read_entry, sync_folder, try_lock, try_write_lock, write_all
from pydbt.posix.held_device import take_held
from pydbt.posix.ownership import file_intruder, way_intruder

PUNCH_FROM_BYTES = 64 * KIB
"""Shorter runs of zeros are written, because a hole costs the file system more."""
ZERO_CHUNK_BYTES = MIB
TRIED_BYTES = 4 * KIB
"""What is tried alone when a write has failed: the page, and the sector of most disks."""
CAREFUL_S = 600.0
BLKSSZGET = 0x1268  # include/uapi/linux/fs.h

# ext2 to ext4, XFS, btrfs, F2FS, tmpfs (include/uapi/linux/magic.h)
_LOCAL_FILE_SYSTEMS = frozenset({0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994})
NO_SUCH_DEVICE = "there is no such device (lsblk lists them), and no image file is made below /dev"
_DEVICES = "/dev"
_CANNOT_PUNCH = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})
_zeros = mmap.mmap(-1, ZERO_CHUNK_BYTES, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def in_devices(path: str) -> bool:
    """Whether a path is among the device files, which lie in memory and are gone after a boot.

    Other file systems below ``/dev`` (``/dev/shm``) hold files.
    """
    folder = os.path.realpath(os.path.dirname(os.path.abspath(path)))
    if folder != _DEVICES and not folder.startswith(f"{_DEVICES}/"):
        return False
    return not os.path.exists(folder) or os.stat(folder).st_dev == os.stat(_DEVICES).st_dev


def create_image(path: str, size_bytes: int) -> bool:
    """Make a sparse image file. False when the path exists already. Raises UsageError."""
    if in_devices(path):
        raise UsageError(f"TARGET {path} does not exist: {NO_SUCH_DEVICE}")
    if size_bytes <= 0 or size_bytes % SECTOR_BYTES:
        raise UsageError(f"an image of {size_bytes} bytes cannot be made: give a multiple of {SECTOR_BYTES}")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(f"TARGET {path} cannot be created: {error.strerror}") from None
    try:
        os.ftruncate(descriptor, size_bytes)
        os.fsync(descriptor)
        sync_folder(os.path.dirname(path) or ".")
    except OSError as error:
        os.unlink(path)
        raise UsageError(f"an image of {size_bytes} bytes cannot be made at {path}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return True


class Target:
    """An open target. Offsets and lengths are in bytes. Every failure of the disk is a DeviceError."""

    def __init__(self, path: str) -> None:
        """Open and hold the target. Raises UsageError or BusyError."""
        self.path = path
        # The claim: taken over from `controller hold`, which holds the device as well; None when the descriptor has it.
        self._descriptor, self._claim = _open(path)
        status = os.fstat(self._descriptor)
        self.is_block_device = stat.S_ISBLK(status.st_mode)
        remove_partitions(self._descriptor)  # they lead to the same sectors, and are not held
        self._number = status.st_rdev
        self.attachment_at_open = self.attachment
        self.opened_as = self.identity, self.names
        if not self.is_block_device:
            _lock(self._descriptor, path)
        self._read_back = ReadBack.where_needed(self._descriptor, self._number) if self.is_block_device else None
        self._unproven: list[tuple[int, Sequence[Buffer]]] = []
        self._careful_until = 0.0
        self.failed_at: int | None = None  # a byte that is tried alone before anything else is written again
        self.kept_tried = -1  # of the blocks that are kept aside, the one that was tried last
        self._keeps_times = not self.is_block_device and _keeps_times(self._descriptor)
        with contextlib.suppress(DeviceError):  # an earlier process may have been killed before or after a failed sync
            self.sync()
        self._drop_cache()

    @property
    def identity(self) -> str:
        """A text that differs between targets, and stays when devices get other numbers and names. DeviceError."""
        with self._looked_at():
            return _identity(self._descriptor)

    @property
    def names(self) -> dict[str, str]:
        """All such texts, by kind; ``identity`` is the best of them. A device may get or lose one. DeviceError."""
        with self._looked_at():
            return _names(self._descriptor)

    @property
    def size_bytes(self) -> int:
        """Its size now; 0 when it is closed. DeviceError where its file system has failed (NFS: ESTALE)."""
        if self._descriptor < 0:
            return 0
        with self._looked_at():
            return os.lseek(self._descriptor, 0, os.SEEK_END)

    @property
    def attachment(self) -> int | None:
        """The number of this attachment of the disk, which the kernel never uses again within a boot; None when it has none."""
        if not self.is_block_device:
            return None
        folder = _device_folder(self._number)
        if (folder / "partition").exists():
            folder = folder.resolve().parent
        text = read_entry(folder / "diskseq")
        return int(text) if text else None

    @property
    def is_gone(self) -> bool:
        """Whether the disk was unplugged or detached since it was opened. Another one may have its number by now."""
        return self.is_block_device and (not self.size_bytes or self.attachment != self.attachment_at_open)

    def require_named(self) -> None:
        """DeviceError when the path of the image file names another file by now, or none: who looks there finds no replica."""
        if self.is_block_device:
            return
        try:
            if os.path.samestat(os.stat(self.path), os.fstat(self._descriptor)):
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return  # nobody knows, as on a file server that is away
        raise DeviceError(
            f"TARGET {self.path} was removed, renamed or exchanged, or a mount hides it: put the same file back; the removed "
            f"file can be copied from /proc/{os.getpid()}/fd/{self._descriptor} until this process ends"
        )

    @property
    def sector_bytes(self) -> int:
        """The logical block of a device; 0 for an image file, which has none before it is attached to something."""
        if not self.is_block_device:
            return 0
        try:
            return int.from_bytes(fcntl.ioctl(self._descriptor, BLKSSZGET, bytes(4)), sys.byteorder)
        except OSError as error:
            raise DeviceError(f"TARGET {self.path} does not tell its logical block: {error.strerror}") from None

    @property
    def modified_ns(self) -> int | None:
        """When the content of the image file was changed last; None for a device, and where others may set the time later.

        DeviceError where its file system has failed (XFS after a shutdown).
        """
        if not self._keeps_times:
            return None
        with self._looked_at():
            return os.fstat(self._descriptor).st_mtime_ns

    @contextlib.contextmanager
    def _looked_at(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeviceError(f"TARGET {self.path} cannot be looked at: {error.strerror}") from None

    def be_careful(self) -> None:
        """After a failure: for some time each write waits for the disk, so that one that fails is known by its place.

        Everything that is not known to be on the disk is to be written again: what the cache still had is tried once.
        """
        with contextlib.suppress(DeviceError):
            self.sync()
        self._drop_cache()
        self.stay_careful()

    @property
    def is_careful(self) -> bool:
        """Whether each write waits for the disk now, and has since ``be_careful``."""
        return time.monotonic() < self._careful_until

    def stay_careful(self) -> None:
        """For another while. Only while it is careful."""
        self._careful_until = time.monotonic() + CAREFUL_S

    def try_again(self) -> None:
        """Write the block that could not be written, with its own content. DeviceError when that fails.

        A block that cannot be read either is left as it is: what is to be there comes with the next writes.
        """
        if self.failed_at is None:
            return
        offset = self.failed_at // TRIED_BYTES * TRIED_BYTES
        block = memoryview(bytearray(min(TRIED_BYTES, self.size_bytes - offset)))
        try:
            self.read_into(offset, block)
        except DeviceError:
            return
        self.write_through(offset, block)
        self.failed_at = None

    def write_runs(self, writes: PlannedWrites, buffer: memoryview) -> None:
        """Write planned runs, whose data lies in ``buffer``. Adjacent runs are written in one call."""
        self._unproven.clear()
        sectors, counts, sources = writes.sectors.tolist(), writes.lengths_sectors.tolist(), writes.sources.tolist()
        pieces: list[memoryview] = []
        begin = end = 0
        for sector, count, source in zip(sectors, counts, sources, strict=True):
            offset, length = sector * SECTOR_BYTES, count * SECTOR_BYTES
            if source == ZEROS and length >= PUNCH_FROM_BYTES:
                self._write(begin, pieces)
                pieces = []
                self.zero(offset, length)
                continue
            if not pieces or offset != end or len(pieces) == IOV_MAX:
                self._write(begin, pieces)
                pieces, begin = [], offset
            pieces.append(memoryview(_zeros)[:length] if source == ZEROS else buffer[source : source + length])
            end = offset + length
        self._write(begin, pieces)
        self._prove()

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros, and free its room where that is possible."""
        try:
            libc.fallocate(self._descriptor, libc.FALLOC_FL_KEEP_SIZE | libc.FALLOC_FL_PUNCH_HOLE, offset, length)
            return
        except OSError as error:
            if error.errno not in _CANNOT_PUNCH:
                raise self._write_failure(offset, error) from None
        while length:
            size = min(length, ZERO_CHUNK_BYTES)
            self._write(offset, [memoryview(_zeros)[:size]])
            offset, length = offset + size, length - size
        self._prove()

    def write_through(self, offset: int, block: memoryview) -> None:
        """Write a block, and wait for the disk. MediumError when others may be written."""
        try:
            write_all(self._descriptor, [block], offset, os.RWF_DSYNC)
            if self._read_back is not None and self._read_back.is_due:
                self._read_back.require(offset, [block])
        except OSError as error:
            self.forget(offset, len(block))
            raise self._write_failure(offset, error) from None

    def start_writeback(self) -> None:
        """Let the kernel begin to write dirty pages, so that the next ``sync`` has less to do."""
        with contextlib.suppress(OSError):  # the next sync reports it
            libc.sync_file_range(self._descriptor, 0, 0, libc.SYNC_FILE_RANGE_WRITE)

    def sync(self) -> None:
        """Make every write durable.

        After a failure the kernel marks the pages that it could not write as clean, and may keep showing them. So the cache
        is dropped: later comparisons must see the content of the disk.
        """
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._drop_cache()
            raise DeviceError(f"TARGET {self.path} cannot be synced: {error.strerror}") from None

    def sync_whole(self) -> None:
        """Make every write and the time of the last one durable. DeviceError when that fails."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise DeviceError(f"TARGET {self.path} cannot be synced: {error.strerror}") from None

    def _drop_cache(self) -> None:
        self.forget(0, 0)

    def forget(self, offset: int, length: int) -> None:
        """Drop a range from the cache, to the end for a ``length`` of 0: what is read then is what is on the disk."""
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` with the content from ``offset`` on. MediumError when others of its sectors may be read."""
        have = 0
        while have < len(view):
            try:
                count = os.preadv(self._descriptor, [view[have:]], offset + have)
            except OSError as error:
                failure = self._failure("read", offset + have, error)
                raise (MediumError(str(failure)) if error.errno in MEDIUM_FAULTS else failure) from None
            if not count:
                raise DeviceError(f"TARGET {self.path} ends at byte {offset + have}: it has become smaller")
            have += count

    def close(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        claim, self._claim = self._claim, None
        if descriptor >= 0:
            os.close(descriptor)
        if claim is not None:
            os.close(claim)
        reader, self._read_back = self._read_back, None
        if reader is not None:
            reader.close()

    def _write(self, offset: int, pieces: Sequence[Buffer]) -> None:
        if self._read_back is not None and pieces:
            self._unproven.append((offset, pieces))

        def take(views: list[memoryview]) -> int:
            nonlocal offset
            careful = self.is_careful
            try:
                count = os.pwritev(self._descriptor, views, offset, os.RWF_DSYNC if careful else 0)
            except OSError as error:
                single = error.errno in MEDIUM_FAULTS  # those are tried one by one, and not before all else
                place = offset if single and careful else self._place_of(offset, views)
                self.failed_at = None if single else place
                raise self._write_failure(place, error) from None
            offset += count
            return count

        hand_over(pieces, take)

    def _prove(self) -> None:
        """Where the success of a write proves nothing: that everything written since the last time is there. DeviceError."""
        unproven, self._unproven = self._unproven, []
        if self._read_back is None or not self._read_back.is_due:
            return
        self.start_writeback()
        for offset, pieces in unproven:
            try:
                self._read_back.require(offset, pieces)
            except OSError as error:
                self._drop_cache()  # which has it all, as if the disk had it
                place = error.place if isinstance(error, NotTaken) else offset
                self.failed_at = None if error.errno in MEDIUM_FAULTS else place
                raise self._write_failure(place, error) from None

    def _place_of(self, offset: int, views: list[memoryview]) -> int:
        """The first block of a failed write that cannot be written alone; its begin, where all of them can."""
        at = offset
        for view in views:
            for begin in range(0, len(view), TRIED_BYTES):
                try:
                    os.pwritev(self._descriptor, [view[begin : begin + TRIED_BYTES]], at + begin, os.RWF_DSYNC)
                except OSError:
                    return at + begin
            at += len(view)
        return offset

    def _write_failure(self, offset: int, error: OSError) -> DeviceError:
        failure = self._failure("written", offset, error)
        return MediumError(str(failure)) if error.errno in MEDIUM_FAULTS else failure

    def _failure(self, what: str, offset: int, error: OSError) -> DeviceError:
        return DeviceError(f"TARGET {self.path} cannot be {what} at byte {offset}: {error.strerror}")


def gone(path: str) -> str:
    """The words about a target that is not there any more."""
    return f"TARGET {path} is gone: it was unplugged or detached, and is opened again when it is back"


def reopened(target: Target) -> Target:
    """The target, or when its disk was gone, the same disk that is back at its path. DeviceError when there is none.

    One that is gone is closed at once, so that it can have the same number again.
    """
    target.require_named()
    if not target.is_gone:
        return target
    target.close()
    try:
        again = Target(target.path)
    except PydbtError:
        raise DeviceError(gone(target.path)) from None
    if not again.size_bytes:
        again.close()
        raise DeviceError(gone(target.path))
    match likeness(*target.opened_as, *again.opened_as):
        case Likeness.SAME:
            return again
        case Likeness.OTHER:
            wrong = "another disk has its path now: bring the right one back, or start the secondary again"
        case Likeness.UNKNOWN:
            wrong = (
                "it has no lasting name by which it is known again: if it is the right one, start the secondary again"
            )
    again.close()
    raise DeviceError(f"TARGET {target.path} was gone, and {wrong}")


def names_of(path: str) -> tuple[str, dict[str, str]]:
    """``Target.identity`` and ``Target.names`` of one that another process may hold. UsageError when it cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"TARGET {path} cannot be looked at: {error.strerror}") from None
    try:
        return _identity(descriptor), _names(descriptor)
    finally:
        os.close(descriptor)


def _identity(descriptor: int) -> str:
    status = os.fstat(descriptor)
    if stat.S_ISBLK(status.st_mode):
        return f"{NAMELESS}{lasting_name(_device_folder(status.st_rdev))}"
    return f"file:{lasting_file_name(descriptor)}"


def _names(descriptor: int) -> dict[str, str]:
    status = os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return {"file": _identity(descriptor)}
    return {kind: f"{NAMELESS}{name}" for kind, name in lasting_names(_device_folder(status.st_rdev)).items()}


def may_be_copy(recorded: str, identity: str) -> bool:
    """Whether the target may be a copy of an image file, made with its state directory. It may be replayed, but not served."""
    return recorded != identity and recorded.startswith("file:") and identity.startswith("file:")


def _keeps_times(descriptor: int) -> bool:
    """Whether the file's time of change is set when it is written, and never later, as a file server may do."""
    try:
        return libc.file_system_magic(f"/proc/self/fd/{descriptor}") in _LOCAL_FILE_SYSTEMS
    except OSError:
        return False


def _open(path: str) -> tuple[int, int | None]:
    try:
        # Looked at by its descriptor, and then opened through that: nobody can exchange it in between.
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return _open_found(path, found)
        finally:
            os.close(found)
    except FileNotFoundError:
        raise UsageError(f"TARGET {path} does not exist: to make an image file there, add --create SIZE") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"TARGET {path} is in use: unmount it, or stop the program that uses it") from None
        raise UsageError(f"TARGET {path} cannot be opened for writing: {error.strerror}") from None


def _open_found(path: str, found: int) -> tuple[int, int | None]:
    status = os.fstat(found)
    if not stat.S_ISBLK(status.st_mode) and not stat.S_ISREG(status.st_mode):
        raise UsageError(f"TARGET {path} is neither a block device nor an image file: name one of the two")
    if wrong := file_intruder(path, status) if stat.S_ISREG(status.st_mode) else way_intruder(path):
        raise UsageError(f"TARGET {path} is not safe from other users: {wrong}")
    place, flags = f"/proc/self/fd/{found}", os.O_RDWR | os.O_CLOEXEC
    if not stat.S_ISBLK(status.st_mode):
        return os.open(place, flags), None
    try:
        # O_EXCL on a block device: the kernel keeps mounts, swap and other exclusive users away while it is open.
        return os.open(place, flags | os.O_EXCL), None
    except OSError as error:
        claim = take_held(status.st_rdev) if error.errno == errno.EBUSY else None
        if claim is None:
            raise
    try:
        return os.open(place, flags), claim
    except OSError:
        os.close(claim)
        raise


def _lock(descriptor: int, path: str) -> None:
    if not try_write_lock(descriptor):
        os.close(descriptor)
        raise BusyError(f"TARGET {path} is in use by another secondary: stop it first")
    try_lock(descriptor)  # for an earlier version, which looks at this one


def _device_folder(number: int) -> Path:
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")

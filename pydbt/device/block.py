"""Direct reads of a block device, which bypass the page cache.

A buffered read of a device is not coherent with the file system mounted on it. So every read of the source is ``O_DIRECT``:
offset, length and memory are aligned to the device's logical block. A read that is not aligned goes through one aligned
buffer here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import threading

from pydbt.core.errors import BusyError, DeviceError, MachineError, MediumError
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice

_BLKGETSIZE64 = 0x80081272  # _IOR(0x12, 114, size_t), linux/fs.h
# An extent that is not aligned goes through a buffer of this size; a larger extent takes several reads.
_BOUNCE_BYTES = 1 * MIB
# What the kernel makes of single sectors that a disk cannot give (blk_errors in block/blk-core.c).
MEDIUM_FAULTS = (errno.EIO, errno.ENODATA, errno.EILSEQ, errno.EREMOTEIO)
_GONE = (errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ESHUTDOWN)


def aligned_buffer(size_bytes: int) -> memoryview:
    """Zeroed memory in pages of its own, for direct reads. It is freed with the last view of it."""
    return memoryview(mmap.mmap(-1, max(size_bytes, 1)))[:size_bytes]


def size_of_descriptor(descriptor: int) -> int:
    """The present size in bytes of the block device behind an open descriptor."""
    answer = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
    return int(struct.unpack("=Q", answer)[0])


class DirectReader:
    """A block device open for direct reads. Safe to use from several threads.

    The size is taken when it is opened; ``check`` compares it with the device's size now.
    """

    def __init__(self, device: BlockDevice) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._bounce: memoryview | None = None
        self._descriptor = _open(device)
        try:
            status = os.fstat(self._descriptor)
            if status.st_rdev != os.makedev(device.major, device.minor):
                raise DeviceError(f"{device.path} is another device than a moment ago: start again")
            self.size_bytes = size_of_descriptor(self._descriptor)
            self._disk_sequence = device.disk_sequence()
        except OSError as error:
            os.close(self._descriptor)
            raise DeviceError(f"{device.path} cannot be asked for its size: {error.strerror}") from error
        except DeviceError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> DirectReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the device. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read_extent(self, offset_bytes: int, length_bytes: int, into: memoryview) -> None:
        """Read exactly ``length_bytes`` at ``offset_bytes`` into the beginning of ``into``.

        An extent that was rounded up to a block may reach beyond the device; that part becomes zeroes. So does the part of a
        device beyond its last whole logical block, which the kernel does not let any program read or write. DeviceError when
        the device fails or has vanished; MediumError when others of its sectors may be read.
        """
        inside = min(length_bytes, self.size_bytes - offset_bytes)
        if offset_bytes < 0 or inside <= 0 or len(into) < length_bytes:
            raise ValueError(f"extent of {length_bytes} bytes at {offset_bytes} is outside the device or the buffer")
        grain = self.device.logical_block_bytes
        end = self.size_bytes - self.size_bytes % grain
        readable = max(0, min(offset_bytes + inside, end) - offset_bytes)
        if readable:
            # Kernels before 6.0 need memory that is aligned to the logical block as well (block: relax direct io memory
            # alignment); newer kernels need less.
            if offset_bytes % grain or readable % grain or _address(into) % grain:
                self._read_through_bounce(offset_bytes, into[:readable], grain)
            else:
                self._read_fully(offset_bytes, into[:readable])
        if readable < length_bytes:
            into[readable:length_bytes] = bytes(length_bytes - readable)

    def check(self) -> None:
        """DeviceError when the device has vanished, was attached again, or has another size than when it was opened."""
        path = self.device.path
        if self.device.has_gone(self._disk_sequence):
            raise DeviceError(f"{path} has vanished: the kernel removed the device while it was in use")
        try:
            size_bytes = size_of_descriptor(self._descriptor)
        except OSError as error:
            raise DeviceError(f"{path} has vanished: {error.strerror}") from error
        if size_bytes == 0 and self.size_bytes:
            raise DeviceError(f"{path} has vanished: its size is 0 now, and was {self.size_bytes} bytes")
        if size_bytes != self.size_bytes:
            raise DeviceError(
                f"{path} was resized from {self.size_bytes} to {size_bytes} bytes while it was replicated: "
                "begin again with a new state directory and a target of the new size"
            )

    def _read_through_bounce(self, offset_bytes: int, into: memoryview, grain: int) -> None:
        with self._lock:
            if self._bounce is None:
                self._bounce = aligned_buffer(_BOUNCE_BYTES)
            done = 0
            while done < len(into):
                position = offset_bytes + done
                first = position - position % grain
                end = min(first + _BOUNCE_BYTES, -(-(offset_bytes + len(into)) // grain) * grain)
                self._read_fully(first, self._bounce[: end - first])
                part = min(end - position, len(into) - done)
                into[done : done + part] = self._bounce[position - first : position - first + part]
                done += part

    def _read_fully(self, offset_bytes: int, into: memoryview) -> None:
        done = 0
        while done < len(into):
            try:
                count = os.preadv(self._descriptor, [into[done:]], offset_bytes + done)
            except OSError as error:
                self._raise_failure(error, offset_bytes + done)
            if count == 0:
                self.check()
                raise DeviceError(f"{self.device.path} ended at byte {offset_bytes + done}, before its own size")
            done += count

    def _raise_failure(self, error: OSError, offset_bytes: int) -> None:
        if error.errno in _GONE:
            raise DeviceError(f"{self.device.path} has vanished: {error.strerror}") from error
        self.check()
        kind = MediumError if error.errno in MEDIUM_FAULTS else DeviceError
        raise kind(f"{self.device.path} cannot be read at byte {offset_bytes}: {error.strerror}") from error


def _open(device: BlockDevice) -> int:
    try:
        return os.open(device.path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DeviceError(f"{device.path} has vanished: its device file is gone") from error
    except OSError as error:
        if error.errno in _GONE:
            raise DeviceError(f"{device.path} has vanished: {error.strerror}") from error
        if error.errno == errno.EBUSY:
            raise BusyError(f"{device.path} cannot be opened: another user holds it exclusively") from error
        if isinstance(error, PermissionError):
            raise MachineError(f"{device.path} may not be read: run this as root, with sudo") from error
        raise DeviceError(f"{device.path} cannot be opened for direct reads: {error.strerror}") from error


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))

"""A volume for reading alone: a block device by direct reads, or an image file. Nothing is locked, claimed or changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pydbt.core.errors import DeviceError, UsageError
from pydbt.device.block import DirectReader, aligned_buffer
from pydbt.device.sysfs import BlockDevice


class VolumeReader:
    """``mounted``: a file system is mounted on the device, and may change what is read meanwhile."""

    def __init__(self, path: Path) -> None:
        """UsageError when there is no block device and no file that may be read; DeviceError when the device fails."""
        self.mounted = False
        self._direct: DirectReader | None = None
        self._descriptor = -1
        try:
            kind = os.stat(path).st_mode
            if stat.S_ISREG(kind):
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                self.size_bytes = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}: name a block device or an image file") from None
        if not stat.S_ISREG(kind):
            device = BlockDevice.identify(path)
            self._direct = DirectReader(device)
            self.size_bytes, self.mounted = self._direct.size_bytes, bool(device.mounts())

    def __enter__(self) -> VolumeReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._direct is not None:
            self._direct.close()
        else:
            os.close(self._descriptor)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Exactly these bytes, which must be inside the volume. DeviceError when they cannot be read."""
        if self._direct is not None:
            into = aligned_buffer(length_bytes)
            self._direct.read_extent(offset_bytes, length_bytes, into)
            return bytes(into)
        try:
            found = os.pread(self._descriptor, length_bytes, offset_bytes)
        except OSError as error:
            raise DeviceError(f"the image cannot be read at byte {offset_bytes}: {error.strerror}") from error
        if len(found) < length_bytes:
            raise DeviceError(f"the image ended at byte {offset_bytes + len(found)}, before its own size")
        return found

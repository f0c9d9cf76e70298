"""A block device with blocks that cannot be written until it is mended: those of bad sectors, or of a full thin pool.

The first block of a write must be one of these, if any is: the kernel's loop driver calls a write done when it has written the
beginning of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from tests.lab.disks import loop_over
from tests.lab.patience import run

BLOCK_BYTES = 4096
# What tmpfs needs beside the content of its files.
_SPARE_BYTES = 8 << 20


class BadBlock:
    """A loop device over a file in memory, which has room for every block but some. ``number``: the first of these."""

    def __init__(self, path: Path, filler: Path, number: int) -> None:
        self.path, self.number, self._filler = path, number, filler

    @property
    def words(self) -> str:
        """The place, as a message names it."""
        return f"cannot be written at byte {self.number * BLOCK_BYTES}"

    def damage(self) -> None:
        """From here on it cannot be written."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(BLOCK_BYTES))
            except OSError as error:
                assert error.errno == errno.ENOSPC, error

    def mend(self) -> None:
        self._filler.unlink()

    def blocks(self, *numbers: int) -> list[bytes]:
        """The content of some blocks."""
        found = []
        with self.path.open("rb") as file:
            for number in numbers:
                file.seek(number * BLOCK_BYTES)
                found.append(file.read(BLOCK_BYTES))
        return found


@contextlib.contextmanager
def bad_block(folder: Path, size_bytes: int, number: int, count: int = 1) -> Iterator[BadBlock]:
    """A device of zeros; nothing of it is damaged yet. It is gone afterwards, with all that is in it."""
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size_bytes + _SPARE_BYTES}", "tmpfs", folder)
    try:
        image = folder / "disk.img"
        with image.open("wb") as file:
            os.truncate(file.fileno(), size_bytes)
            for block in set(range(size_bytes // BLOCK_BYTES)) - set(range(number, number + count)):
                os.pwrite(file.fileno(), bytes(BLOCK_BYTES), block * BLOCK_BYTES)
        with loop_over(image) as device:
            yield BadBlock(Path(device), folder / "filler", number)
    finally:
        run("umount", folder)

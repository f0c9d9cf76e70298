"""Units of storage: sectors of 512 bytes, blocks of the volume's own size, the way between them, and sizes for people."""

from __future__ import annotations

from dataclasses import dataclass

SECTOR_BYTES = 512
MIN_BLOCK_BYTES = 512
MAX_BLOCK_BYTES = 65536

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

Buffer = bytes | bytearray | memoryview

NUMBER_MAX = 1 << 64
"""No size, count or duration reaches it: they are 64 bits wide, on disks and in the kernel."""

# What a file system writes at least; a digest for every 4 KiB is 0.4 %.
MAX_COMPARED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Geometry:
    """The size of a volume and the block it is tracked in.

    ``size_bytes`` is a multiple of 512; ``block_bytes`` a power of two from 512 to 65,536.
    The last block may be shorter than the others.
    """

    size_bytes: int
    block_bytes: int = 4096

    def __post_init__(self) -> None:
        if self.size_bytes <= 0 or self.size_bytes % SECTOR_BYTES:
            raise ValueError(f"volume size {self.size_bytes} is not a positive multiple of {SECTOR_BYTES} bytes")
        power_of_two = self.block_bytes & (self.block_bytes - 1) == 0
        if not power_of_two or not MIN_BLOCK_BYTES <= self.block_bytes <= MAX_BLOCK_BYTES:
            raise ValueError(f"block size {self.block_bytes} is not a power of two from 512 to 65536 bytes")

    @property
    def size_sectors(self) -> int:
        return self.size_bytes // SECTOR_BYTES

    @property
    def block_sectors(self) -> int:
        return self.block_bytes // SECTOR_BYTES

    @property
    def block_count(self) -> int:
        """Blocks in the volume, the last one possibly short (ceiling)."""
        return -(-self.size_bytes // self.block_bytes)

    @property
    def compared(self) -> Geometry:
        """The same volume in the smallest unit that is compared: a block, but never more than 4 KiB.

        A large block in which one page differs is not sent whole.
        """
        return Geometry(self.size_bytes, min(self.block_bytes, MAX_COMPARED_BYTES))

    def bytes_of_blocks(self, first_block: int, block_count: int) -> tuple[int, int]:
        """Byte offset and length of a run of blocks, cut at the end of the volume."""
        offset = first_block * self.block_bytes
        return offset, min(block_count * self.block_bytes, self.size_bytes - offset)


def is_figure(number: float) -> bool:
    """Whether a number can be a size, count or duration: finite, and of at most 64 bits."""
    return -NUMBER_MAX < number < NUMBER_MAX  # false for NaN too; and math.isfinite fails for a large int


def format_bytes(size_bytes: float | None) -> str:
    """A size for people: ``512 B``, ``1.5 KiB``, ``20 GiB``; ``unknown`` for None, and what is none. Never raises."""
    if size_bytes is None or not is_figure(size_bytes):
        return "unknown"
    if size_bytes < KIB:
        return f"{size_bytes:.0f} B"
    scale = ((KIB, "KiB"), (MIB, "MiB"), (GIB, "GiB"), (1024 * GIB, "TiB"))
    unit, name = next((step for step in scale if size_bytes < step[0] * 1000), scale[-1])
    value = size_bytes / unit
    return f"{value:.1f} {name}" if value < 100 else f"{value:.0f} {name}"


def format_seconds(seconds: float | None) -> str:
    """A duration for people: ``0.3 s``, ``45 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``; ``unknown`` for None, and what is
    none."""
    if seconds is None or not is_figure(seconds):
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def exact_bytes(size_bytes: int) -> str:
    """A size for people, without rounding: ``64 KiB``, ``10 TiB``, ``5000 bytes``."""
    for power, name in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size_bytes and size_bytes % KIB**power == 0:
            return f"{size_bytes // KIB**power} {name}"
    return f"{size_bytes} bytes"

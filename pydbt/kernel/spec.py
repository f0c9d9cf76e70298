"""The arguments of Capture.attach(): the volume to capture, and the sizes of its rings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydbt.core.errors import UsageError
from pydbt.core.units import MAX_BLOCK_BYTES, MIB, MIN_BLOCK_BYTES, SECTOR_BYTES
from pydbt.kernel.record import GROUP_BLOCKS, GROUP_WORDS, RECORD_BYTES, WORD_BITS

PAGE_BYTES = 4096
LOOP_MAJOR = 7  # include/uapi/linux/major.h
MAX_RING_BYTES = 1 << 30  # positions in the kernel have 64 bits; sizes and offsets stay far below 2^32
MAX_BITMAP_WORDS = 1 << 31  # an array map's index is 32 bits, and there are two bitmaps


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A range of sectors of one disk, tracked in blocks. ``disk_*`` is the gendisk, never a partition."""

    disk_major: int
    disk_minor: int
    start_sector: int
    size_sectors: int
    block_bytes: int = 4096
    bio_based: bool = False

    def __post_init__(self) -> None:
        if self.size_sectors <= 0 or self.start_sector < 0:
            raise UsageError(f"a volume of {self.size_sectors} sectors at {self.start_sector} cannot be captured")
        power_of_two = self.block_bytes & (self.block_bytes - 1) == 0
        if not power_of_two or not MIN_BLOCK_BYTES <= self.block_bytes <= MAX_BLOCK_BYTES:
            raise UsageError(f"block size {self.block_bytes} is not a power of two from 512 to 65536 bytes")
        if self.map_words > MAX_BITMAP_WORDS:
            raise UsageError("the volume has too many blocks for a bitmap in the kernel: choose a larger block size")

    @property
    def block_sectors(self) -> int:
        return self.block_bytes // SECTOR_BYTES

    @property
    def block_count(self) -> int:
        """Blocks, the last one possibly short (ceiling)."""
        return -(-self.size_sectors // self.block_sectors)

    @property
    def level1_words(self) -> int:
        """64-bit words with one bit per block (ceiling)."""
        return -(-self.block_count // WORD_BITS)

    @property
    def coarse_words(self) -> int:
        """64-bit words with one bit per whole group of 32,768 blocks (ceiling)."""
        return -(-(self.block_count // GROUP_BLOCKS) // WORD_BITS)

    @property
    def map_words(self) -> int:
        """Words of one bitmap, both levels, rounded up to pages."""
        return -(-(self.level1_words + self.coarse_words) // GROUP_WORDS) * GROUP_WORDS


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """Sizes of the rings: powers of two from a page up. ``data_ring_bytes`` 0 builds without code for payload."""

    header_ring_bytes: int = 16 * MIB
    data_ring_bytes: int = 64 * MIB
    payload: bool = True

    def __post_init__(self) -> None:
        _check_ring("header", self.header_ring_bytes)
        if self.data_ring_bytes:
            _check_ring("data", self.data_ring_bytes)
        assert PAGE_BYTES % RECORD_BYTES == 0

    @property
    def with_payload(self) -> bool:
        return self.payload and self.data_ring_bytes > 0


def _check_ring(name: str, size_bytes: int) -> None:
    if size_bytes & (size_bytes - 1) or not PAGE_BYTES <= size_bytes <= MAX_RING_BYTES:
        raise UsageError(f"the {name} ring's size {size_bytes} is not a power of two from 4096 to 2^30 bytes")


def to_json(value: VolumeSpec | CaptureOptions) -> dict[str, Any]:
    """Plain values for the loader and for the meta map."""
    return asdict(value)

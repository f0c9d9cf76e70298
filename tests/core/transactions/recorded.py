"""Volumes that a kernel wrote, recorded: the sectors that are not zero, compressed.

Each was made by ``mkfs``, mounted, written with some fsyncs, and copied before it was unmounted. ``record`` makes such a file.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[2] / "samples/transactions"
_SECTOR = struct.Struct("<I512s")


def record(image: Path, sample: Path) -> None:
    """Write the sample of an image. It begins with the number of the image's sectors."""
    content = image.read_bytes()
    sectors = (content[at : at + 512] for at in range(0, len(content), 512))
    kept = b"".join(_SECTOR.pack(index, sector) for index, sector in enumerate(sectors) if any(sector))
    sample.write_bytes(zlib.compress(struct.pack("<I", len(content) // 512) + kept, 9))


class Recorded:
    """A recorded volume. ``read`` gives its bytes."""

    def __init__(self, name: str) -> None:
        content = zlib.decompress((SAMPLES / f"{name}.sectors").read_bytes())
        self.size_bytes = struct.unpack_from("<I", content)[0] * 512
        self._sectors = dict(_SECTOR.iter_unpack(content[4:]))

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        first, end = offset_bytes // 512, -(-(offset_bytes + length_bytes) // 512)
        whole = b"".join(self._sectors.get(index, bytes(512)) for index in range(first, end))
        return whole[offset_bytes - first * 512 :][:length_bytes]

    def write_image(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(self.size_bytes)
            for index, sector in self._sectors.items():
                file.seek(index * 512)
                file.write(sector)

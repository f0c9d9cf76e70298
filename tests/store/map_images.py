"""Dirty maps and their images in one piece, for the tests of what keeps them."""

from __future__ import annotations

from uuid import UUID

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.units import Geometry
from pydbt.store.map_image import MapHeader, map_parts

VOLUME = UUID("00112233445566778899aabbccddeeff")


def header_of(blocks: int, block_bytes: int = 4096) -> MapHeader:
    return MapHeader(VOLUME, Geometry(blocks * block_bytes, block_bytes), epoch=(1 << 64) - 1, sequence=1 << 63)


def map_of(block_count: int, blocks: list[int]) -> DirtyMap:
    dirty = DirtyMap(block_count)
    dirty.set_blocks(np.array(blocks, dtype=np.int64))
    return dirty


def encode_map(header: MapHeader, dirty: DirtyMap) -> bytes:
    return b"".join(map_parts(header, dirty))


def contents(dirty: DirtyMap) -> list[tuple[int, bytes]]:
    return list(dirty.chunks())

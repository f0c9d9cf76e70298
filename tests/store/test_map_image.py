"""A dirty map in one piece comes back exactly, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, CHUNK_BYTES, DirtyMap
from pydbt.core.units import GIB, MIB, Geometry
from pydbt.store.map_image import MapHeader, decode_map
from tests.store.map_images import VOLUME, contents, encode_map, header_of, map_of


@settings(max_examples=60, deadline=None)
@given(data=st.data(), block_count=st.integers(1, 5 * CHUNK_BLOCKS), block_bytes=st.sampled_from([512, 4096, 65536]))
def test_every_map_comes_back_as_it_was(data: st.DataObject, block_count: int, block_bytes: int) -> None:
    blocks = data.draw(st.lists(st.integers(0, block_count - 1), max_size=30))
    header, dirty = header_of(block_count, block_bytes), map_of(block_count, blocks)
    found_header, found = decode_map(encode_map(header, dirty))
    assert found_header == header
    assert found.block_count == block_count and contents(found) == contents(dirty)


def test_a_map_of_zeroes_takes_no_room_and_a_dense_one_a_bit_per_block() -> None:
    tebibyte = 1024 * GIB // 4096
    assert len(encode_map(header_of(tebibyte), DirtyMap(tebibyte))) < 200
    sparse = map_of(tebibyte, [0, tebibyte - 1])
    assert len(encode_map(header_of(tebibyte), sparse)) < 200 + 2 * (CHUNK_BYTES + 4)
    full = DirtyMap(16 * CHUNK_BLOCKS)
    full.set_range(0, 16 * CHUNK_BLOCKS)
    assert len(encode_map(header_of(16 * CHUNK_BLOCKS), full)) < 16 * CHUNK_BYTES + 300


@settings(max_examples=200, deadline=None)
@given(rubbish=st.binary(max_size=400))
def test_rubbish_is_one_error(rubbish: bytes) -> None:
    with pytest.raises(ValueError):
        decode_map(rubbish)
    with pytest.raises(ValueError):
        decode_map(b"PDBTMAP\0\1\0\0\0" + rubbish)


def test_every_truncated_and_every_changed_byte_is_noticed() -> None:
    whole = encode_map(header_of(100), map_of(100, [5]))
    for end in [*range(0, 130), *range(130, len(whole), 97), len(whole) - 1]:
        with pytest.raises(ValueError):
            decode_map(whole[:end])
    for place in [*range(0, 130), *range(130, len(whole), 97), *range(len(whole) - 16, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 0x40
        with pytest.raises(ValueError):
            decode_map(bytes(changed))
    with pytest.raises(ValueError):
        decode_map(whole + b"x")


def test_a_newer_version_is_named() -> None:
    whole = bytearray(encode_map(header_of(100), map_of(100, [5])))
    whole[8] = 2
    with pytest.raises(ValueError, match=r"version is 2.*versions up to 1"):
        decode_map(bytes(whole))


def test_the_layout_is_the_documented_one() -> None:
    """Numbers and places as in the table of the module, checked by hand once and for all."""
    whole = encode_map(MapHeader(VOLUME, Geometry(200 * MIB, 4096), epoch=2, sequence=3), map_of(51200, [32768 + 9]))
    assert whole[:8] == b"PDBTMAP\0"
    assert whole[8:16] == (1).to_bytes(4, "little") + (96).to_bytes(4, "little")
    assert whole[16:32] == VOLUME.bytes
    assert int.from_bytes(whole[32:40], "little") == 200 * MIB
    assert int.from_bytes(whole[40:44], "little") == 4096
    assert int.from_bytes(whole[44:48], "little") == 32768
    assert int.from_bytes(whole[48:56], "little") == 2 and int.from_bytes(whole[56:64], "little") == 3
    assert int.from_bytes(whole[64:68], "little") == 1 and whole[68:96] == bytes(28)
    assert int.from_bytes(whole[96:100], "little") == 1 and whole[100:104] == bytes(4)
    assert whole[104 : 104 + 4096] == b"\0\2" + bytes(4094)
    assert len(whole) == 104 + 4096 + 16

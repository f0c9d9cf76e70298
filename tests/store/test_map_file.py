"""A dirty map comes back from its file exactly, or the file is refused by name; earlier versions are read."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, CHUNK_BYTES, DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.units import GIB, MIB, Geometry
from pydbt.store.map_file import CHANGES_OFFSET, decode, load_map, map_digest, save_map
from pydbt.store.map_image import MapHeader
from pydbt.store.map_keeper import MapKeeper
from tests.store.map_images import VOLUME, contents, encode_map, header_of, map_of


def loaded_from(path: Path) -> list[tuple[int, bytes]]:
    loaded = load_map(path)
    assert loaded is not None
    return contents(loaded[1])


def test_a_file_that_is_not_there_is_no_map_and_no_error(tmp_path: Path) -> None:
    assert load_map(tmp_path / "dirty.map") is None and map_digest(tmp_path / "dirty.map") is None


def test_saving_replaces_the_older_map_and_leaves_nothing_else(tmp_path: Path) -> None:
    path, header = tmp_path / "dirty.map", header_of(100)
    save_map(path, header, map_of(100, [1]))
    save_map(path, header, map_of(100, [2, 3]))
    loaded = load_map(path)
    assert loaded is not None and loaded[0] == header
    assert contents(loaded[1]) == contents(map_of(100, [2, 3]))
    assert os.listdir(tmp_path) == ["dirty.map"] and path.stat().st_mode & 0o777 == 0o600


def test_a_map_of_zeroes_takes_no_room_and_a_dense_one_a_bit_per_block(tmp_path: Path) -> None:
    path, tebibyte = tmp_path / "dirty.map", 1024 * GIB // 4096
    save_map(path, header_of(tebibyte), DirtyMap(tebibyte))
    assert path.stat().st_size == 3 * 4096, "header, mark, and a change that names no small map"
    save_map(path, header_of(tebibyte), map_of(tebibyte, [0, tebibyte - 1]))
    assert path.stat().st_size == (3 + 2) * 4096
    full = DirtyMap(16 * CHUNK_BLOCKS)
    full.set_range(0, 16 * CHUNK_BLOCKS)
    save_map(path, header_of(16 * CHUNK_BLOCKS), full)
    assert path.stat().st_size == (3 + 16) * CHUNK_BYTES


def test_a_map_of_version_1_is_read_and_identified_as_before(tmp_path: Path) -> None:
    path, header = tmp_path / "dirty.map", header_of(5 * CHUNK_BLOCKS)
    whole = encode_map(header, map_of(5 * CHUNK_BLOCKS, [1, 4 * CHUNK_BLOCKS]))
    path.write_bytes(whole)
    loaded = load_map(path)
    assert loaded is not None and loaded[0] == header and loaded[1].extents().blocks().tolist() == [1, 4 * CHUNK_BLOCKS]
    assert map_digest(path) == whole[-16:].hex(), "the marker of a clean stop of an earlier version names this digest"
    MapKeeper(path).keep(header, loaded[1])
    assert path.read_bytes()[8] == 2 and loaded_from(path) == contents(loaded[1])


def changed_twice(path: Path) -> tuple[bytes, list[list[tuple[int, bytes]]]]:
    """A file with two changes behind the first, and the maps after each of the three."""
    count, keeper, maps = 3 * CHUNK_BLOCKS, MapKeeper(path), []
    for blocks in ([5], [5, 2 * CHUNK_BLOCKS], [7]):
        keeper.keep(header_of(count), map_of(count, blocks))
        maps.append(contents(map_of(count, blocks)))
    return path.read_bytes(), maps


def test_every_truncated_and_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Or it changes nothing: of the mark a damaged one is as good as none, since every change is whole."""
    path = tmp_path / "dirty.map"
    whole, maps = changed_twice(path)
    assert len(whole) == (3 + 1 + 2 + 2) * 4096
    for end in [*range(0, 130), *range(130, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(StateError, match=str(path)):
            load_map(path)
    for place in [*range(0, 130), *range(130, len(whole), 97), *range(len(whole) - 16, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 0x40
        path.write_bytes(changed)
        if 4096 <= place < CHANGES_OFFSET:
            assert loaded_from(path) == maps[-1]
            continue
        with pytest.raises(StateError, match=str(path)):
            load_map(path)


def test_bytes_behind_the_last_whole_change_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "dirty.map"
    whole, maps = changed_twice(path)
    path.write_bytes(whole + whole[-8192:])
    assert loaded_from(path) == maps[-1], "a change that is there twice is no change behind itself"
    path.write_bytes(whole + b"x" * 9000)
    assert loaded_from(path) == maps[-1] and map_digest(path) == decode(whole).digest.hex()


def test_a_copy_from_an_earlier_time_has_another_digest_even_with_the_same_blocks(tmp_path: Path) -> None:
    path, count, keeper = tmp_path / "dirty.map", 3 * CHUNK_BLOCKS, MapKeeper(tmp_path / "dirty.map")
    seen = []
    for blocks in ([5], [6], [5], [6]):
        keeper.keep(header_of(count), map_of(count, blocks))
        seen.append(map_digest(path))
    assert len(set(seen)) == 4 and None not in seen


@settings(max_examples=200, deadline=None)
@given(rubbish=st.binary(max_size=400), room=st.integers(0, 2))
def test_rubbish_is_one_error(rubbish: bytes, room: int) -> None:
    for start in (b"", b"PDBTMAP\0\2\0\0\0", b"PDBTMAP\0\1\0\0\0"):
        with pytest.raises(ValueError):
            decode(start + rubbish + bytes(room * 8192))


@settings(max_examples=100, deadline=None)
@given(rubbish=st.binary(min_size=1, max_size=200), place=st.integers(0, 8 * 4096 - 1))
def test_rubbish_anywhere_in_a_file_is_one_error_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes, place: int
) -> None:
    whole, maps = changed_twice(tmp_path_factory.mktemp("map") / "dirty.map")
    torn = bytearray(whole)
    torn[place : place + len(rubbish)] = rubbish
    try:
        found = decode(bytes(torn))
    except ValueError:
        return
    assert contents(found.dirty) in maps, "never a map that was never written"


def test_a_newer_version_is_named(tmp_path: Path) -> None:
    save_map(tmp_path / "dirty.map", header_of(100), map_of(100, [5]))
    whole = bytearray((tmp_path / "dirty.map").read_bytes())
    whole[8] = 3
    with pytest.raises(ValueError, match=r"version is 3.*versions up to 2"):
        decode(bytes(whole))


def test_a_program_that_knows_version_1_alone_is_told_of_version_2(tmp_path: Path) -> None:
    """Magic and version lie where they lay, so that it names the version and the way back."""
    save_map(tmp_path / "dirty.map", header_of(100), map_of(100, [5]))
    whole = (tmp_path / "dirty.map").read_bytes()
    assert whole[:8] == b"PDBTMAP\0" and whole[8:12] == (2).to_bytes(4, "little") and len(whole) > 112


def test_a_map_for_another_volume_size_is_not_saved() -> None:
    with pytest.raises(ValueError):
        save_map("/nonexistent", header_of(100), DirtyMap(101))


def test_a_full_disk_keeps_the_older_map_and_is_one_sentence(tmp_path: Path) -> None:
    path, blocks = tmp_path / "dirty.map", 64 * CHUNK_BLOCKS
    keeper = MapKeeper(path)
    keeper.keep(header_of(blocks), map_of(blocks, [7]))
    full = DirtyMap(blocks)
    full.set_range(0, blocks)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, limits[1]))
    try:
        for _ in ("a change", "a whole map"):
            with pytest.raises(StateError, match=f"{path} cannot be written: ") as caught:
                keeper.keep(header_of(blocks), full)
            assert "\n" not in str(caught.value)
            assert loaded_from(path) == contents(map_of(blocks, [7]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert os.listdir(tmp_path) == ["dirty.map"]
    keeper.keep(header_of(blocks), full)
    assert loaded_from(path) == contents(full)


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    """Numbers and places as in the tables of the module, checked by hand once and for all."""
    path, header = tmp_path / "dirty.map", MapHeader(VOLUME, Geometry(200 * MIB, 4096), epoch=2, sequence=3)
    save_map(path, header, map_of(51200, [32768 + 9]))
    whole = path.read_bytes()
    assert whole[:16] == b"PDBTMAP\0" + (2).to_bytes(4, "little") + (72).to_bytes(4, "little")
    assert whole[16:32] == VOLUME.bytes
    assert int.from_bytes(whole[32:40], "little") == 200 * MIB
    assert int.from_bytes(whole[40:44], "little") == 4096 and int.from_bytes(whole[44:48], "little") == 32768
    assert int.from_bytes(whole[48:56], "little") == 2
    assert whole[56:72] == xxhash.xxh3_128_digest(whole[:56]) and whole[72:4096] == bytes(4024)
    mark, change = whole[4096:8192], whole[8192:12288]
    assert mark[:16] == b"PDBTMRK\0" + bytes(8) and mark[16:32] == change[48:64]
    assert mark[32:48] == xxhash.xxh3_128_digest(mark[:32]) and mark[48:] == bytes(4048)
    assert change[:16] == b"PDBTCHG\0" + bytes(8) and int.from_bytes(change[16:24], "little") == 3
    assert change[24:32] == (1).to_bytes(4, "little") + bytes(4) and change[32:48] == whole[56:72]
    assert change[64:72] == (1).to_bytes(4, "little") + (1).to_bytes(4, "little")
    bits = b"\0\2" + bytes(4094)
    assert change[72:88] == xxhash.xxh3_128_digest(bits) and change[88:] == bytes(4096 - 88)
    assert change[48:64] == xxhash.xxh3_128_digest(change[:48] + change[64:88])
    assert whole[12288:] == bits

"""A map is kept by writing what has changed, and after a crash at any moment the file is one of the two last maps, whole."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, CHUNK_BYTES, DirtyMap
from pydbt.core.errors import StateError
from pydbt.core.units import GIB, MIB
from pydbt.posix import atomic
from pydbt.posix import files as posix_files
from pydbt.store import map_file, map_keeper
from pydbt.store.map_file import _decode_change, load_map
from pydbt.store.map_keeper import SMALLEST_LIMIT_BYTES, MapKeeper
from tests.simulation.cluster.disk import Killed, Machine
from tests.simulation.cluster.files import Files, SimOs, SimPath, read_simulated
from tests.store.map_images import contents, header_of, map_of

COUNT = 4 * CHUNK_BLOCKS
TEBIBYTE = 1024 * GIB // 4096


def loaded_from(path: Path) -> list[tuple[int, bytes]] | None:
    loaded = load_map(path)
    return None if loaded is None else contents(loaded[1])


def test_nothing_is_written_when_nothing_has_changed(tmp_path: Path) -> None:
    """¶89: also when bits were set and cleared again meanwhile. The position alone is no change either."""
    path, keeper, dirty = tmp_path / "dirty.map", MapKeeper(tmp_path / "dirty.map"), map_of(COUNT, [5, CHUNK_BLOCKS])
    keeper.keep(header_of(COUNT), dirty.copy())
    before = path.stat()
    dirty.set_range(9, 3)
    dirty.clear_range(9, 3)
    with patch.object(map_keeper.os, "fdatasync", side_effect=AssertionError("synced")):
        assert keeper.keep(header_of(COUNT), dirty.copy()) == 0
        assert keeper.keep(header_of(COUNT), dirty.copy()) == 0
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


def test_one_changed_block_of_a_dirty_tebibyte_writes_one_small_map(tmp_path: Path) -> None:
    path, keeper, dirty = tmp_path / "dirty.map", MapKeeper(tmp_path / "dirty.map"), DirtyMap(TEBIBYTE)
    dirty.set_range(0, TEBIBYTE)
    assert 32 * MIB < keeper.keep(header_of(TEBIBYTE), dirty.copy()) < 33 * MIB, "the first write of a run"
    size = path.stat().st_size
    dirty.clear_blocks(np.array([TEBIBYTE // 2]))
    written = keeper.keep(header_of(TEBIBYTE), dirty.copy())
    assert path.stat().st_size - size == 4096 + CHUNK_BYTES and written < 4096 + CHUNK_BYTES + 100
    loaded = load_map(path)
    assert loaded is not None and loaded[1].count() == TEBIBYTE - 1 and not loaded[1].contains(TEBIBYTE // 2)


def test_a_small_map_that_became_zeroes_takes_a_row_and_no_bits(tmp_path: Path) -> None:
    path, keeper = tmp_path / "dirty.map", MapKeeper(tmp_path / "dirty.map")
    keeper.keep(header_of(COUNT), map_of(COUNT, [5, CHUNK_BLOCKS]))
    size = path.stat().st_size
    keeper.keep(header_of(COUNT), map_of(COUNT, [5]))
    assert path.stat().st_size - size == 4096 and loaded_from(path) == contents(map_of(COUNT, [5]))


def test_changes_do_not_grow_beyond_the_map_or_a_mebibyte(tmp_path: Path) -> None:
    path, keeper, written = tmp_path / "dirty.map", MapKeeper(tmp_path / "dirty.map"), 0
    inodes = set()
    for turn in range(300):
        dirty = map_of(COUNT, [turn, CHUNK_BLOCKS + turn])
        written += keeper.keep(header_of(COUNT), dirty)
        inodes.add(path.stat().st_ino)
        assert path.stat().st_size <= SMALLEST_LIMIT_BYTES + 8 * CHUNK_BYTES
    assert len(inodes) > 1 and loaded_from(path) == contents(dirty)
    assert written < 300 * 3 * CHUNK_BYTES + 5 * SMALLEST_LIMIT_BYTES, "the whole maps cost less than the changes"


@pytest.mark.parametrize("meddle", ["moved", "replaced", "longer", "linked"])
def test_a_file_that_someone_touched_is_made_anew(tmp_path: Path, meddle: str) -> None:
    path, keeper = tmp_path / "dirty.map", MapKeeper(tmp_path / "dirty.map")
    keeper.keep(header_of(COUNT), map_of(COUNT, [1]))
    older = path.read_bytes()
    keeper.keep(header_of(COUNT), map_of(COUNT, [2]))
    match meddle:
        case "moved":
            path.rename(tmp_path / "away")
        case "replaced":
            (tmp_path / "other").write_bytes(older)
            os.replace(tmp_path / "other", path)
        case "longer":
            path.write_bytes(path.read_bytes() + b"x")
        case "linked":
            path.rename(tmp_path / "away")
            path.symlink_to(tmp_path / "away")
    assert keeper.keep(header_of(COUNT), map_of(COUNT, [2])) > 0, "the map did not change, and is not there"
    assert not path.is_symlink()
    assert loaded_from(path) == contents(map_of(COUNT, [2]))


def test_another_run_s_first_map_replaces_the_file(tmp_path: Path) -> None:
    """Its epoch is another one, and of what it read only its own write tells that it is durable."""
    path = tmp_path / "dirty.map"
    MapKeeper(path).keep(header_of(COUNT), map_of(COUNT, [1]))
    before = path.stat().st_ino
    assert MapKeeper(path).keep(header_of(COUNT), map_of(COUNT, [1])) > 0 and path.stat().st_ino != before


def test_a_map_that_is_removed_is_gone_and_written_anew(tmp_path: Path) -> None:
    path, keeper = tmp_path / "staged.map", MapKeeper(tmp_path / "staged.map")
    keeper.keep(header_of(COUNT), map_of(COUNT, [1]))
    keeper.remove()
    assert not path.exists()
    assert keeper.keep(header_of(COUNT), map_of(COUNT, [1])) and loaded_from(path) == contents(map_of(COUNT, [1]))


# --- crashes ----------------------------------------------------------------------------------------------
class World:
    """A state directory on a disk that loses what was not synced, sector by sector, and a process that dies at any write."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.machine = Machine("primary")
        self.files = Files(self.machine)
        self.path = SimPath("/state/dirty.map", self.files)
        self.os = SimOs(self.rng)
        self.keeper = MapKeeper(self.path)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for module in (posix_files, atomic, map_keeper):
                stack.enter_context(patch.object(module, "os", self.os))
            stack.enter_context(patch.object(atomic, "Path", SimPath))
            stack.enter_context(patch.object(map_file, "read_own", read_simulated))
            yield

    def crash(self, power: bool) -> None:
        self.machine.live()
        if power:
            self.files.crash(self.rng)
        self.keeper = MapKeeper(self.path)


class Step:
    """One write: its map, and what becomes of it. ``fuse``: it dies at this touch of the world; None: it lives."""

    def __init__(self, chunks: dict[int, int], fuse: int | None, power: bool, trouble: bool) -> None:
        self.blocks = [index * CHUNK_BLOCKS + place for index, place in chunks.items()]
        self.fuse, self.power, self.trouble = fuse, power, trouble


STEPS = st.builds(
    Step,
    st.dictionaries(st.integers(0, 3), st.integers(0, 6), max_size=4),
    st.none() | st.none() | st.integers(0, 12),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)


def play(seed: int, steps: list[Step]) -> None:
    """AssertionError when the file is ever anything but one of the two last maps."""
    world = World(seed)
    possible: list[object] = [None]  # what the file may be; the last one, if its write ended well
    with world.installed():
        for step in steps:
            dirty = map_of(COUNT, step.blocks)
            world.machine.fuse, world.machine.trouble = step.fuse, step.trouble
            crashed = False
            try:
                world.keeper.keep(header_of(COUNT), dirty)
                possible = [contents(dirty)]
            except StateError:
                possible.append(contents(dirty))
            except Killed:
                possible.append(contents(dirty))
                crashed = True
            world.machine.trouble = False
            if crashed or step.power:
                world.crash(step.power)
            try:
                found = loaded_from(world.path)  # type: ignore[arg-type]
            except StateError as error:
                raise AssertionError(f"no whole map is left: {error}") from error
            assert found in possible, "the file is no map that was written last"
            # A process that was killed leaves what was not synced to a later power loss.
            possible = [found] if crashed and step.power else possible


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 16), steps=st.lists(STEPS, min_size=1, max_size=7))
@example(
    seed=0, steps=[Step({0: 1}, None, False, False), Step({0: 2}, 3, True, False), Step({0: 3}, None, True, False)]
)
def test_after_a_crash_at_any_write_the_file_is_one_of_the_two_last_maps(seed: int, steps: list[Step]) -> None:
    play(seed, steps)


def worlds_that_notice(count: int = 60) -> int:
    """Worlds of this many in which a power loss between the writes is noticed."""
    noticed = 0
    for seed in range(count):
        rng = random.Random(seed)
        steps = [Step({0: turn, 1: turn, 2: turn}, None, rng.random() < 0.5, False) for turn in range(1, 6)]
        try:
            play(seed, steps)
        except AssertionError:
            noticed += 1
    return noticed


def noticed_when_cut_off(seed: int) -> bool:
    """Whether a power loss before the sync of a change is noticed."""
    try:
        play(seed, [Step({0: 1}, None, False, False), Step({0: 2, 1: 2, 2: 2}, 1, True, False)])
    except AssertionError:
        return True
    return False


def _spoilt(data: bytes, offset: int, number: int, before: bytes) -> object:
    change = _decode_change(data, offset, number, before)
    if change is None and len(data) > offset:
        raise ValueError("its last change is not whole")
    return change


def test_the_crashes_tell_a_right_writer_from_wrong_ones() -> None:
    assert not worlds_that_notice() and not any(noticed_when_cut_off(seed) for seed in range(80))
    with patch.object(SimOs, "fdatasync", lambda self, descriptor: None):
        assert worlds_that_notice(), "one that does not sync its changes"
    with patch.object(map_file, "_decode_mark", lambda data: 1 << 40):
        assert worlds_that_notice(), "a mark that is ahead of the changes"
    with patch.object(map_file, "_decode_change", _spoilt):
        assert any(noticed_when_cut_off(seed) for seed in range(80)), (
            "a write that was cut off spoils the map before it"
        )
    with patch.object(map_file.xxhash, "xxh3_128_digest", lambda data: bytes(16)):
        assert worlds_that_notice() == 0, "without torn writes no checksum is needed"
        assert any(noticed_when_cut_off(seed) for seed in range(80)), "one that takes a torn change for a whole one"

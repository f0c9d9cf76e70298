"""The kept data of blocks that the target does not take comes back as it was, or is refused by the file's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from pydbt.core.errors import StateError
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES, BadBlocks
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.store.bad_blocks_file import BAD_BLOCKS_NAME, forget_bad_blocks, load_bad_blocks, save_bad_blocks

SIZE = 1 << 20
RECORD = ReplicaRecord("ab" * 16, "file:1", 4096, incarnation=7)
SAYS = replace(RECORD, incarnation=8, kept_aside=True)


def saved(folder: Path) -> BadBlocks:
    blocks = BadBlocks(SIZE)
    blocks.add(9, b"n" * BAD_BLOCK_BYTES)
    blocks.add(2, None)
    blocks.lay(17, 2, 0, memoryview(b"t" * 1024))
    save_bad_blocks(folder, blocks, RECORD.incarnation)
    return blocks


def test_kept_blocks_come_back_as_they_were(tmp_path: Path) -> None:
    blocks = saved(tmp_path)
    again = load_bad_blocks(tmp_path, SIZE, SAYS)
    assert again.kept == blocks.kept and again.to_try() == [2, 9] and not again.unsaved
    again.remove([2, 9])
    save_bad_blocks(tmp_path, again, 8)
    assert not len(load_bad_blocks(tmp_path, SIZE, SAYS)), "the file stays, and says that there are none"


def test_no_file_is_written_without_kept_blocks(tmp_path: Path) -> None:
    save_bad_blocks(tmp_path, BadBlocks(SIZE), 8)
    assert not list(tmp_path.iterdir()) and not len(load_bad_blocks(tmp_path, SIZE, RECORD))


def test_a_file_that_must_be_there_and_is_gone_is_missed(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"{BAD_BLOCKS_NAME} is gone"):
        load_bad_blocks(tmp_path, SIZE, SAYS)


def test_any_damage_is_refused_and_names_the_file(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / BAD_BLOCKS_NAME
    whole = path.read_bytes()
    for index in (*range(0, 64), 5000, len(whole) - 1):
        for data in (whole[:index], whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :]):
            path.write_bytes(data)
            with pytest.raises(StateError, match=BAD_BLOCKS_NAME):
                load_bad_blocks(tmp_path, SIZE, RECORD)
    path.write_bytes(whole)
    with pytest.raises(StateError, match="behind the end of TARGET"):
        load_bad_blocks(tmp_path, 8 * BAD_BLOCK_BYTES, RECORD)


def rewritten(path: Path, change: object) -> None:
    """With another content, and a digest that is right."""
    body = bytearray(path.read_bytes()[:-16])
    change(body)
    path.write_bytes(bytes(body) + xxhash.xxh3_128_digest(body))


def test_a_newer_version_and_a_wrong_length_are_told(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / BAD_BLOCKS_NAME
    rewritten(path, lambda body: body.__setitem__(12, 3))
    with pytest.raises(StateError, match="its length is wrong"):
        load_bad_blocks(tmp_path, SIZE, RECORD)
    rewritten(path, lambda body: body.__setitem__(8, 2))
    with pytest.raises(StateError, match="newer program: its version is 2"):
        load_bad_blocks(tmp_path, SIZE, RECORD)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / BAD_BLOCKS_NAME).mkdir()
    with pytest.raises(StateError, match="cannot be read"):
        load_bad_blocks(tmp_path, SIZE, RECORD)


def test_a_file_that_was_left_behind_does_not_count(tmp_path: Path) -> None:
    """An earlier version of the program knew nothing of it, and wrote to the target since; or it is another replica's."""
    saved(tmp_path)
    assert len(load_bad_blocks(tmp_path, SIZE, RECORD)) == 2, "saved, and then killed before the record told of it"
    for record in (replace(RECORD, incarnation=8), None):
        assert not len(load_bad_blocks(tmp_path, SIZE, record))
    for _ in range(2):
        forget_bad_blocks(tmp_path)
        assert not list(tmp_path.iterdir()), "or a later record would have its incarnation"

"""The files that were changed last are found in copies of inode tables, whatever else is in a journal."""

from __future__ import annotations

import random
import struct

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.transactions.changed_files import MAX_FOUND, NO_EXTENTS, extents_of_inodes, newest_of

SIZE = 1 << 30


def inode(changed: int, *extents: tuple[int, int], depth: int = 0, magic: int = 0xF30A, size: int = 256) -> bytes:
    """Extents are (first block, blocks)."""
    made = bytearray(size)
    struct.pack_into("<H", made, 0, 0o100644)
    struct.pack_into("<II", made, 0xC, changed - 3, changed)
    struct.pack_into("<4HI", made, 0x28, magic, len(extents), 4, depth, 0)
    for place, (first, count) in enumerate(extents):
        struct.pack_into("<IHHI", made, 0x34 + 12 * place, 0, count, first >> 32, first & 0xFFFFFFFF)
    return bytes(made)


def test_the_extents_in_inodes_are_found_with_the_time_of_their_change() -> None:
    table = inode(900, (50, 3), (70_000, 1)) + bytes(512) + inode(1000, (9, 32_768 + 5)) + bytes(100)
    found = extents_of_inodes(table, 4096, 256, SIZE)
    assert sorted(found.tolist()) == [
        [900, 50 * 4096, 3 * 4096],
        [900, 70_000 * 4096, 4096],
        [1000, 9 * 4096, 5 * 4096],
    ]


def test_an_inode_without_extents_of_this_volume_is_left_out() -> None:
    table = b"".join(
        (
            inode(11, (50, 3), depth=1),
            inode(12, (50, 3), magic=0xF30B),
            inode(13),
            inode(14, (0, 3)),
            inode(15, (50, 0)),
            inode(16, (SIZE // 4096 - 2, 3)),
            inode(17, (1 << 40, 3)),
            inode(18, (SIZE // 4096 - 3, 3)),
        )
    )
    assert extents_of_inodes(table, 4096, 256, SIZE)[:, 0].tolist() == [18]
    assert not len(extents_of_inodes(b"", 4096, 256, SIZE)) and not len(extents_of_inodes(bytes(255), 4096, 256, SIZE))


@given(st.binary(max_size=2000), st.sampled_from((128, 256, 1024)))
def test_no_bytes_raise(data: bytes, inode_bytes: int) -> None:
    found = extents_of_inodes(data, 1024, inode_bytes, SIZE)
    assert found.shape[1] == 3


def test_files_that_were_changed_last_come_first_once_each_and_no_more_than_are_kept() -> None:
    generator = random.Random(1)
    tables = [
        b"".join(inode(generator.randrange(9, 1 << 31), (generator.randrange(1, 9000), 1)) for _ in range(3000))
        for _ in range(6)
    ]
    found = newest_of([extents_of_inodes(table, 4096, 256, SIZE) for table in (*tables, *tables[:2])])
    times = found[:, 0].tolist()
    assert len(found) == MAX_FOUND and times == sorted(times, reverse=True)
    assert len({tuple(row) for row in found.tolist()}) == MAX_FOUND
    assert newest_of([]) is NO_EXTENTS or not len(newest_of([]))

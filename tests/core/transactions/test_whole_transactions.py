"""Transactions that stand whole in a batch are found at once, each by its own headers, tags and checksums, in their chain."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pydbt.core.transactions.jbd2_blocks import JBD2_MAGIC, read_journal_superblock
from pydbt.core.transactions.whole_transactions import WholeTransactions
from tests.lab.file_system_logs import REVOKES, V3, WIDE, Jbd2Builder

SIZE = 1024
BEGIN = 9 * SIZE
MAGIC = JBD2_MAGIC.to_bytes(4, "big")


class Batch:
    """Transactions of 1 to 20 blocks from the start of a log on, in the order in which they are written."""

    every = True
    """Whether the copies are looked at as well, or control blocks alone."""

    def __init__(self, count: int, log_blocks: int = 400, start: int = 1) -> None:
        chance = random.Random(count)
        built = Jbd2Builder(SIZE, log_blocks, REVOKES | WIDE | V3, start=start)
        self.sizes = [chance.choice((1, 2, 7, 20)) for _ in range(count)]
        self.homes = []
        for size in self.sizes:
            named = {chance.randrange(1 << 34): chance.randbytes(SIZE) for _ in range(size)}
            self.homes.append([home * SIZE for home in named])
            built.descriptor(named)
            built.commit()
        self.layout = read_journal_superblock(built.superblock())
        self.places = [offset // SIZE for offset, _ in built.writes]
        self.blocks = [bytearray(data) for _, data in built.writes]

    def found(self, place: int = 0, number: int | None = None, index: int | None = None) -> list[tuple[int, str]]:
        """The chain that begins at a place of the batch: places of commits and names."""
        places = np.array(self.places)
        at = np.array([one for one in range(len(places)) if self.every or self.blocks[one][:4] == MAGIC], np.int64)
        whole = WholeTransactions(self.layout, places, at, [memoryview(self.blocks[one]) for one in at.tolist()])
        number = self.layout.sequence if number is None else number
        index = self.places[place] if index is None else index
        found = whole.from_here(place, number, index, BEGIN)
        self.told = [one for _, one, _ in found]
        self.runs = [runs for _, _, runs in found]
        return [(last, one.name) for last, one, _ in found]

    def commits(self) -> list[tuple[int, str]]:
        ends = np.cumsum([size + 2 for size in self.sizes]) - 1
        return [(end, str(self.layout.sequence + turn)) for turn, end in enumerate(ends.tolist())]


@pytest.fixture(autouse=True, params=[True, False], ids=["every block", "control blocks"])
def looked_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batch, "every", request.param)


@pytest.mark.parametrize("start", [1, 340])
def test_all_transactions_of_a_batch_are_found_with_their_blocks_also_where_the_log_begins_again(start: int) -> None:
    batch = Batch(12, log_blocks=400, start=start)
    wrapped = np.flatnonzero(np.diff(batch.places) != 1)
    expected = batch.commits()
    if len(wrapped):  # the one that is in two pieces is left to the other way, and so is all behind it
        expected = [one for one in expected if one[0] <= wrapped[0]]
    assert batch.found() == expected and expected
    for one, homes, size in zip(batch.told, batch.homes, batch.sizes, strict=False):
        assert one.named[:, 0].tolist() == homes and one.block_count == size + 2 and one.committed_ns
    assert batch.runs == [((BEGIN + one.first_block * SIZE, one.block_count * SIZE),) for one in batch.told]


def test_only_the_transaction_that_is_due_is_told() -> None:
    batch = Batch(4)
    second = batch.commits()[0][0] + 1
    number = batch.layout.sequence
    assert batch.found(second, number + 1) == batch.commits()[1:]
    assert batch.found(0, number + 1) == batch.found(0, number, 5) == batch.found(1, number) == []


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize("byte", [0, 7, 11, 16, 19, 25, 50, 58, SIZE - 1])
def test_the_chain_ends_before_a_transaction_whose_control_block_is_damaged(which: int, byte: int) -> None:
    for end in (0, 1):  # its descriptor, its commit
        batch = Batch(5)
        commits = batch.commits()
        first = commits[which - 1][0] + 1 if which else 0
        batch.blocks[commits[which][0] if end else first][byte] ^= 0x10
        assert batch.found() == commits[:which]
        if which < 4:
            assert batch.found(commits[which][0] + 1, batch.layout.sequence + which + 1) == commits[which + 1 :]


def test_blocks_that_are_missing_twice_or_elsewhere_end_the_chain() -> None:
    for change in (lambda places, at: places.pop(at), lambda places, at: places.insert(at, 7)):
        batch = Batch(5)
        at = batch.commits()[2][0] - 1
        change(batch.places, at)
        change(batch.blocks, at) if len(batch.places) < len(batch.blocks) else batch.blocks.insert(at, bytearray(SIZE))
        assert batch.found() == batch.commits()[:2]


def test_a_batch_without_a_whole_transaction_has_none() -> None:
    batch = Batch(1)
    del batch.blocks[-1], batch.places[-1]
    assert batch.found() == []

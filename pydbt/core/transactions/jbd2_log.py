"""The transactions of a jbd2 journal (ext4), from the writes to it in the order in which the kernel submitted them.

A transaction is complete when its commit block stands behind everything that its descriptor blocks announced, and each
checksum is right. Its place is known from the one before: it begins behind that one's commit block, with the next number. A
log that is joined in the middle finds its footing behind the next commit block, or where a superblock says that it starts.

Nothing is read here but what was written: the caller feeds the bytes. Any bytes may come; nothing raises, and what is kept
has a bound. Sources: fs/jbd2/commit.c (order of the blocks), fs/jbd2/recovery.c (what counts as complete).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pydbt.core.blocks.runs import Integers
from pydbt.core.transactions.captured_blocks import CapturedBlocks
from pydbt.core.transactions.crc import crc32_be
from pydbt.core.transactions.fast_commits import FastCommits
from pydbt.core.transactions.jbd2_blocks import (
    COMMIT,
    DESCRIPTOR,
    HEADER,
    JBD2_MAGIC,
    REVOKE,
    JournalSuperblock,
    NotUnderstood,
    commit_time_ns,
    read_journal_superblock,
    whole_sum,
)
from pydbt.core.transactions.transaction import (
    NOTHING_NAMED,
    JournalTransaction,
    RunsOfTransaction,
    TransactionState,
)
from pydbt.core.transactions.whole_blocks import WholeBlocks
from pydbt.core.transactions.whole_transactions import NO_TIME_BEFORE, NUMBERS, EndedAt, WholeTransactions
from pydbt.core.units import Buffer

_MAGIC = JBD2_MAGIC.to_bytes(4, "big")
_MAX_AWAITED = (
    8_192  # blocks that were announced and have not come; a descriptor block of 64 KiB announces 8,188 at most
)
_WORTH_A_STEP = 12  # blocks: below that looking at one after the other is as quick


@dataclass(slots=True)
class _Open:
    """The transaction that is being written: where its next descriptor, revoke or commit block stands."""

    number: int
    first_block: int
    next_block: int
    block_count: int = 0
    named: RunsOfTransaction = field(default_factory=RunsOfTransaction)
    revoked: RunsOfTransaction = NOTHING_NAMED
    awaited: dict[int, int] = field(default_factory=dict)  # block of the log -> the checksum in its tag
    whole_sum: int = NUMBERS - 1
    damage: str = ""


class Jbd2Log:
    """Feed it ``written`` with every write to the journal; it returns the transactions that ended with it.

    ``superblock`` is the journal's first block as it is on the disk. With ``from_start`` the next transaction is expected where
    it tells that the log starts, as after a mount; without, the log is joined in the middle. ``problem`` tells, as the end of a
    sentence, why the log is not understood; then nothing is returned until a superblock comes that is. ``layouts`` counts the
    logs that were begun: with a superblock of another layout than the one before, or whose numbers begin again. Without
    ``check_content`` the copies of blocks are not compared with the checksums in their tags: that is for a stream whose bytes
    are those that the kernel has just summed up.
    """

    def __init__(self, superblock: Buffer, from_start: bool = True, *, check_content: bool = True) -> None:
        self.problem = ""
        self.layouts = 0
        self._check_content = check_content
        self._told_superblock = False
        self._super: JournalSuperblock | None = None
        self._blocks: WholeBlocks | None = None
        self._fast: FastCommits | None = None
        self._next: tuple[int, int] | None = None  # number and block of the next transaction
        self._last: int | None = None  # the number of the last commit
        self._tail: int | None = None  # that of the last superblock which came in its writes
        self._open: _Open | None = None
        self._take_superblock(superblock)
        if not from_start:
            self._next = None

    @property
    def open(self) -> JournalTransaction | None:
        """The transaction whose commit block has not come."""
        return None if self._open is None else self._ended(self._open, TransactionState.OPEN)

    def written(self, offset_bytes: int, data: Buffer) -> list[JournalTransaction]:
        """A write of ``data`` at ``offset_bytes`` of the journal: the transactions that are complete or abandoned by it."""
        ended: list[JournalTransaction] = []
        blocks = self._blocks
        if blocks is None:  # its block size is not known: only a superblock helps
            if offset_bytes == 0:
                ended += self._take_superblock(data)
            return ended
        index, within = divmod(offset_bytes, blocks.block_bytes)
        if len(data) == blocks.block_bytes and not within and 0 < index < blocks.block_count:
            blocks.replaced(index)
            return self._take(index, memoryview(data))
        for index, block in blocks.written(offset_bytes, data):
            ended += self._take(index, block)
        return ended

    @property
    def plain_blocks(self) -> tuple[int, int]:
        """Blocks whose content matters in control blocks alone: bytes of a block, and how many such blocks there are.

        Those from 1 to that number may be given to ``blocks_written``; none where every block has to be looked at.
        """
        layout = self._super
        if (
            layout is None
            or self._blocks is None
            or self._blocks.in_part
            or self._check_content
            or layout.summed_as_a_whole
        ):
            return 0, 0
        return layout.block_bytes, layout.last_block

    def blocks_written(
        self, places: Integers, likely: Integers, blocks: CapturedBlocks, begin_bytes: int = 0
    ) -> list[EndedAt]:
        """Whole ``plain_blocks`` in their order: the transactions that ended.

        ``likely``: which of them are control blocks, most likely. All are at their distance from block 0, which is at
        ``begin_bytes`` of the volume.
        """
        ended: list[EndedAt] = []
        indices = places.tolist()
        place, count = 0, len(indices)
        whole: WholeTransactions | None = None
        guesses = [np.arange(count), likely] if len(likely) < count else [likely]
        while place < count:
            index = indices[place]
            if self._open is None and self._next is not None and self._next[1] == index:
                found = whole.from_here(place, *self._next, begin_bytes) if whole is not None else []
                worth = count - place >= _WORTH_A_STEP and self._super is not None and self._super.full_tag_sums
                while not found and guesses and worth:
                    at = guesses.pop()
                    at = at[at >= place]
                    assert self._super is not None
                    whole = WholeTransactions(self._super, places, at, blocks.together(at))
                    found = whole.from_here(place, *self._next, begin_bytes)
                if found:
                    ended += found
                    place = self._behind(*found[-1][:2])
                    continue
            place += 1
            if self._open is not None and index in self._open.awaited:
                del self._open.awaited[index]
                continue
            block = blocks.one(place - 1)
            if block[:4] == _MAGIC:
                for one in self._take(index, block):
                    ended.append((place - 1, one, None))
                current = self._open
                if current is not None and current.awaited:
                    place += self._take_copies(current.awaited, indices, place)
        return ended

    def _behind(self, place: int, last: JournalTransaction) -> int:
        """Go on behind this one, whose commit is at a place of a batch: the place behind it."""
        assert self._super is not None
        self._last = last.number
        self._next = (last.number + 1) % NUMBERS, self._super.behind(last.first_block, last.block_count)
        return place + 1

    @staticmethod
    def _take_copies(awaited: dict[int, int], indices: list[int], place: int) -> int:
        """The copies that a descriptor has just announced mostly follow it, in their order: how many blocks these are."""
        count = len(awaited)
        if indices[place : place + count] != list(awaited):
            return 0
        awaited.clear()
        return count

    def lost(self, reason: str) -> list[JournalTransaction]:
        """Writes to the log did not come: what is open will not be complete, and footing has to be found again."""
        if self._blocks is not None:
            self._blocks.clear()
        if self._fast is not None:
            self._fast.lost()
        return self._abandon(reason)

    def begins_at(self, number: int, block: int) -> None:
        """The next transaction is known to be the one with this number, and to begin at this block."""
        self._next = number, block

    @property
    def has_footing(self) -> bool:
        """Whether it is known where the next transaction is to begin, or one is open."""
        return self._next is not None or self._open is not None

    def is_behind(self, superblock: Buffer) -> bool:
        """Whether the superblock on the disk is another one than this log was begun with, and none has come in its writes.

        ext4 changes a journal's features when it mounts it, and writes them with its first commit.
        """
        if self._told_superblock or self._super is None:
            return False
        try:
            return read_journal_superblock(superblock).layout != self._super.layout
        except NotUnderstood:
            return True

    def runs_of(self, ended: JournalTransaction, begin_bytes: int = 0) -> tuple[tuple[int, int], ...]:
        """The runs (offset, length) of the log that a transaction consists of, in bytes; the log begins at ``begin_bytes``."""
        layout = self._super
        first, count = ended.first_block, ended.block_count
        if layout is None or not count:
            return ()
        size, last = layout.block_bytes, layout.last_block
        inside = last - first if first < last else layout.block_count - first
        if count <= inside:
            return ((begin_bytes + first * size, count * size),)
        rest = min(count - inside, last - layout.first_block)
        return (begin_bytes + first * size, inside * size), (begin_bytes + layout.first_block * size, rest * size)

    def _take(self, index: int, block: memoryview) -> list[JournalTransaction]:
        if index == 0:
            self._told_superblock = True
            return self._take_superblock(block)
        layout, current = self._super, self._open
        if layout is None:
            return []
        if self._fast is not None and index >= layout.fast_first_block:
            return self._fast.take(index - layout.fast_first_block, block)
        if current is not None and index in current.awaited:
            self._take_content(layout, current, index, block)
            return []
        if block[:4] != _MAGIC:
            return []
        _, kind, number = HEADER.unpack_from(block)
        if kind not in (DESCRIPTOR, COMMIT, REVOKE) or not self._in_log(index):
            return []
        if not layout.sum_is_right(kind, block):
            return self._take_damaged(index, number)
        return self._take_control(index, kind, number, block)

    def _in_log(self, index: int) -> bool:
        return self._super is not None and self._super.first_block <= index < self._super.last_block

    # --- the superblock ---------------------------------------------------------------------------------------
    def _take_superblock(self, block: Buffer) -> list[JournalTransaction]:
        before = self._super
        try:
            layout = read_journal_superblock(block)
        except NotUnderstood as why:
            self.problem, self._super, self._next = str(why), None, None
            return self._abandon(f"the journal is not understood any more: {why}")
        ended = []
        if before is None or before.layout != layout.layout or self._begins_again(layout):
            ended = self._abandon("the journal was made anew or changed")
            self._next = self._last = None
            self.layouts += 1
            self._blocks = WholeBlocks(layout.block_bytes, layout.block_count)
            has_fast = layout.fast_first_block < layout.block_count
            self._fast = FastCommits(layout.fast_first_block) if has_fast else None
        self.problem, self._super = "", layout
        if self._told_superblock:
            self._tail = layout.sequence
        return [*ended, *self._started_at(layout)]

    def _begins_again(self, layout: JournalSuperblock) -> bool:
        """Whether it is a new journal in the place of one of the same layout. In one journal numbers only rise: that of its tail,
        and where nothing is to be replayed that of the next transaction (jbd2_mark_journal_empty)."""
        least = [] if self._tail is None else [self._tail]
        if not layout.start_block and self._last is not None:
            least.append((self._last + 1) % NUMBERS)
        return any((layout.sequence - one) % NUMBERS >= NUMBERS // 2 for one in least)

    def _started_at(self, layout: JournalSuperblock) -> list[JournalTransaction]:
        """Where the superblock tells that the log starts, unless that is behind what is followed: then it is the log's tail.

        A mount goes on with the next number or one more, at a place of its own; what was open before it will never be complete.
        """
        if not self._in_log(layout.start_block):
            return []
        ended: list[JournalTransaction] = []
        current = self._open
        if current is not None:
            if not 0 < (layout.sequence - current.number) % NUMBERS < NUMBERS // 2:
                return []
            ended = self._abandon("the file system was mounted anew")
        if self._next is None or (layout.sequence - self._next[0]) % NUMBERS < NUMBERS // 2:
            self._next = layout.sequence, layout.start_block
        return ended

    # --- the log ----------------------------------------------------------------------------------------------
    def _take_content(self, layout: JournalSuperblock, current: _Open, index: int, block: memoryview) -> None:
        wanted = current.awaited.pop(index)
        if self._check_content and layout.block_sums and layout.sum_of_block(current.number, block) != wanted:
            current.damage = current.damage or f"the checksum of its block {index} of the journal is wrong"
        if layout.summed_as_a_whole:
            current.whole_sum = crc32_be(current.whole_sum, block)

    def _take_damaged(self, index: int, number: int) -> list[JournalTransaction]:
        """A block of the expected transaction at its place, with a wrong checksum. Elsewhere it is left over from before."""
        current = self._open
        if current is not None and (index, number) == (current.next_block, current.number):
            return self._abandon(f"the checksum of its block {index} of the journal is wrong")
        return []

    def _take_control(self, index: int, kind: int, number: int, block: memoryview) -> list[JournalTransaction]:
        ended: list[JournalTransaction] = []
        current = self._open
        if current is None and self._next == (number, index):
            current = self._open = _Open(number, index, index)
        if current is None or (number, index) != (current.number, current.next_block):
            expected = current.number if current is not None else self._next[0] if self._next is not None else None
            if expected is not None and (number - expected) % NUMBERS >= NUMBERS // 2:
                return []  # of an earlier transaction: it is read again, or left over
            if kind != COMMIT:
                return []
            ended = self._abandon("writes between it and a later transaction did not come")
            return [*ended, *self._found_footing(index, number)]
        assert self._super is not None
        current.block_count += 1
        current.next_block = self._super.behind(index, 1)
        if kind == COMMIT:
            return [self._commit(current, block)]
        if kind == REVOKE:
            if current.revoked is NOTHING_NAMED:
                current.revoked = RunsOfTransaction()
            current.revoked.add_blocks(self._super.revoked(block), self._super.block_bytes)
            return []
        return self._announce(current, index, block)

    def _announce(self, current: _Open, index: int, block: memoryview) -> list[JournalTransaction]:
        assert self._super is not None
        numbers, sums = self._super.tags(block)
        if self._super.summed_as_a_whole:
            current.whole_sum = crc32_be(current.whole_sum, block)
        if len(current.awaited) + len(numbers) > _MAX_AWAITED or current.block_count > self._super.block_count:
            return self._abandon("it announces more blocks than a journal can hold")
        current.named.add_blocks(numbers, self._super.block_bytes)
        for place, total in enumerate(sums, start=1):
            current.awaited[self._super.behind(index, place)] = total
        current.block_count += len(numbers)
        current.next_block = self._super.behind(index, 1 + len(numbers))
        return []

    def _commit(self, current: _Open, block: memoryview) -> JournalTransaction:
        assert self._super is not None
        if current.awaited:
            current.damage = f"{len(current.awaited)} of its blocks did not come before its commit block"
        elif self._super.summed_as_a_whole and whole_sum(block) not in (None, current.whole_sum):
            current.damage = current.damage or "its checksum is wrong"
        self._next = (current.number + 1) % NUMBERS, current.next_block
        self._last = current.number
        self._open = None
        state = TransactionState.ABANDONED if current.damage else TransactionState.COMMITTED
        time_ns = commit_time_ns(block)
        return self._ended(current, state, time_ns if 0 < time_ns < NO_TIME_BEFORE else None)

    def _found_footing(self, index: int, number: int) -> list[JournalTransaction]:
        assert self._super is not None
        self._next = (number + 1) % NUMBERS, self._super.behind(index, 1)
        self._last = number
        return []

    def _abandon(self, reason: str) -> list[JournalTransaction]:
        current, self._open = self._open, None
        self._next = None
        if current is None:
            return []
        current.damage = current.damage or reason
        return [self._ended(current, TransactionState.ABANDONED)]

    def _ended(self, current: _Open, state: TransactionState, committed_ns: int | None = None) -> JournalTransaction:
        return JournalTransaction(
            str(current.number), current.number, state, committed_ns, current.first_block, current.block_count,
            current.number, current.named, current.revoked, current.damage,
        )  # fmt: skip

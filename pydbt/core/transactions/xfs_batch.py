"""Records of an XFS log that stand whole in one write each, read all at once: the quick way of ``XfsLog``.

Headers, cycle numbers and operations are looked at by arrays over all records of a batch; of each record there is one checksum.
Most checkpoints lie in one record that has nothing else: these are found here, too. What is anything else is left to the way that
puts records together from sectors; both tell the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import crc32c as library
import numpy as np

from pydbt.core.blocks.runs import Integers, Mask, distinct
from pydbt.core.transactions.transaction import (
    NOTHING_NAMED,
    JournalTransaction,
    TransactionState,
    Words,
)
from pydbt.core.transactions.xfs_items import (
    FIRST_KIND,
    LAST_KIND,
    ItemsOfBatch,
    SharedRuns,
)
from pydbt.core.transactions.xfs_operations import (
    COMMIT,
    OPERATION_BYTES,
    OPERATION_MARK,
    OPERATION_WORDS,
    START,
    TRANSACTION_HEADER_BYTES,
    TRANSACTION_MAGIC,
    Operations,
    operations_of,
)
from pydbt.core.transactions.xfs_records import (
    CYCLES_OFFSET,
    CYCLES_PER_HEADER,
    FORMAT_OFFSET,
    HEADER_COVERS_BYTES,
    HEADER_SUMMED_BYTES,
    LITTLE_ENDIAN,
    MAX_XFS_RECORD_BYTES,
    MORE_CYCLES_OFFSET,
    MORE_SUMMED_BYTES,
    RECORD_MAGIC,
    SIZE_OFFSET,
    SUM_OFFSET,
    UUID_OFFSET,
    XfsRecord,
)
from pydbt.core.transactions.xfs_shapes import Shapes
from pydbt.core.transactions.xfs_volume import XfsVolume
from pydbt.core.units import KIB, SECTOR_BYTES, Buffer

LogRuns = tuple[tuple[int, int], ...]
_WORD = 4
_SECTOR_WORDS = SECTOR_BYTES // _WORD
# Of a header: magic, cycle, version, length, the log sequence numbers of record and tail, operations, byte order, size, identity.
_COLUMNS = np.array(
    [0, 1, 2, 3, 4, 5, 6, 7, 10, FORMAT_OFFSET // _WORD, SIZE_OFFSET // _WORD]
    + [UUID_OFFSET // _WORD + word for word in range(4)]
)
_SUM_WORD = SUM_OFFSET // _WORD
_CYCLES_WORD, _MORE_CYCLES_WORD = CYCLES_OFFSET // _WORD, MORE_CYCLES_OFFSET // _WORD
_MARK_MASK = np.uint32(0xFFFF00FF)  # of the third word of an operation: all but its flags
_KIND_SHIFT = 32
_MAX_CYCLE = (
    1 << 30
)  # no log lives that long; log sequence numbers up to there are whole numbers of 64 bits with a sign
MAX_ROOM_BYTES = KIB * 640
_MAX_KINDS = 8  # of records in a batch
_WORDS_AT_ONCE = 16_384  # what is made of them stays in the processor's cache


class KeptForBatches:
    """What one ``WholeRecords`` leaves for the next: the room for its content (memory that was just taken from the system costs
    more than all that is done here), and the shapes of records. Of two at a time only the last one is in use."""

    def __init__(self) -> None:
        self.shapes = Shapes()
        self._room = bytearray()

    def room(self, size_bytes: int) -> memoryview:
        """As much room as this."""
        if size_bytes > MAX_ROOM_BYTES:
            return memoryview(bytearray(size_bytes))
        if not self._room:
            self._room = bytearray(MAX_ROOM_BYTES)
        return memoryview(self._room)[:size_bytes]

    def clear(self) -> None:
        """The room is needed by others."""
        self._room = bytearray()


class WholeRecords:
    """Writes to a log, each at a sector and of a number of sectors, in their order. ``good``: of each, whether it is a record as
    the kernel writes them, with the right checksum."""

    def __init__(
        self, volume: XfsVolume, firsts: Integers, counts: Integers, writes: Sequence[Buffer], kept: KeptForBatches
    ) -> None:
        self._volume, self.firsts, self.counts = volume, firsts, counts
        self._content = content = kept.room(int(counts.sum()) * SECTOR_BYTES)
        at = 0
        for write in writes:
            end = at + len(write)
            content[at:end] = write
            at = end
        self._words = words = np.frombuffer(content, "<u4")
        self._starts = np.cumsum(counts) - counts  # in sectors of the content
        self._owners = np.repeat(np.arange(len(counts)), counts)  # of each sector, the write that it is of
        heads = words.take(self._starts[:, None] * _SECTOR_WORDS + _COLUMNS)
        magic, cycle, version, length, high, low, tail_high, tail_low, count, order, size = (
            heads[:, :11].byteswap().astype(np.int64).T
        )
        self._lengths, self._operation_counts = length, count
        size = np.where(size == 0, HEADER_COVERS_BYTES, np.minimum(size, MAX_XFS_RECORD_BYTES))
        self._headers = -(-size // HEADER_COVERS_BYTES)
        self.lsns = high << 32 | low
        self.tails = tail_high << 32 | tail_low
        good = (magic == RECORD_MAGIC) & (high == cycle) & (low == firsts) & (cycle != RECORD_MAGIC)
        good &= ((version == 2) | (version == 3)) & (order == LITTLE_ENDIAN)
        good &= (length > 0) & (length % SECTOR_BYTES == 0) & (length <= self._headers * HEADER_COVERS_BYTES)
        good &= self._headers + length // SECTOR_BYTES == counts
        good &= (high | tail_high) < _MAX_CYCLE
        good &= (heads[:, 11:] == np.frombuffer(volume.uuid, "<u4")).all(axis=1)
        wrong = words[::_SECTOR_WORDS] != np.repeat(heads[:, 1], counts)
        wrong[self._starts] = False
        good &= ~np.logical_or.reduceat(wrong, self._starts)
        self.good: Mask = good
        self._compare_sums()
        self._put_back()
        self._follow()
        self._begins = (self._starts + self._headers) * _SECTOR_WORDS  # of the data, in words
        self.is_checkpoint = good
        self._known: Mask | None = None  # of which records it is known where their operations are
        if not self._recognize(kept.shapes):
            self._find_operations()
            self._find_checkpoints(kept.shapes)

    # --- records ----------------------------------------------------------------------------------------------
    def _compare_sums(self) -> None:
        """Of the header, in which the checksum itself counts as 0, and the data. Where the sum is that of another machine the
        other way decides."""
        content, rows = self._content, np.flatnonzero(self.good)
        places = self._starts[rows] * SECTOR_BYTES
        at = places // _WORD + _SUM_WORD
        wanted = self._words.take(at)
        self._words[at] = 0
        begins, ends = places + self._headers[rows] * SECTOR_BYTES, places + self.counts[rows] * SECTOR_BYTES
        sum_of = library.crc32c
        heads = [sum_of(content[place : place + HEADER_SUMMED_BYTES]) for place in places.tolist()]
        for long in np.flatnonzero(self._lengths[rows] > HEADER_COVERS_BYTES).tolist():
            for header in range(1, -(-int(self._lengths[rows[long]]) // HEADER_COVERS_BYTES)):
                more = int(places[long]) + header * SECTOR_BYTES
                heads[long] = sum_of(content[more : more + MORE_SUMMED_BYTES], heads[long])
        found = [
            sum_of(content[begin:end], head)
            for head, begin, end in zip(heads, begins.tolist(), ends.tolist(), strict=True)
        ]
        self.good[rows[(wanted != np.array(found, np.uint32)) & (wanted != 0)]] = False

    def _put_back(self) -> None:
        """The first words of all sectors of data, out of the headers."""
        sectors = np.flatnonzero(self.good[self._owners])
        owners = self._owners[sectors]
        at = sectors - (self._starts + self._headers)[owners]  # which sector of the data
        sectors, owners, at = sectors[at >= 0], owners[at >= 0], at[at >= 0]
        header, within = np.divmod(at, CYCLES_PER_HEADER)
        first = np.where(header == 0, _CYCLES_WORD, _MORE_CYCLES_WORD)
        begin = self._starts[owners] + header
        self._words[sectors * _SECTOR_WORDS] = self._words.take(begin * _SECTOR_WORDS + first + within)

    def _follow(self) -> None:
        """Which records follow one another: each begins where the one before it ends."""
        log_sectors = self._volume.log_bytes // SECTOR_BYTES
        ends = self.firsts + self.counts
        self.behind = np.where(ends == log_sectors, (self.lsns >> 32) + 1 << 32, self.lsns + self.counts)
        follows = (self.behind[:-1] == self.lsns[1:]) & self.good[:-1] & self.good[1:]
        self._chain_ends = np.append(np.flatnonzero(~follows), len(follows)) + 1

    def chain_end(self, place: int) -> int:
        """The place behind the last of the good records that follow this one."""
        return int(self._chain_ends[np.searchsorted(self._chain_ends, place, side="right")])

    def record(self, place: int) -> XfsRecord:
        """One of the good ones."""
        begin = int(self._starts[place] + self._headers[place]) * SECTOR_BYTES
        return XfsRecord(
            int(self.lsns[place]), int(self.tails[place]), int(self.counts[place]), int(self._operation_counts[place]),
            "<", bytes(self._content[begin : begin + int(self._lengths[place])]),
        )  # fmt: skip

    # --- shapes -----------------------------------------------------------------------------------------------
    def _recognize(self, shapes: Shapes) -> bool:
        """Whether each of the good records is a checkpoint like one that was seen before."""
        good = np.flatnonzero(self.good)
        if not len(good):
            return False
        kinds = self._operation_counts << _KIND_SHIFT | self._lengths
        if (kinds[good] == kinds[good[0]]).all():
            of_kind = {int(kinds[good[0]]): good}
        else:
            of_kind = {kind: np.flatnonzero(self.good & (kinds == kind)) for kind in distinct(kinds[good]).tolist()}
        if len(of_kind) > _MAX_KINDS:
            return False
        found = []
        for kind, rows in of_kind.items():
            shape = shapes.get(kind)
            if shape is None or not shape.fits(self._words, self._begins[rows]).all():
                return False
            found.append((rows, shape))
        if len(found) == 1 and len(good) == len(kinds):
            count, formats = len(good), found[0][1].formats
            begins = (self._begins[:, None] + formats).reshape(-1)
            lengths = np.broadcast_to(found[0][1].lengths, (count, len(formats))).reshape(-1)
            self._keep_items(begins, lengths, np.arange(1, count + 1) * len(formats))
            return True
        counts = np.zeros(len(kinds), np.int64)
        for rows, shape in found:
            counts[rows] = len(shape.formats)
        ends = np.cumsum(counts)
        begins, lengths = np.empty(ends[-1], np.int64), np.empty(ends[-1], np.uint32)
        for rows, shape in found:
            at = (ends[rows] - len(shape.formats))[:, None] + np.arange(len(shape.formats))
            begins[at] = self._begins[rows][:, None] + shape.formats
            lengths[at] = shape.lengths
        self._keep_items(begins, lengths, ends)
        return True

    def _learn(self, shapes: Shapes, formats: Integers, ends: Integers) -> None:
        """What one checkpoint of each kind looks like."""
        kinds = (self._operation_counts << _KIND_SHIFT | self._lengths).tolist()
        chosen = {kinds[place]: place for place in np.flatnonzero(self.is_checkpoint).tolist()}
        for kind, place in chosen.items():
            operations = self._at[int(self._firsts_of[place]) : int(self._ends_of[place])]
            first, end = int(ends[place - 1]) if place else 0, int(ends[place])
            own = formats[first:end]
            shapes.learn(
                kind, self._words, int(self._begins[place]), operations,
                self._at[own] + OPERATION_WORDS, self._lengths_of[own],
            )  # fmt: skip

    # --- operations -------------------------------------------------------------------------------------------
    def _marks(self) -> Integers:
        """Where a word stands that is like the last one of an operation."""
        words, parts = self._words, []
        for first in range(0, len(words), _WORDS_AT_ONCE):
            part = words[first : first + _WORDS_AT_ONCE] & _MARK_MASK
            found = np.flatnonzero(part == OPERATION_MARK)
            found += first
            parts.append(found)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _find_operations(self) -> None:
        """Of records that have one checkpoint alone: each word that looks like the last one of an operation, with the number of
        the checkpoint before it. They are the operations when each is where the one before it ends, and there are as many."""
        words, count = self._words, len(self.good)
        begin, end = self._begins, self._begins + (self._lengths >> 2)
        at = self._marks() - (OPERATION_WORDS - 1)
        owner = self._owners.take(at >> 7, mode="clip")
        mine = at >= np.where(self.good, begin, len(words)).take(owner)
        mine &= words.take(at, mode="clip") == words.take(begin, mode="clip").take(owner)
        if not mine.all():
            at, owner = at[mine], owner[mine]
        self._at, self._owner = at, owner
        self._counts = np.bincount(owner, minlength=count)
        self._ends_of = np.cumsum(self._counts)
        self._firsts_of = self._ends_of - self._counts
        self._lengths_of = lengths = words.take(at + 1).byteswap()
        self._flags = words.take(at + 2) >> 8 & 0xFF
        self._known = known = self.good & (self._counts == self._operation_counts) & (self._counts > 0)
        if not len(at):
            return
        ends = at + ((lengths >> 2) + OPERATION_WORDS)
        linked = np.empty(len(at), np.bool_)
        np.equal(ends[:-1], at[1:], out=linked[:-1])
        last = self._ends_of[known] - 1
        linked[last] = ends[last] <= end[known]
        linked &= lengths & 3 == 0
        known[owner[~linked]] = False
        known &= at.take(self._firsts_of, mode="clip") == begin

    def operations(self, place: int) -> Operations:
        """Of one of the good ones."""
        if self._known is None or not self._known[place]:
            record = self.record(place)
            return operations_of(record.data, record.operations)
        first = int(self._firsts_of[place])
        end = first + int(self._counts[place])
        at, flags = self._at[first:end], self._flags[first:end]
        begin = int(self._starts[place] + self._headers[place]) * SECTOR_BYTES
        changes = np.flatnonzero((flags[1:] != 0) | (flags[:-1] != 0)) + 1
        number = int(self._words[at[0]].byteswap())
        return Operations(
            [number] * (end - first), (at * _WORD + (OPERATION_BYTES - begin)).tolist(),
            self._lengths_of[first:end].tolist(), flags.tolist(), [0, *changes.tolist(), end - first],
        )  # fmt: skip

    # --- checkpoints ------------------------------------------------------------------------------------------
    def _find_checkpoints(self, shapes: Shapes) -> None:
        """Which records have one whole checkpoint and nothing else, and what its items name."""
        words, owner, flags, at = self._words, self._owner, self._flags, self._at
        first, last = self._firsts_of, self._ends_of - 1
        assert self._known is not None
        whole = self._known & (self._counts > 2)
        self.is_checkpoint = whole
        if not whole.any():
            self._keep_items(at[:0], self._lengths_of[:0], np.zeros(len(whole), np.int64))
            return
        flagged = owner[np.flatnonzero(flags)]
        whole &= np.bincount(flagged, minlength=len(whole)) == 2
        whole &= (flags.take(first, mode="clip") == START) & (flags.take(last, mode="clip") == COMMIT)
        whole &= self._lengths_of.take(first + 1, mode="clip") >= TRANSACTION_HEADER_BYTES
        heads = words.take(at + OPERATION_WORDS, mode="clip")
        whole &= heads.take(first + 1, mode="clip") == TRANSACTION_MAGIC
        # The first region of each item tells the number of its regions, behind which is the format of the next item.
        formats = np.flatnonzero((heads & 0xFFFF) - np.uint32(FIRST_KIND) <= LAST_KIND - FIRST_KIND)
        of = owner.take(formats)
        mine = whole.take(of) & (formats > first.take(of) + 1) & (formats < last.take(of))
        mine &= self._lengths_of.take(formats) >= _WORD
        if not mine.all():
            formats, of = formats[mine], of[mine]
        counts = np.bincount(of, minlength=len(whole))
        ends = np.cumsum(counts)
        behind = formats + (heads.take(formats) >> 16)
        chained = np.empty(len(formats), np.bool_)
        np.equal(behind[:-1], formats[1:], out=chained[:-1])
        some = np.flatnonzero(counts)
        closing = ends[some] - 1
        chained[closing] = (behind[closing] >= last[some]) & (behind[closing] > formats[closing])
        whole[of[~chained]] = False
        begins = last.copy()
        begins[some] = formats[ends[some] - counts[some]]
        whole &= begins == first + 2
        kept = whole.take(of)
        if not kept.all():
            formats, ends = formats[kept], np.cumsum(np.where(whole, counts, 0))
        self._keep_items(at.take(formats) + OPERATION_WORDS, self._lengths_of.take(formats), ends)
        self._learn(shapes, formats, ends)

    def _keep_items(self, begins: Integers, lengths: Words, ends: Integers) -> None:
        """The formats that begin at these words; ``ends``: behind those of each record."""
        self._items = ItemsOfBatch(self._words, begins, lengths, self._volume)
        self._items_ends = ends

    def checkpoints_end(self, place: int, end: int) -> int:
        """The place behind the last of the checkpoints that follow one another from here on, and are before ``end``."""
        others = np.flatnonzero(~self.is_checkpoint[place:end])
        return place + int(others[0]) if len(others) else end

    def numbers(self, place: int, end: int) -> list[int]:
        """What the log calls these checkpoints, in its operations."""
        found: list[int] = self._words.take(self._begins[place:end]).byteswap().tolist()
        return found

    def transactions(self, place: int, end: int, begin_bytes: int) -> tuple[list[JournalTransaction], list[LogRuns]]:
        """The checkpoints from one place to another, and the runs of each. The log begins at ``begin_bytes``."""
        chosen = slice(place, end)
        lsns, firsts, counts = self.lsns[chosen].tolist(), self.firsts[chosen].tolist(), self.counts[chosen].tolist()
        names = [f"{lsn >> 32}:{first}" for lsn, first in zip(lsns, firsts, strict=True)]
        ends = self._items_ends[chosen].tolist()
        before = [int(self._items_ends[place - 1]) if place else 0, *ends]
        items, revoked = self._items, repeat(NOTHING_NAMED)
        fields = zip(
            names, lsns, repeat(TransactionState.COMMITTED), repeat(None), firsts, counts, lsns,
            map(SharedRuns, repeat(items), before, ends),
            map(SharedRuns, repeat(items), before, ends, repeat(True)) if items.cancels else revoked,
            repeat(""),
        )  # fmt: skip
        made = list(map(tuple.__new__, repeat(JournalTransaction), fields))
        offsets = (begin_bytes + self.firsts[chosen] * SECTOR_BYTES).tolist()
        return made, list(zip(zip(offsets, (self.counts[chosen] * SECTOR_BYTES).tolist(), strict=True)))

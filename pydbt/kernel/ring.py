"""The two rings, mapped into memory: records as an array, payload as views.

The header ring is pydbt's own (bpf/record.h, struct pydbt_config): an array of records, with positions that only grow.

The data ring is the kernel's ring buffer (kernel/bpf/ringbuf.c). Its file descriptor maps as one page with
the consumer's position (the controller writes it), one with the producer's, and the data twice in a row, so that no entry
wraps. Positions are bytes since the ring was made and only grow; an offset is a position modulo the size. Before each entry
the kernel writes a length with two flag bits: BUSY until the entry is submitted, DISCARDED when it carries no data.

Memory order: on x86, a record whose position is written is complete, because stores and loads keep their order. A port to
ARM needs a load-acquire of the positions, which numpy cannot express, and a release in the programs.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import NamedTuple, TypeVar

import numpy as np

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.kernel import syscalls
from pydbt.kernel.record import (
    BUSY,
    DISCARDED,
    LENGTH_MASK,
    RECORD_BYTES,
    RING_HEADER_BYTES,
    RING_RECORD,
    SLOT_PREFIX_BYTES,
)

# This many chains are followed one by one: one level of all chains at once costs as much as fifty single links.
_FEW_CHAINS = 16


class _Window(NamedTuple):
    records: np.ndarray  # a copy
    passed: int  # places in the ring that they cover
    missing: int  # of those, places whose record was lost


class HeaderRing:
    """The ring of records."""

    def __init__(self, fd: int, size_bytes: int, config: np.ndarray) -> None:
        self.size_bytes = size_bytes
        self._capacity = size_bytes // RECORD_BYTES
        self._config = config  # one element of dtype CONFIG, mapped
        self._hole = (0, 0)  # places known to be lost, ahead of the consumer
        self._memory = mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ)
        self._words = np.frombuffer(self._memory, "<u8", size_bytes // 8)

    def close(self) -> None:
        del self._words, self._config
        self._memory.close()

    def producer_position(self) -> int:
        """The number of places that programs have ever taken."""
        return int(self._config["producer"][0])

    def consumer_position(self) -> int:
        """The number of places that the controller has ever read."""
        return int(self._config["consumer"][0])

    def peek(self, limit: int) -> np.ndarray:
        """A copy of the records that are ready, in order, up to ``limit``, left in the ring."""
        return self._look(limit).records

    def drain(self, limit: int) -> np.ndarray:
        """The same records, whose places are then free again. Empty only when none is ready."""
        while True:
            window = self._look(limit)
            if window.passed:
                self._config["skipped"] += window.missing
                self._config["consumer"] += window.passed  # written last: programs may use the places from now on
            if len(window.records) or not window.passed:
                return window.records

    def _look(self, limit: int) -> _Window:
        consumer, producer = self.consumer_position(), self.producer_position()
        if producer - consumer > self._capacity and consumer >= self._hole[1]:
            # Places that were taken while the ring was full: all are lost. After a long absence these are billions.
            syscalls.wait_for_programs()
            self._hole = (consumer + self._capacity, producer)
        hole_start, hole_end = self._hole
        if consumer == hole_start < hole_end:
            return _Window(np.empty(0, RING_RECORD), hole_end - hole_start, hole_end - hole_start)
        count = min(producer - consumer, self._capacity, limit)
        if consumer < hole_start:
            count = min(count, hole_start - consumer)
        there = self._there(consumer, count)
        if there.all():
            return _Window(self._copy(consumer, count), count, 0)
        if self._config["overflows"][0] == self._config["skipped"][0]:
            count = int(there.argmin())  # a program is filling in the next one
            return _Window(self._copy(consumer, count), count, 0)
        syscalls.wait_for_programs()  # a record that is missing after this is lost
        there = self._there(consumer, count)
        return _Window(self._copy(consumer, count)[there], count, count - int(np.count_nonzero(there)))

    def _there(self, position: int, count: int) -> np.ndarray:
        """Which of the places have their record. Call it before the records are copied."""
        first = position % self._capacity
        places = self._words[:: RECORD_BYTES // 8]
        found = places[first : first + count]
        if len(found) < count:
            found = np.concatenate((found, places[: count - len(found)]))
        expected = np.arange(position + 1, position + 1 + count, dtype=np.uint64)
        there: np.ndarray = found == expected
        return there

    def _copy(self, position: int, count: int) -> np.ndarray:
        """The records, copied as plain words: numpy copies structures field by field, which is eight times as slow."""
        width = RECORD_BYTES // 8
        first = position % self._capacity * width
        words = self._words[first : first + count * width]
        if len(words) < count * width:
            return np.concatenate((words, self._words[: count * width - len(words)])).view(RING_RECORD)
        return words.copy().view(RING_RECORD)


class DataRing:
    """The ring of payload. Records point at its slots, which are released in any order.

    The kernel takes slots back from the front only. A slot that is released behind one in use waits in ``_returned``
    (positions and sizes, sorted) until the front reaches it.
    """

    def __init__(self, fd: int, size_bytes: int, base: int) -> None:
        page = mmap.PAGESIZE
        self.size_bytes = size_bytes
        self._control = mmap.mmap(fd, page)
        self._memory = mmap.mmap(fd, page + 2 * size_bytes, prot=mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._control, "<u8", 1)
        self._producer = np.frombuffer(self._memory, "<u8", 1)
        self._base = base
        self._bytes = memoryview(self._memory)[mmap.PAGESIZE :]
        self._words = np.frombuffer(self._memory, "<u4", 2 * size_bytes // 4, mmap.PAGESIZE)
        self._longs = np.frombuffer(self._memory, "<u8", 2 * size_bytes // 8, mmap.PAGESIZE)
        self._previous = self._bytes.cast("Q")  # the same memory: a single number is read ten times faster here
        self._front = int(self._consumer[0])
        self._returned = (np.empty(0, np.int64), np.empty(0, np.int64))

    def close(self) -> None:
        """Unmap. Views that are still in use keep their part of the mapping alive."""
        del self._words, self._longs, self._consumer, self._producer
        self._previous.release()
        with contextlib.suppress(BufferError):
            self._bytes.release()
        for mapping in (self._control, self._memory):
            with contextlib.suppress(BufferError):
                mapping.close()

    def producer_position(self) -> int:
        """Bytes that programs have ever reserved."""
        return int(self._producer[0])

    def used_bytes(self) -> int:
        """Bytes of the ring that the kernel cannot use again yet."""
        return self.producer_position() - self._front

    def payload(self, records: np.ndarray) -> list[memoryview]:
        """Views of the pieces of these records' data, in order; see Capture.payload()."""
        wanted = records[_carries_payload(records)]
        offsets, owners = self._slots(wanted)
        lengths = self._words[(offsets + 8) // 4]
        # Chains are followed from their last slot: sort the pieces by their place in the request.
        order = np.lexsort((-np.arange(len(offsets)), owners)) if len(offsets) > len(wanted) else slice(None)
        starts = (offsets + SLOT_PREFIX_BYTES)[order].tolist()
        view = self._bytes
        return [view[start : start + length] for start, length in zip(starts, lengths[order].tolist(), strict=True)]

    def release(self, records: np.ndarray) -> None:
        """Give the slots of these records back to the kernel."""
        offsets, _ = self._slots(records[records["data"] != 0])
        if len(offsets):
            self._give_back(offsets)

    def release_all_but(self, records: np.ndarray, end_position: int) -> int:
        """Give back every slot before ``end_position`` that none of these records names. Returns their number.

        For a controller that starts again: the records that its predecessor drained and did not release are no longer in the
        header ring.
        """
        kept, _ = self._slots(records[records["data"] != 0])
        kept_offsets = set(kept.tolist())
        orphans = []
        position = self._front
        while position < end_position:
            offset = position % self.size_bytes
            length = int(self._words[offset // 4])
            if length >= BUSY:
                break
            if offset + RING_HEADER_BYTES not in kept_offsets and not length & DISCARDED:
                orphans.append(offset + RING_HEADER_BYTES)
            position += _entry_bytes(length & LENGTH_MASK)
        self._give_back(np.array(orphans, np.int64))
        return len(orphans)

    def _slots(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offsets of all slots of the records, and for each slot the index of its record; a record's last slot comes first.

        One level of every chain is followed at a time, so that a write of one piece costs no Python loop. When few chains are
        left they are followed one by one, because a large write from scattered pages has hundreds of levels.
        """
        pointers = records["data"]
        owners = np.arange(len(records))
        all_offsets, all_owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while len(pointers) > _FEW_CHAINS:
            offsets = (pointers - np.uint64(self._base)).astype(np.int64)
            # The last possible slot has its header in the ring's last bytes, and its data in the second mapping.
            inside = (offsets >= RING_HEADER_BYTES) & (offsets <= self.size_bytes)
            assert inside.all(), "a slot outside the data ring"
            all_offsets.append(offsets)
            all_owners.append(owners)
            pointers = self._longs[offsets // 8]
            more = pointers != 0
            pointers, owners = pointers[more], owners[more]
        for pointer, owner in zip(pointers.tolist(), owners.tolist(), strict=True):
            chain = self._chain(pointer)
            all_offsets.append(np.array(chain, np.int64))
            all_owners.append(np.full(len(chain), owner))
        return np.concatenate(all_offsets), np.concatenate(all_owners)

    def _chain(self, pointer: int) -> list[int]:
        """Offsets of the slots of one chain, from the slot at ``pointer`` on."""
        longs, base, size = self._previous, self._base, self.size_bytes
        offsets = []
        while pointer:
            offset = pointer - base
            assert RING_HEADER_BYTES <= offset <= size, "a slot outside the data ring"
            offsets.append(offset)
            pointer = longs[offset // 8]
        return offsets

    def _give_back(self, slot_offsets: np.ndarray) -> None:
        offsets = slot_offsets - RING_HEADER_BYTES
        sizes = _entry_bytes(self._words[offsets // 4].astype(np.int64) & LENGTH_MASK)
        front = self._skip_discarded(self._front)
        positions = self._front + (offsets - self._front) % self.size_bytes
        if len(self._returned[0]):
            positions = np.concatenate((self._returned[0], positions))
            sizes = np.concatenate((self._returned[1], sizes))
        order = np.argsort(positions, kind="stable")
        positions, sizes = positions[order], sizes[order]
        while len(positions) and positions[0] == front:
            ends = positions + sizes
            run = 1 + int((np.append(positions[1:] != ends[:-1], True)).argmax())
            front = self._skip_discarded(int(ends[run - 1]))
            positions, sizes = positions[run:], sizes[run:]
        self._returned = (positions, sizes)
        if front != self._front:
            self._front = front
            self._consumer[0] = front

    def _skip_discarded(self, position: int) -> int:
        """The position behind entries that carry no data, such as the loader's first one."""
        while position < self.producer_position():
            length = int(self._words[position % self.size_bytes // 4])
            if length >= BUSY or not length & DISCARDED:
                break
            position += _entry_bytes(length & LENGTH_MASK)
        return position


_Lengths = TypeVar("_Lengths", int, np.ndarray)


def _entry_bytes(length_bytes: _Lengths) -> _Lengths:
    """Bytes of an entry in the ring: with its header, rounded up to a multiple of eight."""
    return length_bytes + RING_HEADER_BYTES + 7 & ~7


def _carries_payload(records: np.ndarray) -> np.ndarray:
    whole = records["flags"] & RecordFlag.NO_PAYLOAD == 0
    carries: np.ndarray = (records["kind"] == RecordKind.SUBMIT) & (records["data"] != 0) & whole
    return carries

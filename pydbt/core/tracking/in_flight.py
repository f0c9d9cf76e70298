"""Which writes are on their way to the disk: submitted, and not completed yet.

Counted in sectors for each block, because the kernel splits and merges writes between the two: over one request or
many, the sectors submitted and completed balance. Bio-based devices are matched by the bio instead (``cookie``).

Nothing is spelled out block by block. A batch of records is cut at every first and end block that occurs in it or in
the state; between two cuts all blocks are alike, so that a discard of 4 GiB is as cheap as a write of 4 KiB, and
both are exact about each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.runs import BlockNumbers, Integers, Runs, changes, distinct
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import Geometry

# As plain numbers: each batch needs them, and to look one up in an enumeration takes as long as a pass over its records.
_SUBMIT, _COMPLETE = int(RecordKind.SUBMIT), int(RecordKind.COMPLETE)
_BIO_BASED, _ERROR, _UNSTABLE = int(RecordFlag.BIO_BASED), int(RecordFlag.ERROR), int(RecordFlag.UNSTABLE)
# Added to what is waited for of a block that was submitted to again meanwhile: completions do not tell which write they
# end, so that everything in flight to such a block is waited for.
_MIXED = 1 << 40
# A batch whose pieces would be cut into more cells than this is halved: 1 Mi cells are about 100 MB of arrays.
_MAX_CELLS = 1 << 20


@dataclass(frozen=True, slots=True)
class InFlightReport:
    """What one batch showed. Each is a set of blocks as maximal runs in block order.

    ``overlapped``: a write was submitted while another to the same block was in flight; which of them the disk keeps
    is not known, so the block must be read again once it is no longer in flight. ``unmatched``: a completion of more
    than was known to be in flight. ``failed``: a write completed with an error. ``unstable``: its memory may have
    changed under way.
    """

    overlapped: Runs
    unmatched: Runs
    failed: Runs
    unstable: Runs


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Changes of the count, in record order: ``deltas`` sectors for each block from ``firsts`` to ``ends``."""

    firsts: BlockNumbers
    ends: BlockNumbers
    deltas: Integers

    @classmethod
    def none(cls) -> _Pieces:
        empty = np.empty(0, np.int64)
        return cls(empty, empty, empty)

    def part(self, low: int, high: int) -> _Pieces:
        return _Pieces(self.firsts[low:high], self.ends[low:high], self.deltas[low:high])


class InFlight:
    """The writes in flight to one volume, from its capture records in kernel order.

    ``certain`` says whether the count started from nothing: it is False at first and after ``reset`` (writes may be
    in flight that were never seen) until ``trust`` is called.
    """

    __slots__ = ("_bios", "_forgot_wait", "_state", "_waited", "certain", "geometry")

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.certain = False
        self._state = _Pieces.none()  # disjoint, in block order, deltas > 0
        self._waited = _Pieces.none()  # the same; what completions are still waited for
        self._forgot_wait = False
        self._bios: dict[int, tuple[int, int]] = {}  # cookie -> (sector, sectors)

    def apply(self, records: np.ndarray) -> InFlightReport:
        """Take a batch of capture records in order. ValueError outside the volume.

        A record of no sectors says nothing, except the completion of a bio: that has often advanced to its end.
        """
        kind, flags = records["kind"], records["flags"]
        by_bio = flags & _BIO_BASED != 0
        complete = kind == _COMPLETE
        kept = (complete & by_bio) | ((records["sectors"] > 0) & (complete | (kind == _SUBMIT)))
        if not kept.all():
            return self.apply(records[kept])
        sector = records["sector"].astype(np.int64)
        sectors = records["sectors"].astype(np.int64)
        if (sector < 0).any() or (sector > self.geometry.size_sectors - sectors).any():
            raise ValueError(f"a record lies outside the volume of {self.geometry.size_sectors} sectors")
        signs = np.where(complete, -1, 1)
        lost = self._match_bios(records["cookie"], sector, sectors, signs, by_bio) if by_bio.any() else []
        failed = self._touched(sector, sectors, complete & (flags & _ERROR != 0))
        unstable = self._touched(sector, sectors, complete & (flags & _UNSTABLE != 0))
        if lost:
            places, lost_sector, lost_sectors = np.array(lost, np.int64).T
            sector = np.insert(sector, places, lost_sector)
            sectors = np.insert(sectors, places, lost_sectors)
            signs = np.insert(signs, places, -1)
        overlapped, unmatched = self._count(self._pieces(sector, sectors, signs))
        return InFlightReport(overlapped, unmatched, failed, unstable)

    def blocks_in_flight(self, blocks: BlockNumbers) -> npt.NDArray[np.bool_]:
        """One truth value for each of ``blocks``: whether a write to it is in flight."""
        return self.extents().mask(blocks)

    def extents(self) -> Runs:
        """Every block with a write in flight."""
        return Runs.of_ranges(self._state.firsts, self._state.ends)

    @property
    def empty(self) -> bool:
        return not self._state.firsts.size

    def begin_wait(self) -> None:
        """Remember everything in flight now, for ``wait_done``, in the place of anything remembered before."""
        self._waited = self._state
        self._forgot_wait = False

    @property
    def wait_done(self) -> bool:
        """Whether everything that was in flight at ``begin_wait`` has completed.

        Completions of one block do not tell its overlapping writes apart: of a block that was submitted to again
        since, everything in flight is waited for, which may last as long as somebody keeps it busy (see
        ``only_mixed_left``). After a ``reset`` the answer is False until ``begin_wait`` is called again. True when
        nothing was ever waited for.
        """
        return not self._forgot_wait and not self._waited.firsts.size

    @property
    def only_mixed_left(self) -> bool:
        """Whether nothing is waited for but blocks that were submitted to again before their completions."""
        return not self._forgot_wait and bool((self._waited.deltas >= _MIXED).all())

    def forget_waited(self) -> Runs:
        """Take what is still waited for out of what is in flight: its completion was never shown. The blocks.

        What the disk holds of them is unknown until they are read again.
        """
        state, waited = self._state, self._waited
        self._waited = _Pieces.none()
        if not waited.firsts.size:
            return Runs.none()
        cuts = distinct(np.concatenate([part for p in (state, waited) for part in (p.firsts, p.ends)]))
        cells = np.arange(cuts.size - 1)
        left = np.maximum(_value_at(state, cuts[:-1]) - _value_at(waited, cuts[:-1]) % _MIXED, 0)
        self._state = _replaced(state, cuts, cells, left)
        return Runs.of_ranges(waited.firsts, waited.ends)

    def reset(self) -> None:
        """Forget everything, after records were lost."""
        self._forgot_wait = self._forgot_wait or bool(self._waited.firsts.size)
        self._state = _Pieces.none()
        self._waited = _Pieces.none()
        self._bios.clear()
        self.certain = False

    def trust(self) -> None:
        """The caller knows that every write submitted before the records it has applied has completed."""
        self.certain = True

    # Records to pieces.

    def _touched(self, sector: Integers, sectors: Integers, which: npt.NDArray[np.bool_]) -> Runs:
        if not which.any():
            return Runs.none()
        unit = self.geometry.block_sectors
        sector, sectors = sector[which & (sectors > 0)], sectors[which & (sectors > 0)]
        return Runs.of_ranges(sector // unit, -(-(sector + sectors) // unit))

    def _match_bios(
        self,
        cookies: npt.NDArray[np.uint64],
        sector: Integers,
        sectors: Integers,
        signs: Integers,
        by_bio: npt.NDArray[np.bool_],
    ) -> list[tuple[int, int, int]]:
        """Give a bio's completion the very range its submission had, in place; unknown bios' get the sign 0.

        The range of the submission is also what has failed when the completion carries an error: a bio that was
        split takes over the errors of its parts. A bio submitted again under a cookie that is in flight: the first
        one's completion was never seen. Its range is returned, as (place to take it out before, sector, sectors).
        """
        lost: list[tuple[int, int, int]] = []
        for place in np.flatnonzero(by_bio).tolist():
            cookie = int(cookies[place])
            known = self._bios.pop(cookie, None)
            if signs[place] > 0:
                if known is not None:
                    lost.append((place, *known))
                self._bios[cookie] = int(sector[place]), int(sectors[place])
            elif known is not None:
                sector[place], sectors[place] = known
            else:
                signs[place] = 0
        return lost

    def _pieces(self, sector: Integers, sectors: Integers, signs: Integers) -> _Pieces:
        """Cut each range into a partial first block, whole blocks, and a partial last block. Sign 0: left out."""
        if not signs.all():
            sector, sectors, signs = sector[signs != 0], sectors[signs != 0], signs[signs != 0]
        unit = self.geometry.block_sectors
        end = sector + sectors
        if not ((sector | end) & (unit - 1)).any():
            return _Pieces(sector // unit, end // unit, signs * unit)
        first, last = sector // unit, (end - 1) // unit
        single = first == last
        whole_first = -(-sector // unit)
        whole_end = np.where(single, whole_first, end // unit)
        head_end = np.where(single, first + 1, whole_first)
        tail_first = np.maximum(whole_first, whole_end)
        tail_end = np.where(single, tail_first, -(-end // unit))
        head = np.where(single, sectors, whole_first * unit - sector)
        whole = np.full(sector.size, unit)
        firsts = np.column_stack((first, whole_first, tail_first)).ravel()
        ends = np.column_stack((head_end, np.maximum(whole_end, whole_first), tail_end)).ravel()
        deltas = np.column_stack((head, whole, end - whole_end * unit)).ravel() * np.repeat(signs, 3)
        filled = ends > firsts
        return _Pieces(firsts[filled], ends[filled], deltas[filled])

    # Pieces to counts.

    def _count(self, pieces: _Pieces) -> tuple[Runs, Runs]:
        """Add the changes to the state in order; the blocks overlapped, and those that fell below nothing."""
        if not pieces.firsts.size:
            return Runs.none(), Runs.none()
        state, waited = self._state, self._waited
        cuts = distinct(np.concatenate([part for p in (state, waited, pieces) for part in (p.firsts, p.ends)]))
        low, high = np.searchsorted(cuts, pieces.firsts), np.searchsorted(cuts, pieces.ends)
        if pieces.firsts.size > 1 and int((high - low).sum()) > _MAX_CELLS:
            half = pieces.firsts.size // 2
            one = self._count(pieces.part(0, half))
            other = self._count(pieces.part(half, pieces.firsts.size))
            return _union(one[0], other[0]), _union(one[1], other[1])
        cells = Runs(low, high - low).blocks()
        deltas = np.repeat(pieces.deltas, high - low)
        order = np.argsort(cells, kind="stable")
        cells, deltas = cells[order], deltas[order]
        heads = np.flatnonzero(changes(cells))
        sizes = np.append(heads[1:], cells.size) - heads
        base = _value_at(state, cuts[cells[heads]])
        after, negative = _running(deltas, heads, sizes, base)
        before = np.empty_like(after)
        before[1:] = after[:-1]
        before[heads] = base
        self._state = _replaced(state, cuts, cells[heads], after[heads + sizes - 1])
        if waited.firsts.size:
            left = _left_to_wait(_value_at(waited, cuts[cells[heads]]), deltas, before, after, heads, sizes)
            self._waited = _replaced(waited, cuts, cells[heads], left)
        overlapped = cells[(deltas > 0) & (before > 0)]
        unmatched = cells[negative]
        return _cell_extents(cuts, overlapped), _cell_extents(cuts, unmatched)


def _running(
    deltas: Integers, heads: Integers, sizes: Integers, base: Integers
) -> tuple[BlockNumbers, npt.NDArray[np.bool_]]:
    """The count after each change, in segments that begin at ``heads`` with ``base``; it never falls below zero.

    And which changes would have made it fall below.
    """
    sums = np.cumsum(deltas)
    after = sums + np.repeat(base - sums[heads] + deltas[heads], sizes)
    if after.min() >= 0:
        return after, np.zeros(deltas.size, np.bool_)
    # Clamping at zero lifts everything that follows by the deepest fall so far. One running minimum serves all
    # segments when each lies wholly below the one before it.
    span = int(after.max() - after.min()) + 1
    step = np.repeat(np.arange(heads.size, dtype=np.int64) * span, sizes)
    deepest = np.minimum.accumulate(np.minimum(after, 0) - step) + step
    negative = after < np.minimum(0, np.append(0, deepest[:-1]))
    negative[heads] = after[heads] < 0
    return after - deepest, negative


def _left_to_wait(
    old: Integers, deltas: Integers, before: Integers, after: Integers, heads: Integers, sizes: Integers
) -> BlockNumbers:
    """The writes that are still waited for in each segment, after its changes; ``old``: before them."""
    drops = np.where(deltas < 0, before - after, 0)
    sums = np.cumsum(drops)
    done_before = sums - drops
    done_before -= np.repeat(done_before[heads], sizes)
    places = np.arange(deltas.size)
    mixes = (deltas > 0) & (np.repeat(old, sizes) > done_before)
    since = np.minimum.reduceat(np.where(mixes, places, deltas.size), heads)
    since = np.where(old >= _MIXED, heads, since)
    rests = (after == 0) & (places >= np.repeat(since, sizes))
    busy = np.where(np.add.reduceat(rests.astype(np.int64), heads) > 0, 0, _MIXED + after[heads + sizes - 1])
    return np.where(since < deltas.size, busy, np.maximum(old - np.add.reduceat(drops, heads), 0))


def _value_at(pieces: _Pieces, blocks: BlockNumbers) -> BlockNumbers:
    """The state's count at each of ``blocks``."""
    if not pieces.firsts.size:
        return np.zeros(blocks.size, np.int64)
    run = np.searchsorted(pieces.firsts, blocks, side="right") - 1
    return np.where((run >= 0) & (blocks < pieces.ends[run]), pieces.deltas[run], 0)


def _replaced(state: _Pieces, cuts: Integers, cells: Integers, values: Integers) -> _Pieces:
    """The state with new counts in some cells, zeroes left out and equal neighbours joined."""
    counts = _value_at(state, cuts[:-1])
    counts[cells] = values
    joined = np.flatnonzero(changes(counts))
    ends = np.append(cuts[joined[1:]], cuts[-1])
    firsts, counts = cuts[joined], counts[joined]
    kept = counts > 0
    return _Pieces(firsts[kept], ends[kept], counts[kept])


def _cell_extents(cuts: Integers, cells: Integers) -> Runs:
    if not cells.size:
        return Runs.none()
    cells = distinct(cells)
    return Runs.of_ranges(cuts[cells], cuts[cells + 1])


def _union(one: Runs, other: Runs) -> Runs:
    return Runs.of_ranges(np.append(one.firsts, other.firsts), np.append(one.ends(), other.ends()))

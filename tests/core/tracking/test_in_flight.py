"""Writes in flight: overlapping ones are reported, sequential ones never are, whatever the kernel splits or merges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.runs import Runs
from pydbt.core.tracking import in_flight
from pydbt.core.tracking.capture_record import RECORD, RecordFlag, RecordKind
from pydbt.core.tracking.in_flight import InFlight, InFlightReport
from pydbt.core.units import GIB, SECTOR_BYTES, Geometry

BLOCK_SECTORS = 8
SUBMIT, COMPLETE = RecordKind.SUBMIT, RecordKind.COMPLETE


def records(*rows: tuple[int, ...]) -> np.ndarray:
    """Rows of kind, sector, sectors, and if wanted flags and cookie."""
    table = np.zeros(len(rows), RECORD)
    for record, row in zip(table, rows, strict=True):
        record["kind"], record["sector"], record["sectors"], record["flags"], record["cookie"] = (*row, 0, 0)[:5]
    return table


def writes(blocks: int = 64) -> InFlight:
    return InFlight(Geometry(blocks * BLOCK_SECTORS * SECTOR_BYTES))


def numbers(extents: Runs) -> list[int]:
    return extents.blocks().tolist()


def test_two_sequential_writes_of_a_block_are_not_reported() -> None:
    writing = writes()
    report = writing.apply(records((SUBMIT, 0, 8), (COMPLETE, 0, 8), (SUBMIT, 0, 8)))
    assert not any(map(numbers, (report.overlapped, report.unmatched, report.failed, report.unstable)))
    assert not writing.empty
    report = writing.apply(records((COMPLETE, 0, 8), (SUBMIT, 0, 8), (COMPLETE, 0, 8)))
    assert not any(map(numbers, (report.overlapped, report.unmatched)))
    assert writing.empty


def test_a_write_submitted_before_another_to_its_block_completed_is_reported() -> None:
    writing = writes()
    writing.apply(records((SUBMIT, 0, 24)))
    report = writing.apply(records((SUBMIT, 16, 16), (COMPLETE, 0, 24)))
    assert numbers(report.overlapped) == [2]
    assert writing.blocks_in_flight(np.array([3, 1, 2, 63])).tolist() == [True, False, True, False]


def test_merged_and_split_requests_balance() -> None:
    writing = writes()
    report = writing.apply(records((SUBMIT, 3, 10), (SUBMIT, 13, 20), (COMPLETE, 3, 1), (COMPLETE, 4, 29)))
    assert writing.empty
    assert numbers(report.unmatched) == []


def test_a_discard_of_four_gigabytes_completes_in_pieces_and_is_exact_about_a_small_write_in_its_middle() -> None:
    writing = InFlight(Geometry(8 * GIB))
    sectors, piece = 4 * GIB // SECTOR_BYTES, GIB // 4 // SECTOR_BYTES
    assert numbers(writing.apply(records((SUBMIT, 0, sectors))).overlapped) == []
    report = writing.apply(records((SUBMIT, 8000, 8), (SUBMIT, sectors, 8)))
    assert numbers(report.overlapped) == [1000]
    report = writing.apply(records(*((COMPLETE, sector, piece) for sector in range(0, sectors, piece))))
    assert numbers(report.unmatched) == []
    assert writing.extents().firsts.tolist() == [1000, sectors // 8]
    report = writing.apply(records((SUBMIT, 0, sectors), (COMPLETE, 8000, 8)))
    assert numbers(report.overlapped) == [1000]


def test_a_completion_nobody_submitted_is_reported_and_counts_as_nothing() -> None:
    writing = writes()
    report = writing.apply(records((COMPLETE, 8, 8), (SUBMIT, 8, 8), (SUBMIT, 16, 8), (COMPLETE, 16, 16)))
    assert numbers(report.unmatched) == [1, 3]
    assert numbers(writing.extents()) == [1]


def test_failed_and_unstable_completions_are_named_block_by_block() -> None:
    writing = writes()
    rows = (SUBMIT, 0, 40), (COMPLETE, 0, 12, RecordFlag.ERROR), (COMPLETE, 12, 28, RecordFlag.UNSTABLE)
    report = writing.apply(records(*rows))
    assert (numbers(report.failed), numbers(report.unstable)) == ([0, 1], [1, 2, 3, 4])
    assert writing.empty


def test_a_bio_is_matched_by_its_cookie_and_a_clones_completion_takes_nothing_away() -> None:
    writing = writes()
    bio = RecordFlag.BIO_BASED
    writing.apply(records((SUBMIT, 0, 32, bio, 7)))
    report = writing.apply(records((COMPLETE, 0, 16, bio | RecordFlag.ERROR, 8)))
    assert (numbers(report.failed), numbers(report.unmatched)) == ([0, 1], [])
    assert numbers(writing.extents()) == [0, 1, 2, 3]
    # By then the bio has advanced to its end: it still takes out what it brought in, and failed as a whole.
    report = writing.apply(records((COMPLETE, 32, 0, bio | RecordFlag.ERROR, 7)))
    assert writing.empty
    assert numbers(report.failed) == [0, 1, 2, 3]


def test_a_cookie_that_comes_again_ends_the_write_that_had_it() -> None:
    writing = writes()
    rows = (SUBMIT, 0, 16, RecordFlag.BIO_BASED, 7), (SUBMIT, 8, 16, RecordFlag.BIO_BASED, 7)
    report = writing.apply(records(*rows))
    assert numbers(report.overlapped) == []
    assert numbers(writing.extents()) == [1, 2]


def test_empty_records_and_other_kinds_are_passed_over() -> None:
    writing = writes()
    report = writing.apply(records((SUBMIT, 0, 0), (COMPLETE, 0, 0, RecordFlag.ERROR), (3, 0, 8)))
    assert writing.empty
    assert numbers(report.failed) == []
    writing.apply(records())


def test_a_wait_ends_when_everything_in_flight_at_its_beginning_has_completed() -> None:
    writing = writes()
    assert writing.wait_done
    writing.apply(records((SUBMIT, 0, 16), (SUBMIT, 80, 8)))
    writing.begin_wait()
    writing.apply(records((COMPLETE, 0, 16), (SUBMIT, 8, 8), (SUBMIT, 160, 8)))
    assert not writing.wait_done
    writing.apply(records((COMPLETE, 80, 8)))
    assert writing.wait_done
    assert not writing.empty


def test_after_a_loss_nothing_is_certain_until_the_caller_trusts_it() -> None:
    writing = writes()
    assert not writing.certain
    writing.trust()
    assert writing.certain
    writing.apply(records((SUBMIT, 0, 8)))
    writing.begin_wait()
    writing.reset()
    assert (writing.certain, writing.empty, writing.wait_done) == (False, True, False)
    writing.trust()
    assert not writing.wait_done, "what was waited for is unknown now"
    writing.begin_wait()
    assert writing.wait_done


def test_a_record_outside_the_volume_is_refused_and_changes_nothing() -> None:
    writing = writes(4)
    for row in ((SUBMIT, 32, 1), (SUBMIT, 31, 2), (COMPLETE, 2**64 - 1, 1), (SUBMIT, 2**63 - 1, 2)):
        with pytest.raises(ValueError):
            writing.apply(records((SUBMIT, 0, 8), row))
    assert writing.empty


SECTORS = 50  # six blocks and a short last one
span = st.tuples(st.integers(0, SECTORS - 1), st.integers(0, SECTORS)).map(lambda s: (s[0], min(s[1], SECTORS - s[0])))
flags = st.sampled_from([0, 0, 0, RecordFlag.ERROR, RecordFlag.UNSTABLE, RecordFlag.ERROR | RecordFlag.UNSTABLE])
by_request = st.tuples(st.sampled_from([SUBMIT, COMPLETE]), span, flags, st.just(0))
by_bio = st.tuples(st.sampled_from([SUBMIT, COMPLETE]), span, flags.map(RecordFlag.BIO_BASED.__or__), st.integers(1, 3))
row = st.one_of(by_request, by_bio).map(lambda r: (r[0], *r[1], r[2], r[3]))
WAIT = "wait"


class Naive:
    """Sector by sector, record by record, with plain numbers."""

    def __init__(self) -> None:
        self.count: dict[int, int] = {}
        self.wait: dict[int, int] = {}
        self.mixed: set[int] = set()
        self.bios: dict[int, tuple[int, int]] = {}

    def change(self, sector: int, sectors: int, sign: int, overlapped: set[int], unmatched: set[int]) -> None:
        per_block: dict[int, int] = {}
        for one in range(sector, sector + sectors):
            per_block[one // BLOCK_SECTORS] = per_block.get(one // BLOCK_SECTORS, 0) + 1
        for block, size in per_block.items():
            before = self.count.get(block, 0)
            if sign > 0 and before:
                overlapped.add(block)
            if sign < 0 and before < size:
                unmatched.add(block)
            self.count[block] = max(0, before + sign * size)
            if sign > 0 and self.wait.get(block):
                self.mixed.add(block)
            if block in self.mixed:
                # Nobody can tell whose completion is whose: everything in flight to it is waited for.
                self.wait[block] = self.count[block]
                if not self.count[block]:
                    self.mixed.discard(block)
            elif sign < 0:
                self.wait[block] = max(0, self.wait.get(block, 0) - (before - self.count[block]))

    def apply(self, rows: list[tuple[int, ...]]) -> tuple[set[int], ...]:
        overlapped, unmatched, failed, unstable = set(), set(), set(), set()
        for kind, sector, sectors, flag, cookie in rows:
            by_bio = bool(flag & RecordFlag.BIO_BASED)
            if kind == COMPLETE and by_bio and cookie in self.bios:
                sector, sectors = self.bios[cookie]
            touched = {one // BLOCK_SECTORS for one in range(sector, sector + sectors)}
            if not touched:
                continue
            if kind == COMPLETE:
                failed |= touched if flag & RecordFlag.ERROR else set()
                unstable |= touched if flag & RecordFlag.UNSTABLE else set()
            if by_bio:
                known = self.bios.pop(cookie, None)
                if known:
                    self.change(*known, -1, overlapped, unmatched)
                if kind == SUBMIT:
                    self.bios[cookie] = sector, sectors
                    self.change(sector, sectors, 1, overlapped, unmatched)
            else:
                self.change(sector, sectors, 1 if kind == SUBMIT else -1, overlapped, unmatched)
        return overlapped, unmatched, failed, unstable


def compare(batches: list[list[tuple[int, ...]] | str]) -> None:
    writing, naive = InFlight(Geometry(SECTORS * SECTOR_BYTES)), Naive()
    for batch in batches:
        if batch == WAIT:
            writing.begin_wait()
            naive.wait, naive.mixed = dict(naive.count), set()
            continue
        report: InFlightReport = writing.apply(records(*batch))
        got = report.overlapped, report.unmatched, report.failed, report.unstable
        assert [set(numbers(extents)) for extents in got] == list(naive.apply(batch))
        in_flight_now = [block for block, count in sorted(naive.count.items()) if count]
        assert numbers(writing.extents()) == in_flight_now
        assert writing.blocks_in_flight(np.arange(7)).tolist() == [block in in_flight_now for block in range(7)]
        assert writing.wait_done == (not any(naive.wait.values()))
        if not writing.wait_done:
            assert writing.only_mixed_left == all(block in naive.mixed for block, left in naive.wait.items() if left)


history = st.lists(st.one_of(st.lists(row, max_size=12), st.just(WAIT)), max_size=6)


@settings(deadline=None)
@given(history)
@example([[(COMPLETE, 0, 8, 0, 0), (SUBMIT, 0, 9, 0, 0)], WAIT, [(COMPLETE, 0, 9, 0, 0), (COMPLETE, 8, 1, 0, 0)]])
def test_agrees_with_counting_sector_by_sector(batches: list[list[tuple[int, ...]] | str]) -> None:
    compare(batches)


@settings(deadline=None)
@given(history)
def test_agrees_when_a_batch_is_too_large_to_be_cut_at_once(batches: list[list[tuple[int, ...]] | str]) -> None:
    limit, in_flight._MAX_CELLS = in_flight._MAX_CELLS, 4
    try:
        compare(batches)
    finally:
        in_flight._MAX_CELLS = limit

"""On a volume with write-intent no write is sent before it has completed."""

from __future__ import annotations

from math import inf

import numpy as np

from pydbt.core.tracking.capture_record import RECORD, RecordKind
from pydbt.core.tracking.uncompleted import Uncompleted


def apply(uncompleted: Uncompleted, *rows: tuple[RecordKind, int], first: int = 1) -> None:
    """Rows of (kind, cookie); every submission is a write of one update."""
    records = np.zeros(len(rows), RECORD)
    for row, (kind, cookie) in zip(records, rows, strict=True):
        row["kind"], row["cookie"] = kind, cookie
    is_write = records["kind"] == RecordKind.SUBMIT
    uncompleted.apply(records, is_write, np.arange(first, first + int(is_write.sum())))


def test_the_stream_ends_before_the_first_write_that_has_not_completed() -> None:
    uncompleted = Uncompleted()
    assert uncompleted.sendable_through == inf
    apply(uncompleted, (RecordKind.SUBMIT, 10), (RecordKind.SUBMIT, 11))
    assert uncompleted.sendable_through == 0
    apply(uncompleted, (RecordKind.COMPLETE, 10))
    assert uncompleted.sendable_through == 1
    apply(uncompleted, (RecordKind.COMPLETE, 11))
    assert uncompleted.sendable_through == inf


def test_a_flush_is_no_write_and_completes_nothing() -> None:
    uncompleted = Uncompleted()
    apply(uncompleted, (RecordKind.SUBMIT, 10))
    flush = np.zeros(1, RECORD)
    flush["kind"], flush["cookie"] = RecordKind.SUBMIT, 11
    uncompleted.apply(flush, np.array([False]), np.empty(0, np.int64))
    assert uncompleted.sendable_through == 0


def test_a_cookie_that_is_used_again_tells_that_its_write_has_ended() -> None:
    uncompleted = Uncompleted()
    apply(uncompleted, (RecordKind.SUBMIT, 10), (RecordKind.SUBMIT, 11), (RecordKind.SUBMIT, 10))
    assert uncompleted.sendable_through == 1, "write 1 has ended unseen; 2 is the first in flight"


def test_writes_that_ended_unseen_are_forgotten_and_a_halt_forgets_all() -> None:
    uncompleted = Uncompleted()
    apply(uncompleted, (RecordKind.SUBMIT, 10), (RecordKind.SUBMIT, 11))
    uncompleted.forget(1)
    assert uncompleted.sendable_through == 1
    uncompleted.clear()
    assert uncompleted.sendable_through == inf

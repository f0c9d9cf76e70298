"""A time that a file system recorded is told as people write it, and one that no calendar has is none."""

from __future__ import annotations

from pydbt.core.calendar import time_of_ns


def test_times_are_told_in_milliseconds_of_utc() -> None:
    assert time_of_ns(0) == "1970-01-01T00:00:00.000Z"
    assert time_of_ns(1_795_968_429_326_957_733) == "2026-11-29T16:07:09.326Z"


def test_a_time_that_no_calendar_has_is_none() -> None:
    assert time_of_ns(1 << 62) == "2116-02-20T23:53:38.427Z"
    assert time_of_ns(1 << 80) is None

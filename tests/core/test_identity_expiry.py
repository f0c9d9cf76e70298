"""The end of an identity is told thirty days ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pydbt.core.identity_expiry import WARN_BEFORE, expiry_problem

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=31), ""),
        (WARN_BEFORE + timedelta(seconds=1), ""),
        (WARN_BEFORE, "in 30 days"),
        (timedelta(days=2), "in 2 days"),
        (timedelta(hours=47, minutes=59), "in 47 hours"),
        (timedelta(minutes=59), "in less than an hour"),
        (timedelta(0), "expired at 2026-11-28T12:00:00+00:00: no connection can be made any more"),
        (timedelta(days=-400), "expired at"),
    ],
)
def test_it_is_told_from_thirty_days_ahead_with_what_to_do(left: timedelta, words: str) -> None:
    problem = expiry_problem(NOW + left, NOW)
    assert bool(problem) is bool(words) and words in problem
    assert not problem or ("pki issue" in problem and "SIGHUP" in problem)

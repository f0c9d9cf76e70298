"""What is repeated is never put off for longer than from one time to the next, whatever the clock has said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.primary.schedule import due_in_s

YEARS_S = 10 * 365 * 86400.0


@pytest.mark.parametrize(
    ("since_s", "due_s"), [(None, 0.0), (0.0, 60.0), (20.0, 40.0), (60.0, 0.0), (YEARS_S, 0.0), (-YEARS_S, 60.0)]
)
def test_it_is_counted_from_the_last_time(since_s: float | None, due_s: float) -> None:
    assert due_in_s(60.0, since_s) == due_s


@given(st.floats(min_value=1.0, max_value=YEARS_S), st.floats(min_value=-YEARS_S, max_value=YEARS_S))
def test_it_is_due_within_one_interval(every_s: float, since_s: float) -> None:
    assert 0.0 <= due_in_s(every_s, since_s) <= every_s

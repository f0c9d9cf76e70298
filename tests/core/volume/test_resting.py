"""A volume at rest wakes for several deadlines at once, and none of them is met too late."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.volume.resting import wake_at

times = st.floats(min_value=0, max_value=10, allow_nan=False)


def test_deadlines_that_lie_close_together_are_met_together() -> None:
    assert wake_at([5.0, 5.3, 6.0, inf], 0.5) == 5.3
    assert wake_at([5.0, 5.6], 0.5) == 5.0
    assert wake_at([inf], 0.5) == inf


@given(st.lists(times, min_size=1))
def test_no_deadline_is_met_later_than_is_allowed_and_none_is_missed_by_sleeping_on(deadlines: list[float]) -> None:
    at = wake_at(deadlines, 0.5)
    assert min(deadlines) <= at <= min(deadlines) + 0.5
    assert not [one for one in deadlines if at < one <= min(deadlines) + 0.5]

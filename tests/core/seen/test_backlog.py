"""A stream falls behind when its backlog grows for long; a burst, a pause and a gap are no growth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pydbt.core.seen.backlog import BACKLOG_PART_S, BACKLOG_PARTS, BacklogWatch
from pydbt.core.seen.view import View
from pydbt.core.units import KIB, MIB

WINDOW_S = BACKLOG_PARTS * BACKLOG_PART_S


def stream(backlog: float | None, **changes: Any) -> View:
    return View({"mode": "normal", "connected": True, "lag_bytes": backlog, **changes})


def growth(backlog_at: Callable[[float], float | None], seconds: float = 40.0, step_s: float = 0.8) -> float | None:
    watch = BacklogWatch()
    for count in range(int(seconds / step_s) + 1):
        watch.look(1000.0 + count * step_s, stream(backlog_at(count * step_s)))
    return watch.growth_bytes


def test_a_backlog_that_grows_for_long_is_told_with_its_rate() -> None:
    assert growth(lambda now: 3 * MIB * now) == pytest.approx(3 * MIB, rel=0.1)
    assert growth(lambda now: 3 * MIB * now, seconds=WINDOW_S - 1.0) is None, "not long enough"
    saw = growth(lambda now: MIB * now + 8 * MIB * (now % 2.4 / 2.4))
    assert saw == pytest.approx(MIB, rel=0.4), "bursts on it change little"


@pytest.mark.parametrize(
    "backlog_at",
    [
        lambda now: 0.0,
        lambda now: 20 * MIB,
        lambda now: 50 * MIB * (now % 4.0 < 1.0),
        lambda now: max(100 * MIB - 2 * MIB * now, 0.0),
        lambda now: min(5 * MIB * now, 60 * MIB),
        lambda now: 64 * KIB * now,
        lambda now: 30 * MIB if now > 38.0 else 0.0,
        lambda now: None if 39.0 < now < 39.4 else 5 * MIB * now,
    ],
    ids=["nothing", "steady", "bursts", "worked-off", "it-grew-once", "slowly", "a-burst-now", "unknown-between"],
)
def test_a_backlog_that_does_not_grow_for_long_is_no_growth(backlog_at: Callable[[float], float | None]) -> None:
    assert growth(backlog_at) is None


@pytest.mark.parametrize(
    "change", [{"lag_bytes": None}, {"mode": "resynchronizing"}, {"connected": False}, {"mode": None}]
)
def test_one_moment_without_a_stream_makes_the_past_count_no_more(change: dict[str, Any]) -> None:
    watch = BacklogWatch()
    for second in range(40):
        watch.look(float(second), stream(second * MIB))
    assert watch.growth_bytes == pytest.approx(MIB)
    watch.look(40.0, stream(40 * MIB, **change))
    assert watch.growth_bytes is None
    for second in range(41, 50):
        watch.look(float(second), stream(second * MIB))
    assert watch.growth_bytes is None


def test_a_time_in_which_nobody_looked_is_no_growth() -> None:
    watch = BacklogWatch()
    for moment in (0.0, 1.0, 2.0, 30.0, 31.0):
        watch.look(moment, stream(moment * MIB))
    assert watch.growth_bytes is None
    sparse = BacklogWatch()
    for moment in (0.0, 4.9, 9.8, 14.7, 14.95, 15.0):
        sparse.look(moment, stream(moment * MIB))
    assert sparse.growth_bytes == MIB, "of few looks it is the same"

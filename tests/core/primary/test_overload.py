"""A full log that is no burst any more."""

from __future__ import annotations

from pydbt.core.primary.overload import Overload


def test_an_overload_that_lasts_is_told_and_a_burst_is_not():
    overload = Overload()

    def warnings(times: list[float]) -> int:
        return sum(bool(overload.note(now, 0.0)) for now in times)

    assert warnings([0.0, 30.0, 100.0, 130.0, 200.0]) == 0
    assert warnings([300.0 + second for second in range(5)]) == 1

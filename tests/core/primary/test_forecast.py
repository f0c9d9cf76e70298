"""The forecast of a synchronization goes by the last seconds; where nothing moves it tells that, and no time."""

from __future__ import annotations

from pydbt.core.primary.forecast import PACE_WINDOW_S, STILL_S, Forecast
from pydbt.core.units import MIB


def run(
    forecast: Forecast, start: float, seconds: int, done: int, left: int, *, done_s: int, left_s: int
) -> tuple[int, int]:
    """Per second ``done_s`` bytes more are done, and ``left_s`` fewer are left."""
    for second in range(seconds):
        forecast.observe(start + second, done, left)
        done, left = done + done_s, left - left_s
    return done, left


def test_the_rate_is_that_of_the_last_seconds_and_not_of_the_whole() -> None:
    forecast = Forecast(0.0)
    done, left = run(forecast, 0.0, 600, 0, 4096 * MIB, done_s=MIB, left_s=MIB)
    done, left = run(forecast, 600.0, 60, done, left, done_s=8 * MIB, left_s=8 * MIB)
    pace = forecast.pace(660.0, done, left)
    assert 7 * MIB < pace.rate_bytes <= 8 * MIB and pace.still_seconds is None
    assert pace.eta_seconds is not None and abs(pace.eta_seconds - left / (8 * MIB)) < PACE_WINDOW_S


def test_a_synchronization_that_stands_still_has_no_forecast() -> None:
    forecast = Forecast(0.0)
    done, left = run(forecast, 0.0, 2, 0, 429 * MIB, done_s=MIB, left_s=MIB)
    run(forecast, 2.0, 900, done, left, done_s=0, left_s=0)
    pace = forecast.pace(902.0, done, left)
    assert (pace.rate_bytes, pace.eta_seconds, pace.still_seconds) == (0.0, None, 900.0)
    assert forecast.pace(2.0 + STILL_S / 2, done, left).still_seconds is None


def test_where_as_much_is_written_as_is_copied_no_end_is_in_sight() -> None:
    forecast = Forecast(0.0)
    done, left = run(forecast, 0.0, 30, 0, 429 * MIB, done_s=MIB, left_s=0)
    pace = forecast.pace(30.0, done, left)
    assert pace.rate_bytes > 0 and pace.eta_seconds is None
    assert forecast.pace(30.0, done, 0).eta_seconds == 0.0


def test_before_anything_was_seen_nothing_is_told() -> None:
    pace = Forecast(5.0).pace(5.0, 0, MIB)
    assert (pace.rate_bytes, pace.eta_seconds, pace.still_seconds) == (0.0, None, None)


def test_in_the_first_seconds_the_network_s_own_rate_makes_the_forecast() -> None:
    forecast = Forecast(0.0)
    done, left = run(forecast, 0.0, 2, 0, 400 * MIB, done_s=MIB, left_s=MIB)
    assert forecast.pace(2.0, done, left, 10 * MIB).eta_seconds == left / (10 * MIB)
    assert forecast.pace(2.0, done, left, None).eta_seconds == left / MIB
    done, left = run(forecast, 2.0, 8, done, left, done_s=MIB, left_s=MIB)
    assert forecast.pace(10.0, done, left, 10 * MIB).eta_seconds == left / MIB, "then only what was done counts"

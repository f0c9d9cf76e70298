"""Moments of the monotonic clock as people read them, also when the machine was suspended in between."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from pydbt.core.suspensions import Suspensions

_suspensions = Suspensions()  # of this machine


def passed_s(at: float, now: float) -> float:
    """Seconds since a moment of the monotonic clock, with those of suspensions; ``now`` is that clock's, too."""
    look_at_clocks()
    return _suspensions.passed_s(at, now)


def look_at_clocks() -> None:
    """Find a suspension soon after it: what comes later is not told as from before it."""
    _suspensions.read(time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME))


def wall_moment(at: float, now: float, precision: str = "seconds") -> str:
    """RFC 3339, by the present wall clock."""
    return (datetime.now(UTC) - timedelta(seconds=passed_s(at, now))).isoformat(timespec=precision)

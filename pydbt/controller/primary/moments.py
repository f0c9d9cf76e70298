"""Moments of the monotonic clock as people read them, also when the machine was suspended in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydbt.controller.clocks import passed_s
from pydbt.core.calendar import in_utc


def wall_moment(at: float, now: float, precision: str = "seconds") -> str:
    """RFC 3339, by the present wall clock."""
    return moment_ago(passed_s(at, now), precision)


def moment_ago(ago_s: float, precision: str = "milliseconds", wall: datetime | None = None) -> str:
    """RFC 3339: this many seconds before ``wall``, which is the present wall clock without it."""
    return in_utc((wall or datetime.now(UTC)) - timedelta(seconds=ago_s), precision)

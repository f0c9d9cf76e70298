"""Moments of the monotonic clock as people read them, also when the machine was suspended in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydbt.controller.clocks import passed_s


def wall_moment(at: float, now: float, precision: str = "seconds") -> str:
    """RFC 3339, by the present wall clock."""
    return (datetime.now(UTC) - timedelta(seconds=passed_s(at, now))).isoformat(timespec=precision)

"""Moments as people and programs write them (RFC 3339), also those that somebody else has recorded."""

from __future__ import annotations

from datetime import UTC, datetime


def in_utc(moment: datetime, precision: str = "milliseconds") -> str:
    """RFC 3339, with a Z; ``moment`` is in UTC."""
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def moment_of_ns(nanoseconds: int) -> datetime | None:
    """The moment, in UTC, of nanoseconds since 1970; None when no calendar has it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError, OSError):
        return None


def time_of_ns(nanoseconds: int) -> str | None:
    """RFC 3339, in milliseconds, of nanoseconds since 1970; None when no calendar has it."""
    moment = moment_of_ns(nanoseconds)
    return None if moment is None else in_utc(moment)

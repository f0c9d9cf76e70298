"""Times that a file system recorded, as people and programs write them."""

from __future__ import annotations

from datetime import UTC, datetime


def time_of_ns(nanoseconds: int) -> str | None:
    """RFC 3339, in milliseconds, of nanoseconds since 1970; None when no calendar has it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        then = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError, OSError):
        return None
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""One transaction of the file system at its place in the stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NamedTransaction:
    """One transaction in the stream. ``number``: what ``controller wait --transaction`` compares. ``sequence``: of the write that
    ended it; ``submitted_at``: when that was submitted, by the monotonic clock. ``ordinal``: counts all that ended.
    ``batch_end``: the last sequence number of the batch; what a batch unsettles goes back to that, whatever write it was.

    Of one that was read from the log on the disk ``sequence`` is that of a later write, and ``submitted_at`` is perhaps unknown.
    """

    name: str
    number: int
    committed_ns: int | None
    submitted_at: float | None
    sequence: int
    ordinal: int
    batch_end: int

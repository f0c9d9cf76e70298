"""The frame that tells a secondary how far the volume is."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.protocol.frame_checks import check_text, check_u64

STANDING = "standing"
"""In WELCOME's features: the secondary understands STANDING frames."""
UNKNOWN_STANDING = "unknown-standing"
"""In WELCOME's features: the secondary understands a STANDING that does not know how much it lacks."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the volume is, once per second: what would be lost if the secondary were promoted now.

    ``host`` and ``source`` name the primary, for people. Every write that was submitted before ``moment`` (RFC 3339, the
    primary's clock) has a sequence number of at most ``sequence``, if the writes are ``followed`` and none is unaccounted
    for. ``behind_bytes`` is the most that the secondary lacks, None where that is not known.
    """

    host: str
    source: str
    moment: str
    sequence: int
    followed: bool
    behind_bytes: int | None

    def __post_init__(self) -> None:
        check_text("host", self.host, 256)
        check_text("source", self.source)
        check_text("moment", self.moment, 64)
        check_u64("sequence", self.sequence)
        if self.behind_bytes is not None:
            check_u64("behind_bytes", self.behind_bytes)

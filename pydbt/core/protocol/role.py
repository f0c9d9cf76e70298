"""The question for the role of a side, and its answer: asked by an old primary before its volume is checked and mounted."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.protocol.frame_checks import check_text, check_u64, check_volume
from pydbt.core.protocol.generations import Generations

ASKS_ROLE = "asks-role"
"""In HELLO's features: nothing but the role is asked for, and ROLE is understood. No replication follows."""
REPLICA, PROMOTED = "replica", "promoted"


@dataclass(frozen=True, slots=True)
class Role:
    """What a side is, and where its content stands.

    ``role`` is ``REPLICA``, or ``PROMOTED``: a volume of its own ``since`` then (RFC 3339; empty for a replica). ``replica`` is
    its name as in WELCOME, with the earlier ones in ``formerly``: no other machine knows them. The image is, or was at the
    promotion, at ``sequence`` of ``epoch``.
    """

    role: str
    since: str
    replica: str
    formerly: tuple[str, ...]
    generations: Generations
    epoch: int
    sequence: int

    def __post_init__(self) -> None:
        check_text("role", self.role, 32)
        check_text("since", self.since, 64)
        for name in (self.replica, *self.formerly):
            check_volume(name)
        for name in ("epoch", "sequence"):
            check_u64(name, getattr(self, name))

"""Whose content a volume of a cluster is: one line in the cluster's own database, on which all nodes agree.

It outlives every node. A node that was away learns from it that another one was promoted meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class OwnerClaim(StrEnum):
    """How the owner came to it.

    PROMOTED: it is, or was until it failed, the primary. RELEASED: it was demoted when its replica had everything.
    CHOSEN: a person said that its content counts.
    """

    PROMOTED = "promoted"
    RELEASED = "released"
    CHOSEN = "chosen"


@dataclass(frozen=True, slots=True)
class ContentOwner:
    """``node``: its name in the cluster. ``since``: when this was written, by that node's clock."""

    node: str
    claim: OwnerClaim
    since: datetime

    def to_text(self) -> str:
        """For the cluster's database."""
        return f"{self.claim} {self.node} {self.since.isoformat(timespec='milliseconds')}"

    @classmethod
    def from_text(cls, text: str) -> ContentOwner | None:
        """What ``to_text`` made; None for any other text, which tells nothing."""
        words = text.split()
        if len(words) != 3 or words[0] not in set(OwnerClaim):
            return None
        try:
            since = datetime.fromisoformat(words[2])
        except ValueError:
            return None
        return cls(words[1], OwnerClaim(words[0]), since) if since.tzinfo is not None else None


@dataclass(frozen=True, slots=True)
class BegunPromotion:
    """A node was allowed to be promoted while ``under`` was the owner, and began that at this moment of its own clock.

    It is written down on that node before its content is promoted, and the cluster's database learns of it after that. As long
    as the database still names the same owner, nobody was promoted since, so that the promotion may be finished.
    """

    under: ContentOwner
    at: datetime

    def to_text(self) -> str:
        """For a file of the node: one line."""
        return f"{self.at.isoformat(timespec='milliseconds')} {self.under.to_text()}"

    @classmethod
    def from_text(cls, text: str) -> BegunPromotion | None:
        """What ``to_text`` made; None for any other text, which tells nothing."""
        moment, _, rest = text.strip().partition(" ")
        under = ContentOwner.from_text(rest)
        try:
            at = datetime.fromisoformat(moment)
        except ValueError:
            return None
        return cls(under, at) if under is not None and at.tzinfo is not None else None

    def is_under(self, owner: ContentOwner) -> bool:
        """Whether the database still says what it said when the promotion began."""
        return self.under.to_text() == owner.to_text()

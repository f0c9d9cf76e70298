"""A replica's knowledge of itself: its states, and the record in its state file.

The record is written after the work it describes: ``checkpoint`` moves only when everything before it is durable on
the target. The journal from ``checkpoint`` on says the rest (``recovery``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.frame_checks import (
    FORMER_NAMES,
    REPLICA_STATE_NAMES,
    check_text,
    check_u64,
    check_version,
    check_volume,
)
from pydbt.core.protocol.generations import NO_GENERATIONS, Generations

RECORD_VERSION = 4
"""An entry more is a version more: a test holds the entries of this version."""
PLAIN_JOURNAL, TIMED_JOURNAL = 1, 2


class ReplicaState(StrEnum):
    """How far an image can be trusted. The state never claims more than is known.

    INCONSISTENT: a mixture of times, not to be used. OUTDATED: exactly the primary at some past moment, and known to
    be behind. CONSISTENT: exactly the primary at some moment, how long ago is not known. UP_TO_DATE: follows
    the primary right now.
    """

    INCONSISTENT = "inconsistent"
    OUTDATED = "outdated"
    CONSISTENT = "consistent"
    UP_TO_DATE = "up-to-date"

    @property
    def code(self) -> int:
        """The number an ACK frame carries."""
        return REPLICA_STATE_NAMES.index(self.value)


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """The replica's state file.

    ``consistent``: the target, with the journal from ``checkpoint`` on applied, is exactly the primary at
    ``sequence`` of ``epoch`` (or where the journal says); ``must_reach``: only if the journal is whole up to here.
    ``incarnation`` counts the openings of the journal. ``target`` identifies the target, so that another one is
    noticed. ``fresh``: nothing was ever written, and the target reads as zeros. ``promoted``: when the target became a
    volume of its own (RFC 3339), which no primary may overwrite any more; empty for a replica. ``generations``: the
    history of its content. ``direct_bytes``: everything ever written past the journal, counted as if it were in it.
    ``divergence``: what only this side ever had, when it was demoted; None for a content that came from a primary.
    ``handed_to``: the secondary that this side has told to take over, and that has not said that it did; else empty.
    ``formerly``: earlier names, newest first. It has got another one each time that its journal was found damaged.
    ``kept_aside``: there are blocks that the target does not take, and a file with what is to be in them.
    ``journal_layout``: 2 while the journal may have records that earlier programs take for its end: times, marks, transactions.
    """

    replica: str
    target: str
    segment_bytes: int
    volume: str | None = None
    size_bytes: int = 0
    block_bytes: int = 0
    consistent: bool = False
    fresh: bool = False
    epoch: int = 0
    sequence: int = 0
    checkpoint: int = 0
    must_reach: int = 0
    incarnation: int = 0
    promoted: str = ""
    generations: Generations = NO_GENERATIONS
    direct_bytes: int = 0
    divergence: Divergence | None = None
    handed_to: str = ""
    formerly: tuple[str, ...] = ()
    kept_aside: bool = False
    journal_layout: int = PLAIN_JOURNAL
    version: int = RECORD_VERSION

    def __post_init__(self) -> None:
        for name in (self.replica, *self.formerly):
            check_volume(name)
        check_text("target", self.target)
        check_text("promoted", self.promoted, 64)
        check_text("handed_to", self.handed_to, 300)
        if self.volume is not None:
            check_volume(self.volume)
        if not all(type(value) is bool for value in (self.consistent, self.fresh, self.kept_aside)):
            raise ValueError("consistent, fresh and kept_aside are truth values")
        for name in _NUMBERS:
            check_u64(name, getattr(self, name))
        if self.segment_bytes < 4096 or self.segment_bytes % 4096:
            raise ValueError(f"segments of {self.segment_bytes} bytes are no multiple of 4096")
        if self.version != RECORD_VERSION:
            raise ValueError(f"version {self.version} where {RECORD_VERSION} was expected")
        if self.journal_layout not in (PLAIN_JOURNAL, TIMED_JOURNAL):
            raise ValueError(f"layout {self.journal_layout} of the journal is unknown")
        if self.consistent and self.volume is None:
            raise ValueError("a replica of no volume is consistent with nothing")

    def distrusted(self, name: str) -> ReplicaRecord:
        """After others changed the target: a replica of another name, for which no primary has a map, and no image at all."""
        return replace(self.renamed(name), consistent=False, fresh=False, must_reach=0)

    def kept_for(self, target: str, name: str, *, copied: bool) -> ReplicaRecord:
        """By somebody's word it goes with another target from now on, and a primary compares all of it.

        ``copied``: and that target has what the former one had, so that the journal belongs to it.
        """
        moved = replace(self, target=target, fresh=False)
        return moved.renamed(name) if copied else moved.distrusted(name)

    def to_values(self) -> dict[str, Any]:
        kept = None if self.divergence is None else self.divergence.to_values()
        values = asdict(self) | {"generations": self.generations.to_values(), "divergence": kept}
        if not self.formerly:
            del values["formerly"]  # earlier versions can read it then
        if not self.kept_aside:  # the same; with blocks kept aside they would call the target whole
            del values["kept_aside"]
        if self.journal_layout == PLAIN_JOURNAL:
            del values["journal_layout"]
            values["version"] = _WITH_KEPT if self.kept_aside else _WITHOUT_KEPT
        return values

    @classmethod
    def from_values(cls, values: object) -> ReplicaRecord:
        """Raises NewerVersion, or ValueError unless ``values`` are exactly a record's."""
        names = {field.name for field in fields(cls)}
        if isinstance(values, dict) and "version" in values:
            check_version(values["version"], RECORD_VERSION)  # first: a newer version may have other keys
            values = values | {"version": RECORD_VERSION}
        if not isinstance(values, dict) or values.keys() | _LATER != names:
            raise ValueError("its keys are not those of a replica's record")
        kept = Generations.from_values(values["generations"]) if "generations" in values else NO_GENERATIONS
        side = values.get("divergence")
        divergence = None if side is None else Divergence.from_values(side)
        formerly = values.get("formerly", [])
        if type(formerly) is not list:
            raise ValueError("formerly is a list of names")
        return cls(**values | {"generations": kept, "divergence": divergence, "formerly": tuple(formerly)})

    def renamed(self, name: str) -> ReplicaRecord:
        """Under another name, so that no primary has a map for it; the primary of this one still knows it."""
        return replace(self, replica=name, formerly=(self.replica, *self.formerly)[:FORMER_NAMES])


def own_part(record: ReplicaRecord) -> Divergence | None:
    """What this side alone has, since it was demoted, and of which nobody has decided yet; None when that is nothing."""
    found = None if record.promoted else record.divergence
    return None if found is None or not found.choice else found


# Entries that records of earlier versions lack.
_LATER = {
    "promoted",
    "generations",
    "direct_bytes",
    "divergence",
    "handed_to",
    "formerly",
    "kept_aside",
    "journal_layout",
}
_WITHOUT_KEPT, _WITH_KEPT = 2, 3
_NUMBERS = (
    "segment_bytes", "size_bytes", "block_bytes", "epoch", "sequence", "checkpoint", "must_reach", "incarnation",
    "direct_bytes", "journal_layout", "version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AppliedPoint:
    """A position in the journal, and the sequence the image has when everything before it is applied."""

    position: int
    epoch: int
    sequence: int

"""What is told and asked for about marks in the order of writes: events, effects and answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from pydbt.core.protocol.mark import NamedMark


@dataclass(frozen=True, slots=True)
class WantedMark:
    """A mark before it has its place. The fields are those of ``NamedMark``."""

    number: int
    name: str
    set_ns: int
    clock_offset_ns: int
    synced: bool
    partly: bool = False

    def at(self, sequence: int, uncertain_bytes: int) -> NamedMark:
        """At its place in the numbers of one secondary."""
        return NamedMark(
            sequence,
            self.number,
            self.name,
            self.set_ns,
            self.clock_offset_ns,
            self.synced,
            self.partly,
            uncertain_bytes,
        )


@dataclass(frozen=True, slots=True)
class MarkAsked:
    """Set a mark behind everything that was taken in by now, and answer once each of these secondaries holds it.

    ``peers``, ``first``: as of ``WaitAsked``. ``patient``: wait until all of them are in mode normal; else the answer is that
    they are not.
    """

    token: int
    mark: WantedMark
    peers: tuple[int, ...] | None = None
    first: bool = False
    patient: bool = False


@dataclass(frozen=True, slots=True)
class MarkWaitAsked:
    """Somebody waits until the newest mark of this name is held: as ``WaitAsked``."""

    token: int
    name: str
    peers: tuple[int, ...] | None = None
    first: bool = False


@dataclass(frozen=True, slots=True)
class PlaceMark:
    """For a brain: this mark has its place here, behind every update so far."""

    mark: WantedMark
    uncertain_bytes: int


@dataclass(frozen=True, slots=True)
class MarkComing:
    """For a brain: a mark waits for blocks that are uncertain, so that these are read soon."""


@dataclass(frozen=True, slots=True)
class Unable:
    """Why a brain can set no mark now, as a part of a sentence. ``lasting``: waiting does not help."""

    why: str
    lasting: bool = False


class MarkOutcome(Enum):
    """How it ended for whoever asked."""

    HELD = "held"
    REFUSED = "there is no order to mark"
    UNKNOWN = "no such mark is known"
    DOUBTFUL = "the connection was lost before the secondary acknowledged it"
    MISSED = "the secondary does not hold it, and never will"
    BEFORE_BOOT = "it was set before the machine was started, and its end was not clean"


@dataclass(frozen=True, slots=True)
class AnswerMark:
    """To whoever asked: ``number`` of the mark, 0 without one. ``why``: a part of a sentence, about the effect's secondary."""

    token: int
    outcome: MarkOutcome
    number: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class MarksTold:
    """Of a brain: its secondary holds these marks. ``all_of_them``: and no other one, but older ones where there are many."""

    numbers: tuple[int, ...]
    all_of_them: bool = False


@dataclass(frozen=True, slots=True)
class MarksLeft:
    """Of a brain: the stream was given up, and it is not known of any mark on its way whether the secondary holds it."""

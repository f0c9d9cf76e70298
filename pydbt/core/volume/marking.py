"""The marks of a volume: when one is set, which secondaries hold it, and who is answered.

A mark has one place in the order of writes, which is the same for all of its secondaries: it is given to their brains between the
same two batches of records. It is set at a moment at which no block is uncertain, or after a while with their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Protocol

from pydbt.core.primary.mark_events import (
    AnswerMark,
    MarkAsked,
    MarkComing,
    MarkOutcome,
    MarksTold,
    MarkWaitAsked,
    PlaceMark,
    Unable,
    WantedMark,
)
from pydbt.core.primary.marks import AWAITED_S

KNOWN_MARKS = 64
"""The newest: what can be waited for, and is written down. About 16 KiB."""


class Holding(StrEnum):
    """What is known of one secondary and one mark."""

    ON_THE_WAY = "on-the-way"
    HELD = "held"
    DOUBTFUL = "doubtful"  # the connection was lost first: it tells when it is there again
    MISSED = "missed"


class Marker(Protocol):
    """The marks of one brain."""

    def problem(self) -> Unable | None: ...
    @property
    def is_sure(self) -> bool: ...
    @property
    def certain(self) -> bool: ...
    @property
    def uncertain_bytes(self) -> int: ...


@dataclass(slots=True)
class KnownMark:
    """A mark that was set. ``peers``: what is known of each secondary that it was set for, by number. ``boot``: of the machine at
    that time. In another one the volume may lack writes from before it, and then what lands on a secondary does too."""

    mark: WantedMark
    uncertain_bytes: int
    peers: dict[int, Holding] = field(default_factory=dict)
    boot: str = ""

    def to_values(self) -> dict[str, Any]:
        """For JSON; the number as 16 hexadecimal digits."""
        mark = self.mark
        return {
            "number": f"{mark.number:016x}", "name": mark.name, "set_ns": str(mark.set_ns),
            "clock_offset_ns": str(mark.clock_offset_ns), "synced": mark.synced, "partly": mark.partly,
            "uncertain_bytes": self.uncertain_bytes, "peers": {str(peer): str(one) for peer, one in self.peers.items()},
            "boot": self.boot,
        }  # fmt: skip

    @classmethod
    def from_values(cls, values: Any) -> KnownMark:
        """Raises ValueError, KeyError, TypeError or AttributeError. What was on its way is doubtful after a start."""
        mark = WantedMark(
            int(values["number"], 16), values["name"], int(values["set_ns"]), int(values["clock_offset_ns"]),
            bool(values["synced"]), bool(values["partly"]),
        )  # fmt: skip
        mark.at(1, int(values["uncertain_bytes"]))  # legal
        peers = {int(peer): Holding(one) for peer, one in values["peers"].items()}
        known = {peer: _after_a_loss(one) for peer, one in peers.items()}
        return cls(mark, int(values["uncertain_bytes"]), known, str(values.get("boot", "")))


@dataclass(slots=True)
class _Wait:
    number: int
    peers: tuple[int, ...]
    first: bool
    asked_now: bool


@dataclass(slots=True)
class _Due:
    event: MarkAsked
    peers: tuple[int, ...]
    since: float | None = None  # when it could have been set, but for what is uncertain


@dataclass(frozen=True, slots=True)
class Placed:
    """Tell these brains."""

    peers: tuple[int, ...]
    event: PlaceMark | MarkComing


Decision = Placed | tuple[int | None, AnswerMark]


class Marking:
    """By numbers of secondaries, as of the volume."""

    def __init__(self) -> None:
        self._known: list[KnownMark] = []
        self._boot = ""
        self._due: list[_Due] = []
        self._waits: dict[int, _Wait] = {}
        self._answers: list[tuple[int | None, AnswerMark]] = []

    # --- what is known ------------------------------------------------------------------------------------
    @property
    def known(self) -> tuple[KnownMark, ...]:
        """The newest last."""
        return tuple(self._known)

    def to_values(self) -> list[dict[str, Any]]:
        """What is to be written down."""
        return [known.to_values() for known in self._known]

    def restore(self, values: object, boot: str) -> None:
        """What was written down, by an earlier run; what cannot be read is forgotten: it is for people, and decides nothing.

        ``boot``: what this start of the machine is called."""
        self._boot = boot
        try:
            self._known = [KnownMark.from_values(one) for one in values][-KNOWN_MARKS:]  # type: ignore[attr-defined]
        except (ValueError, KeyError, TypeError, AttributeError):
            self._known = []

    def is_before_boot(self, known: KnownMark) -> bool:
        """Whether what was not flushed may have been lost since it was set."""
        return known.boot != self._boot

    @property
    def next_number(self) -> int:
        """The least number that the next mark may have."""
        return max((known.mark.number for known in self._known), default=0) + 1

    def deadline(self) -> float:
        """When a mark is set although something is uncertain."""
        return min((due.since + AWAITED_S for due in self._due if due.since is not None), default=inf)

    # --- what is asked ------------------------------------------------------------------------------------
    def ask(self, event: MarkAsked, all_peers: Iterable[int]) -> None:
        self._due.append(_Due(event, self._meant(event.peers, all_peers)))

    def wait(self, event: MarkWaitAsked, all_peers: Iterable[int]) -> None:
        """For the newest one of its name."""
        found = next((known for known in reversed(self._known) if known.mark.name == event.name), None)
        if found is None:
            self._answers.append((None, AnswerMark(event.token, MarkOutcome.UNKNOWN)))
            return
        peers = self._meant(event.peers, all_peers)
        self._waits[event.token] = _Wait(found.mark.number, peers, event.first, asked_now=False)

    @staticmethod
    def _meant(peers: tuple[int, ...] | None, all_peers: Iterable[int]) -> tuple[int, ...]:
        return tuple(peer for peer in all_peers if peers is None or peer in peers)

    def drop(self, token: int) -> None:
        """Nobody waits under this token any more. A mark that was not set yet is not set."""
        self._waits.pop(token, None)
        self._due = [due for due in self._due if due.event.token != token]

    def forget(self, peer: int) -> None:
        """A secondary is removed: nobody waits for it any more."""
        for due in self._due:
            due.peers = tuple(one for one in due.peers if one != peer)
        for wait in self._waits.values():
            wait.peers = tuple(one for one in wait.peers if one != peer)
        for known in self._known:
            known.peers.pop(peer, None)

    # --- what brains tell ---------------------------------------------------------------------------------
    def told(self, peer: int, event: MarksTold) -> None:
        """Its secondary holds these marks."""
        numbers = set(event.numbers)
        oldest = min(numbers, default=0)
        for known in self._known:
            if peer not in known.peers:
                continue
            number = known.mark.number
            if number in numbers:
                known.peers[peer] = Holding.HELD
            elif event.all_of_them and known.peers[peer] is Holding.DOUBTFUL and number >= oldest:
                known.peers[peer] = Holding.MISSED

    def left(self, peer: int) -> None:
        """Its stream was given up."""
        for known in self._known:
            if peer in known.peers:
                known.peers[peer] = _after_a_loss(known.peers[peer])

    # --- what follows -------------------------------------------------------------------------------------
    def advance(self, brains: Mapping[int, Marker], now: float) -> list[Decision]:
        """Called after every event: marks to be set, and answers."""
        made: list[Decision] = list(self._answers)
        self._answers.clear()
        for due in list(self._due):
            made += self._advance_due(due, brains, now)
        for token, wait in list(self._waits.items()):
            if (answer := self._over(token, wait, brains)) is not None:
                del self._waits[token]
                made.append(answer)
        return made

    def _advance_due(self, due: _Due, brains: Mapping[int, Marker], now: float) -> list[Decision]:
        problems = {peer: problem for peer in due.peers if (problem := brains[peer].problem()) is not None}
        able = tuple(peer for peer in due.peers if peer not in problems)
        if not able or (problems and not due.event.first):
            due.since = None
            lasting = [peer for peer, problem in problems.items() if problem.lasting]
            if due.event.patient and problems and not lasting:
                return []
            self._due.remove(due)
            peer = next(iter((*lasting, *problems)), None)
            why = problems[peer].why if peer is not None else "it has no such secondary any more"
            return [(peer, AnswerMark(due.event.token, MarkOutcome.REFUSED, why=why))]
        news, due.since = due.since is None, now if due.since is None else due.since
        uncertain_bytes = max(brains[peer].uncertain_bytes for peer in able)
        certain = all(brains[peer].certain for peer in able)
        waited = now - due.since >= AWAITED_S
        if (uncertain_bytes or not certain) and not waited:
            return [Placed(able, MarkComing())] if news else []
        if not certain:
            if due.event.patient:
                return []
            self._due.remove(due)
            why = "it is not known which writes are in flight on the source; that takes half a minute at most"
            return [(able[0], AnswerMark(due.event.token, MarkOutcome.REFUSED, why=why))]
        self._due.remove(due)
        stands = dict.fromkeys(able, Holding.ON_THE_WAY)
        self._known.append(KnownMark(due.event.mark, uncertain_bytes, stands, self._boot))
        del self._known[:-KNOWN_MARKS]
        self._waits[due.event.token] = _Wait(due.event.mark.number, able, due.event.first, asked_now=True)
        return [Placed(able, PlaceMark(due.event.mark, uncertain_bytes))]

    def _over(self, token: int, wait: _Wait, brains: Mapping[int, Marker]) -> tuple[int | None, AnswerMark] | None:
        known = next((one for one in self._known if one.mark.number == wait.number), None)
        if known is None:
            return None, AnswerMark(token, MarkOutcome.UNKNOWN)
        stands = {peer: known.peers.get(peer, Holding.MISSED) for peer in wait.peers}
        if self.is_before_boot(known):
            return None, AnswerMark(token, MarkOutcome.BEFORE_BOOT, wait.number)
        # Whoever has it set now is told that it is held there; whether the image is good besides is the status's business.
        held = [
            peer for peer, one in stands.items() if one is Holding.HELD and (wait.asked_now or brains[peer].is_sure)
        ]
        if len(held) == len(stands) or (wait.first and held):
            return None, AnswerMark(token, MarkOutcome.HELD, wait.number)
        hopeless = {
            peer: one for peer, one in stands.items()
            if one is Holding.MISSED or (one is Holding.DOUBTFUL and wait.asked_now)
        }  # fmt: skip
        if not hopeless or (wait.first and len(hopeless) < len(stands)):
            return None
        peer, one = next(iter(hopeless.items()))
        outcome = MarkOutcome.MISSED if one is Holding.MISSED else MarkOutcome.DOUBTFUL
        return peer, AnswerMark(token, outcome, wait.number)


def after_a_clean_end(values: object, before: str, boot: str) -> object:
    """What was written down of marks when the machine's boot ``before`` ended with nothing unwritten, for this ``boot``."""
    if not isinstance(values, list):
        return values
    kept = [dict(one) if isinstance(one, dict) else one for one in values]
    for one in kept:
        if isinstance(one, dict) and one.get("boot") == before:
            one["boot"] = boot
    return kept


def _after_a_loss(one: Holding) -> Holding:
    return Holding.DOUBTFUL if one is Holding.ON_THE_WAY else one

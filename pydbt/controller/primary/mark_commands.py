"""``controller mark``, and waits for a mark: what is asked of the brains, and what is answered, in words."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydbt.controller.clocks import clock_offset_ns, monotonic_ns
from pydbt.controller.primary.report import SetMarkReport
from pydbt.controller.primary.volume import Volume
from pydbt.controller.requests import Request
from pydbt.core.calendar import time_of_ns
from pydbt.core.errors import BusyError, PeerError, PydbtError, StateError, UsageError
from pydbt.core.primary.mark_events import AnswerMark, MarkAsked, MarkOutcome, MarkWaitAsked, WantedMark
from pydbt.core.protocol.mark import check_name
from pydbt.core.volume.marking import Holding, KnownMark

SHOWN_MARKS = 8


def require_name(name: object) -> str:
    """UsageError for what is no name of a mark."""
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return str(name)


def mark_event(volume: Volume, request: Request, numbers: tuple[int, ...] | None) -> MarkAsked:
    """The event that has a mark set, behind everything that the brains have heard of. UsageError."""
    arguments = request.arguments
    name, offset_ns, now_ns = require_name(arguments.get("name")), clock_offset_ns(), monotonic_ns()
    number = max(volume.fanout.marks.next_number, now_ns + offset_ns)
    partly = bool(request.told.get("left_out"))
    mark = WantedMark(number, name, now_ns, offset_ns, bool(arguments.get("sync")), partly)
    patient = bool(arguments.get("patient"))
    return MarkAsked(volume.waits.take(request), mark, numbers, bool(arguments.get("any")), patient)


def mark_wait_event(volume: Volume, request: Request, numbers: tuple[int, ...] | None) -> MarkWaitAsked:
    """The event that begins the wait for a mark. UsageError."""
    name = require_name(request.arguments.get("mark"))
    return MarkWaitAsked(volume.waits.take(request), name, numbers, bool(request.arguments.get("any")))


def answer_mark(volume: Volume, peer: int | None, effect: AnswerMark) -> None:
    """To whoever asked for it, or for news of it. That it is held is told when it is written down here too: a crash forgets the
    rest, and the next run would not know the mark."""
    found = next((known for known in volume.fanout.marks.known if known.mark.number == effect.number), None)
    if effect.outcome is not MarkOutcome.HELD or found is None:
        volume.waits.give_up(effect.token, _problem(volume, peer, effect, found))
        return
    name = found.mark.name
    told: dict[str, Any] = {"mark": asdict(_report(volume, found))}
    told["sequence"] = min(brain.state.acknowledged for brain in volume.brains)

    def written(error: str) -> None:
        if error:
            words = f"the mark {name!r} is held, but this side may forget that at its next start, as it cannot write: {error}"
            volume.waits.give_up(effect.token, StateError(words))
        else:
            volume.waits.answer_with(effect.token, told)

    volume.keep_marks(written)


def _problem(volume: Volume, peer: int | None, effect: AnswerMark, found: KnownMark | None) -> PydbtError:
    address = volume.peers[peer].address if peer in volume.peers else "the volume"
    name = f"the mark {found.mark.name!r}" if found is not None else "the mark"
    match effect.outcome:
        case MarkOutcome.REFUSED:
            return BusyError(f"no mark was set, for {address}: {effect.why}")
        case MarkOutcome.DOUBTFUL:
            return PeerError(
                f"{name} was set, and the connection to {address} was lost before it acknowledged that: once it is connected, "
                "'controller status' tells whether it holds the mark; else set it again"
            )
        case MarkOutcome.MISSED:
            return PeerError(
                f"{address} does not hold {name}, and never will: the stream to it was given up before; set another one"
            )
        case MarkOutcome.BEFORE_BOOT:
            return PeerError(
                f"{name} was set before this machine was started, and no clean stop came between: writes in memory were lost, "
                "and the data that is replicated since may lack writes from before the mark; set another one"
            )
    return UsageError("no mark of this name was set for this volume, or 64 others were set since")


def _report(volume: Volume, known: KnownMark) -> SetMarkReport:
    mark = known.mark
    by_state: dict[Holding, list[str]] = {}
    for number, one in known.peers.items():
        if number in volume.peers:
            by_state.setdefault(one, []).append(volume.peers[number].address)
    return SetMarkReport(
        name=mark.name,
        number=f"{mark.number:016x}",
        moment=time_of_ns(mark.set_ns + mark.clock_offset_ns),
        synced=mark.synced,
        partly=mark.partly,
        uncertain_bytes=known.uncertain_bytes,
        held_by=tuple(by_state.get(Holding.HELD, ())),
        not_held_by=tuple(by_state.get(Holding.MISSED, ())),
        perhaps_held_by=tuple(by_state.get(Holding.DOUBTFUL, ())),
        before_boot=volume.fanout.marks.is_before_boot(known),
    )


def marks_report(volume: Volume) -> tuple[SetMarkReport, ...]:
    """The last marks, the newest first."""
    return tuple(_report(volume, known) for known in reversed(volume.fanout.marks.known[-SHOWN_MARKS:]))

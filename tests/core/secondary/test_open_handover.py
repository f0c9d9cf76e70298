"""A change of places that may have left no primary is told until a primary is heard that goes on, and no longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.handover_watch import ASKED_LASTS_S, HandoverWatch
from pydbt.core.secondary.open_handover import HandoverStage, OpenHandover
from pydbt.core.secondary.primary_watch import PrimaryWatch
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord
from tests.core.secondary.test_takeover import ASK, FINAL, HELLO, RECORD, SIZE

HERE, OTHER, AT = "10.0.0.1:7790", "10.0.0.2:7790", "2026-01-02T03:04:05+00:00"
TAKEN_BACK = f.Handover(final=False, listen="")
GIVEN = OpenHandover(HandoverStage.GIVEN, OTHER, AT)


class Side:
    """A replica whose shell keeps what its brain says, and whose brain can be built again. ``refuses``: why it takes no place."""

    def __init__(self, record: ReplicaRecord = RECORD, kept: OpenHandover | None = None, refuses: str = "") -> None:
        self.watch, self.record, self.refuses = PrimaryWatch(handover=kept), record, refuses
        self.connection = 0
        self.again()

    def again(self) -> None:
        config = SecondaryConfig(SIZE, unable=self.refuses, sector_bytes=512)
        self.brain = Secondary(config, self.record, Recovery(self.record), StagedBlocks(), 0.0, self.watch)

    def connects(self, now: float = 0.0) -> None:
        self.connection += 1
        self._do(e.Connected(self.connection, HELLO, bytes(32)), now)
        assert self.brain.session is not None

    def hears(self, frame: f.Frame, now: float = 0.0) -> list[e.Effect]:
        return self._do(e.FrameReceived(self.connection, frame), now)

    def _do(self, event: e.Event, now: float) -> list[e.Effect]:
        effects = self.brain.handle(event, now)
        for effect in effects:
            if isinstance(effect, e.KeepHandover):
                self.watch.note_handover(effect.found)
        return effects

    @property
    def stage(self) -> HandoverStage | None:
        return self.watch.handover.kept and self.watch.handover.kept.stage


def kinds(effects: list[e.Effect]) -> list[type]:
    return [type(effect) for effect in effects if not (isinstance(effect, e.Send) and isinstance(effect.frame, f.Ack))]


def test_the_question_is_kept_before_it_is_answered_and_a_no_begins_nothing() -> None:
    side = Side()
    side.connects()
    assert kinds(side.hears(ASK)) == [e.KeepHandover, e.Send]
    assert side.watch.handover.kept == OpenHandover(HandoverStage.ASKED, HERE)
    side = Side(refuses="no root")
    side.connects()
    assert kinds(side.hears(ASK)) == [e.Send] and side.stage is None


def test_a_final_handover_that_is_refused_is_kept_with_the_reason() -> None:
    side = Side()
    side.connects()
    assert kinds(side.hears(replace(FINAL, sequence=11))) == [e.KeepHandover, e.Send]
    kept = side.watch.handover.kept
    assert kept is not None and kept.stage is HandoverStage.REFUSED and "does not stand where" in kept.why


def test_the_final_handover_comes_over_a_connection_of_its_own_and_ends_nothing() -> None:
    side = Side()
    side.connects()
    side.hears(ASK)
    side.hears(f.Bye("stopping"))
    side.again()  # it was killed, or failed
    side.connects()
    assert side.stage is HandoverStage.ASKED, "a greeting may be that of a former primary"
    side.hears(FINAL)
    assert side.stage is HandoverStage.ASKED, "until it is done"


@pytest.mark.parametrize("frame", [f.Ping(1), f.Begin(1, 7, 0)])
def test_a_primary_that_connects_anew_and_goes_on_ends_the_open_change(frame: f.Frame) -> None:
    side = Side()
    side.connects()
    side.hears(ASK)
    side.hears(frame)
    assert side.stage is HandoverStage.ASKED, "it goes on until everything is here"
    side.connects()
    side.hears(frame)
    assert side.stage is None
    assert e.KeepHandover not in kinds(side.hears(f.Ping(2))), "once"


def test_a_primary_that_goes_on_for_long_in_the_same_connection_has_given_the_change_up() -> None:
    side = Side()
    side.connects()
    side.hears(ASK, 10.0)
    side.hears(f.Ping(1), 10.0 + ASKED_LASTS_S)
    assert side.stage is HandoverStage.ASKED
    side.hears(f.Ping(2), 10.1 + ASKED_LASTS_S)
    assert side.stage is None


def withdrawing(side: Side) -> None:
    """A primary that tells when it gives a change of places up."""
    side.connection += 1
    side._do(e.Connected(side.connection, replace(HELLO, features=(f.WITHDRAWAL,)), bytes(32)), 0.0)


def test_a_question_that_is_taken_back_is_over_at_once_and_not_answered() -> None:
    side = Side()
    withdrawing(side)
    assert side.hears(TAKEN_BACK) == [], "there is none"
    side.hears(ASK)
    assert kinds(side.hears(TAKEN_BACK)) == [e.KeepHandover] and side.stage is None
    assert kinds(side.hears(ASK)) == [e.KeepHandover, e.Send] and side.stage is HandoverStage.ASKED, "asked once more"


def test_a_primary_that_would_take_it_back_may_drain_for_as_long_as_it_wants() -> None:
    side = Side()
    withdrawing(side)
    side.hears(ASK, 10.0)
    side.hears(f.Ping(1), 10.1 + ASKED_LASTS_S)
    assert side.stage is HandoverStage.ASKED, "a switchover with a long --timeout"
    withdrawing(side)
    side.hears(TAKEN_BACK)
    assert side.stage is HandoverStage.ASKED, "it was asked in another connection"


def test_only_the_question_is_taken_back() -> None:
    side = Side(replace(RECORD, handed_to=OTHER), GIVEN)
    withdrawing(side)
    assert side.hears(TAKEN_BACK) == [] and side.stage is HandoverStage.GIVEN


def test_this_side_has_given_its_place_until_a_primary_is_heard() -> None:
    side = Side(replace(RECORD, handed_to=OTHER), GIVEN)
    side.connects()
    assert side.brain.record.handed_to == OTHER
    side.hears(f.Ping(1))
    assert side.stage is None and not side.brain.record.handed_to, "'promote' need not ask for --force on that account"


@pytest.mark.parametrize("stage", HandoverStage)
def test_an_open_change_of_places_ends_with_a_primary_that_goes_on(stage: HandoverStage) -> None:
    watch = HandoverWatch(OpenHandover(stage, OTHER))
    assert watch.ends(1, f.Ping(1), 0.0) and not watch.ends(1, FINAL, 0.0) and not watch.ends(1, f.Bye(""), 0.0)


def test_nothing_is_forgotten_without_an_open_change_of_places() -> None:
    assert not HandoverWatch().ends(2, f.Ping(1), 9.0)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            GIVEN,
            ("this side gave its place to 10.0.0.2:7790 at 2026-01-02 03:04:05 UTC, and nobody is known", "promote"),
        ),
        (
            replace(GIVEN, since="", why="no route"),
            ("to 10.0.0.2:7790, and nobody is known to have taken it (no route):",),
        ),
        (
            OpenHandover(HandoverStage.ASKED, HERE, AT),
            ("its primary asked at 2026-01-02 03:04:05 UTC", "promote' this side"),
        ),
        (
            OpenHandover(HandoverStage.REFUSED, HERE, AT, "no root"),
            ("its primary gave its place up at", "did not take it (no root)", "promote"),
        ),
        (
            replace(GIVEN, stage=HandoverStage.TAKEN),
            ("10.0.0.2:7790 took the place of this side at 2026-01-02", "controller run"),
        ),
        (
            OpenHandover(HandoverStage.PROMOTED, HERE, AT),
            ("was promoted at", "no run has begun", f"--secondary {HERE}"),
        ),
    ],
)
def test_each_open_change_of_places_is_a_sentence_with_the_command_to_give(
    found: OpenHandover, words: tuple[str, ...]
) -> None:
    assert all(word in found.words for word in words) and found.to_report()["words"] == found.words
    assert OpenHandover.from_values(found.to_values()) == found


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {**GIVEN.to_values(), "stage": "lost"},
        {**GIVEN.to_values(), "more": 1},
        {**GIVEN.to_values(), "why": 7},
    ],
)
def test_values_that_are_no_change_of_places_are_refused(values: object) -> None:
    with pytest.raises(ValueError):
        OpenHandover.from_values(values)

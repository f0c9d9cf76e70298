"""The question for the role: a replica and a promoted side answer it, it disturbs no primary, and nothing else is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.role import ASKS_ROLE, Role
from pydbt.core.secondary import events as e
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.handshake import restart_refusal
from pydbt.core.secondary.role_answer import answer_in_trouble, answer_of_promoted
from tests.core.secondary.test_brain import HELLO, Play
from tests.core.secondary.test_rival import COPY, ORIGINAL, RECORD, SIZE, brain_of

ASKS = replace(HELLO, features=(*HELLO.features, ASKS_ROLE))
PROMOTED = replace(RECORD, promoted="2026-01-02T16:18:58+00:00", generations=Generations(6, (), (4,)))


def told(effects: list[e.Effect], connection: int) -> list[f.Frame]:
    return [effect.frame for effect in effects if isinstance(effect, e.Send) and effect.connection == connection]


def test_a_replica_tells_its_role_and_where_it_stands_and_the_connection_ends() -> None:
    play = Play(connect=False)
    effects = play(e.Connected(9, ASKS, bytes(32)))
    record = play.brain.record
    assert told(effects, 9) == [
        Role(
            "replica",
            "",
            record.replica,
            record.formerly,
            record.generations,
            play.brain.keeper.epoch,
            play.brain.keeper.sequence,
        )
    ]
    assert any(isinstance(effect, e.CloseConnection) and effect.connection == 9 for effect in effects)
    assert play.brain.session is None and play.brain.peer is None


def test_a_question_is_written_down_before_it_is_answered_and_counts_until_a_primary_is_heard() -> None:
    play = Play(connect=False)
    first, second, *_ = play(e.Connected(9, ASKS, bytes(32)))
    assert first == e.KeepGateQuestion(open=True) and isinstance(second, e.Send)
    play.brain.watch.note_gate_question("2026-01-02T16:18:58+00:00")
    assert not play.brain.watch.lives(0.0), "to ask is no sign of a controller that runs"
    play(e.Connected(3, HELLO, bytes(32)))
    heard = play(e.FrameReceived(3, f.Ping(5)))
    assert e.KeepGateQuestion(open=False) in heard
    play.brain.watch.note_gate_question("")
    assert e.KeepGateQuestion(open=False) not in play(e.FrameReceived(3, f.Ping(6)))


def test_a_refused_question_is_not_written_down() -> None:
    """It is not told that this side is a replica, and may not write by that."""
    play = Play(connect=False)
    effects = play(e.Connected(9, replace(ASKS, volume="77" * 16), bytes(32)))
    assert not any(isinstance(effect, e.KeepGateQuestion) for effect in effects)


def test_a_question_disturbs_no_primary() -> None:
    play = Play()
    peer = play.brain.peer
    assert peer is not None
    effects = play(e.Connected(9, ASKS, bytes(32)))
    assert [type(frame) for frame in told(effects, 9)] == [Role] and play.brain.peer == peer
    assert not any(isinstance(effect, e.CloseConnection) and effect.connection == peer for effect in effects)
    assert told(play.frame(f.Ping(5)), peer) == [f.Pong(5)], "the one that is there is served on"


def test_a_question_while_another_machines_primary_lives_is_answered_with_that_primary() -> None:
    """It is the old primary, or a copy of the machine."""
    brain = brain_of()
    brain.handle(e.Connected(1, ORIGINAL, bytes(32)), 0.0)
    asks = replace(COPY, features=(*COPY.features, ASKS_ROLE))
    (answer,) = told(brain.handle(e.Connected(2, asks, bytes(32)), 0.5), 2)
    assert isinstance(answer, f.Refuse) and answer.code == f.SECOND_PRIMARY and brain.peer == 1


def test_a_question_from_another_volume_is_refused_as_any_connection() -> None:
    play = Play(connect=False)
    (answer,) = told(play(e.Connected(9, replace(ASKS, volume="77" * 16), bytes(32))), 9)
    assert isinstance(answer, f.Refuse) and answer.code == "other-volume"


@pytest.mark.parametrize("proven", [True, False])
def test_a_promoted_side_tells_since_when_to_one_that_asks(proven: bool) -> None:
    answer = answer_of_promoted(replace(ORIGINAL, features=(ASKS_ROLE,)), PROMOTED, "beta", proven=proven)
    assert answer == Role("promoted", PROMOTED.promoted, PROMOTED.replica, (), PROMOTED.generations, 7, 10)


def test_a_primary_that_does_not_ask_is_refused_by_a_promoted_side_as_by_earlier_versions() -> None:
    answer = answer_of_promoted(ORIGINAL, PROMOTED, "beta", proven=True)
    assert isinstance(answer, f.Refuse) and answer.code == f.SUPERSEDED and "beta was promoted at" in answer.message
    assert answer_of_promoted(ORIGINAL, PROMOTED, "beta", proven=False) == f.Refuse(f.SUPERSEDED, "")


@pytest.mark.parametrize("features", [(), (ASKS_ROLE,)])
def test_a_promoted_side_tells_nothing_of_itself_to_a_primary_of_another_volume(features: tuple[str, ...]) -> None:
    answer = answer_of_promoted(replace(ORIGINAL, volume="77" * 16, features=features), PROMOTED, "beta", proven=True)
    assert isinstance(answer, f.Refuse) and answer.code == "other-volume" and "beta" not in answer.message


TROUBLE = restart_refusal("its disk is full")


def in_trouble(
    hello: f.Hello, generations: Generations = ORIGINAL.generations, *, proven: bool = True, size_bytes: int = SIZE
) -> f.Frame:
    record = replace(RECORD, generations=generations)
    return answer_in_trouble(hello, record, SecondaryConfig(size_bytes), TROUBLE, proven=proven)


def test_a_replica_in_trouble_tells_its_role_to_one_that_asks() -> None:
    answer = in_trouble(replace(ORIGINAL, features=(ASKS_ROLE,)))
    assert isinstance(answer, Role) and (answer.role, answer.epoch, answer.sequence) == ("replica", 7, 10)


def test_a_side_in_trouble_that_is_newer_or_of_another_volume_refuses_one_that_asks_as_without_trouble() -> None:
    asks = replace(ORIGINAL, features=(ASKS_ROLE,))
    for proven in (True, False):
        newer = in_trouble(asks, Generations(9, (), (4,)), proven=proven)
        other = in_trouble(replace(asks, volume="77" * 16), proven=proven)
        assert isinstance(newer, f.Refuse) and newer.code in ("newer", "split-brain") and bool(newer.message) is proven
        assert isinstance(other, f.Refuse) and other.code == "other-volume" and bool(other.message) is proven


def test_any_other_primary_is_told_of_the_trouble_and_a_stranger_of_its_code_alone() -> None:
    assert in_trouble(ORIGINAL) == TROUBLE
    assert in_trouble(ORIGINAL, proven=False) == TROUBLE
    assert in_trouble(replace(ORIGINAL, volume="77" * 16), proven=False) == f.Refuse(TROUBLE.code, "")

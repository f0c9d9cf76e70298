"""The gate: one secondary that was promoted shuts it, a stranger does not count, and silence is answered as was chosen."""

from __future__ import annotations

import pytest

from pydbt.core.configured.on_unreachable import LONGEST_GATE_WAIT_S, OnUnreachable
from pydbt.core.errors import PeerError
from pydbt.core.primary.gate import (
    GateOutcome,
    HeardRole,
    RoleAnswer,
    answer_of,
    no_state,
    silent,
    verdict_of,
)
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.role import ASKS_ROLE, Role

VOLUME, REPLICA, OTHER, SIZE = "ab" * 16, "cd" * 16, "ef" * 16, 1 << 20
HELLO = f.Hello(VOLUME, SIZE, 4096, 0, features=(ASKS_ROLE,), generations=Generations(5, (), (4,)))
AT = "10.0.0.2:7790"
OLDER = Generations(4)


def role(name: str = "replica", replica: str = REPLICA, formerly: tuple[str, ...] = ()) -> Role:
    return Role(name, "2026-01-02T16:18:58+00:00", replica, formerly, Generations(6, (), (5,)), 7, 10)


def welcome(replica: str = REPLICA, volume: str | None = VOLUME, generations: Generations = OLDER) -> f.Welcome:
    return f.Welcome(volume, "consistent", 7, 10, False, SIZE, False, replica, generations=generations)


def heard(frame: f.Frame, expected: str = REPLICA) -> HeardRole:
    answer = answer_of(AT, frame, HELLO, expected)
    assert answer.address == AT and answer.words
    return answer.heard


def one(heard: HeardRole, address: str = AT) -> RoleAnswer:
    return RoleAnswer(address, heard, f"words of {heard.value}")


def test_a_side_says_its_role_and_since_when() -> None:
    assert heard(role("replica")) is HeardRole.REPLICA
    assert heard(role("promoted")) is HeardRole.PROMOTED
    assert "promoted at 2026-01-02 16:18:58 UTC" in answer_of(AT, role("promoted"), HELLO, REPLICA).words
    assert heard(role("a word of a later version")) is HeardRole.NOTHING


@pytest.mark.parametrize("name", ["replica", "promoted"])
def test_the_answer_of_a_side_that_does_not_know_the_replicas_name_does_not_count(name: str) -> None:
    """It is another replica of the same authority, or a stranger on plain TCP."""
    assert heard(role(name, OTHER)) is HeardRole.NOTHING
    assert heard(role(name, OTHER, (REPLICA,))) is not HeardRole.NOTHING, "one that was renamed tells its earlier name"
    assert heard(role(name, OTHER), expected="") is not HeardRole.NOTHING, "no replica is on record yet"


def test_a_secondary_of_an_earlier_version_is_heard_by_its_welcome() -> None:
    assert heard(welcome()) is HeardRole.REPLICA
    assert heard(welcome(volume=None)) is HeardRole.REPLICA
    assert heard(welcome(replica=OTHER)) is HeardRole.NOTHING
    assert heard(welcome(volume=OTHER)) is HeardRole.NOTHING
    assert heard(welcome(generations=Generations(9, (), (5,)))) is HeardRole.PROMOTED, (
        "it has writes that this side lacks"
    )


@pytest.mark.parametrize("code", ["superseded", "newer", "split-brain", "unrelated", "second-primary"])
def test_a_refusal_that_tells_of_another_primary_shuts_the_gate(code: str) -> None:
    assert heard(f.Refuse(code, "")) is HeardRole.PROMOTED
    assert heard(f.Refuse(code, "the words of that side")) is HeardRole.PROMOTED


@pytest.mark.parametrize(
    "code",
    [
        "other-volume", "protocol", "resized", "other-name", "revoked", "a-later-code",
        "target-error", "restarting", "disk-full", "journal-failed", "too-small", "sector-size",
    ],
)  # fmt: skip
def test_any_other_refusal_tells_no_role(code: str) -> None:
    """Also one of a side in trouble: it names no replica, and that side may follow another primary by now."""
    assert heard(f.Refuse(code, "")) is HeardRole.NOTHING


def test_any_other_frame_tells_no_role() -> None:
    assert heard(f.Pong(1)) is HeardRole.NOTHING


def test_a_secondary_that_cannot_be_asked_does_not_count_and_the_error_names_the_reason() -> None:
    answer = silent(AT, PeerError("10.0.0.2:7790 cannot be reached"))
    assert answer.heard is HeardRole.NOTHING and answer.words == "it cannot be asked: 10.0.0.2:7790 cannot be reached"


@pytest.mark.parametrize("policy", [OnUnreachable(60), OnUnreachable(0), OnUnreachable(0, refuses=True)])
@pytest.mark.parametrize(
    "others", [[], [HeardRole.REPLICA], [HeardRole.NOTHING], [HeardRole.REPLICA, HeardRole.NOTHING]]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_promoted_secondary_shuts_the_gate_whatever_the_others_answer(
    policy: OnUnreachable, others: list[HeardRole], place: int
) -> None:
    answers = [one(heard) for heard in others]
    answers.insert(place, one(HeardRole.PROMOTED, "10.0.0.9:1"))
    verdict = verdict_of(answers, policy, 1e9)
    assert verdict is not None and verdict.outcome is GateOutcome.SHUT
    assert verdict.words == "10.0.0.9:1: words of promoted"


@pytest.mark.parametrize("policy", [OnUnreachable(60), OnUnreachable(0), OnUnreachable(0, refuses=True)])
def test_the_gate_opens_at_once_when_all_of_them_are_replicas(policy: OnUnreachable) -> None:
    verdict = verdict_of([one(HeardRole.REPLICA), one(HeardRole.REPLICA)], policy, 0.0)
    assert verdict is not None and verdict.outcome is GateOutcome.OPEN


def test_a_silent_secondary_among_others_is_waited_for_and_then_the_gate_opens_with_a_warning() -> None:
    answers = [one(HeardRole.REPLICA, "a:1"), one(HeardRole.NOTHING, "b:2")]
    assert verdict_of(answers, OnUnreachable(60), 59.9) is None
    verdict = verdict_of(answers, OnUnreachable(60), 60.0)
    assert verdict is not None and verdict.outcome is GateOutcome.UNHEARD
    assert "b:2" in verdict.words and "a:1" not in verdict.words


def test_a_silent_secondary_can_be_waited_for_before_the_gate_is_shut() -> None:
    """After a power loss of both sites the machine that boots first would mount nothing otherwise."""
    answers, policy = [one(HeardRole.REPLICA), one(HeardRole.NOTHING)], OnUnreachable.parse("wait 10m, then refuse")
    assert verdict_of(answers, policy, 599.0) is None
    verdict = verdict_of(answers, policy, 600.0)
    assert verdict is not None and verdict.outcome is GateOutcome.SILENT
    assert OnUnreachable.parse("wait 10m then refuse") == policy == OnUnreachable(600, refuses=True)


def test_where_silence_is_to_refuse_nothing_is_waited_for() -> None:
    verdict = verdict_of([one(HeardRole.REPLICA), one(HeardRole.NOTHING)], OnUnreachable.parse("refuse"), 0.0)
    assert verdict is not None and verdict.outcome is GateOutcome.SILENT
    verdict = verdict_of([one(HeardRole.NOTHING)], OnUnreachable.parse("mount"), 0.0)
    assert verdict is not None and verdict.outcome is GateOutcome.UNHEARD


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("wait 60s", 60),
        ("wait 60", 60),
        (" wait  1.5m ", 90),
        ("wait 24h", LONGEST_GATE_WAIT_S),
        ("wait 0", 0),
        ("mount", 0),
        ("wait 1m, then mount", 60),
    ],
)
def test_the_choice_is_read(text: str, wait_s: float) -> None:
    assert OnUnreachable.parse(text) == OnUnreachable(wait_s)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wait",
        "wait for it",
        "wait -1",
        "wait 25h",
        "wait 60 s",
        "Mount",
        "wait 1m then",
        "wait 1m, refuse",
    ],
)
def test_another_choice_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="'wait TIME', 'wait TIME, then refuse', 'mount' and 'refuse'"):
        OnUnreachable.parse(text)


def test_a_volume_without_a_state_is_one_that_nobody_answers_for_and_is_told_what_to_do() -> None:
    answer = no_state("/srv/state/data")
    assert answer.heard is HeardRole.NOTHING and answer.address == "/srv/state/data"
    assert "mount" in answer.words and "no-gate = true" in answer.words

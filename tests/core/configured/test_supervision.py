"""One process for each volume: a failure stays with its volume, and a reload touches what is different and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.configured.supervision import (
    FIRST_RESTART_S,
    GOOD_RUN_S,
    LONGEST_RESTART_S,
    Condition,
    Renew,
    Start,
    Stop,
    Supervision,
    Tell,
    Wanted,
)

A, B = Wanted("a"), Wanted("b")


def without_words(steps: list[object]) -> list[object]:
    return [step for step in steps if not isinstance(step, Tell)]


def words(steps: list[object]) -> list[str]:
    return [f"{step.name} {step.words}" for step in steps if isinstance(step, Tell)]


def running(**wanted: Wanted) -> Supervision:
    supervision = Supervision()
    assert supervision.reload(wanted, 0.0) == [Start(name) for name in wanted]
    return supervision


def test_a_reload_touches_nothing_that_is_the_same() -> None:
    supervision = running(a=A, b=B)
    assert supervision.reload({"a": A, "b": B}, 5.0) == []
    assert supervision.members["a"].since == 0.0


def test_a_volume_that_was_added_is_started_and_one_that_was_removed_is_stopped() -> None:
    supervision = running(a=A)
    steps = supervision.reload({"b": B}, 5.0)
    assert without_words(steps) == [Stop("a"), Start("b")]
    assert "tracked" in words(steps)[0]
    assert supervision.ended("a", 0, "", 6.0) == []
    assert list(supervision.members) == ["b"]


def test_a_volume_whose_configuration_changed_is_started_again_when_its_process_has_ended() -> None:
    supervision = running(a=A)
    assert without_words(supervision.reload({"a": B}, 5.0)) == [Stop("a")]
    assert supervision.reload({"a": B}, 5.5) == [], "it is on its way"
    assert supervision.ended("a", 0, "", 6.0) == [Start("a")]
    assert supervision.reload({"a": B}, 7.0) == []


def test_a_volume_that_is_changed_back_while_it_stops_is_started_too() -> None:
    supervision = running(a=A)
    supervision.reload({"a": B}, 5.0)
    supervision.reload({}, 5.1)
    supervision.reload({"a": A}, 5.2)
    assert supervision.ended("a", 0, "", 6.0) == [Start("a")]


def test_another_identity_is_read_again_and_nothing_is_stopped() -> None:
    supervision = running(a=Wanted("a", identity="1"))
    assert supervision.reload({"a": Wanted("a", identity="2")}, 5.0) == [Renew("a")]
    assert supervision.reload({"a": Wanted("a", identity="2")}, 6.0) == []


def test_a_failure_is_told_once_and_its_pauses_grow_to_a_bound() -> None:
    supervision = running(a=A, b=B)
    now, pauses, told = 10.0, [], []
    for _ in range(12):
        told += words(supervision.ended("a", 6, "the disk is gone", now))
        assert supervision.members["a"].condition is Condition.RESTING
        at = supervision.deadline()
        assert at is not None and supervision.due(at - 0.001) == []
        pauses.append(at - now)
        assert supervision.due(at) == [Start("a")]
        now = at + 1
    assert told == ["a the disk is gone; it is started again after 1 s, and after longer pauses from then on"]
    assert pauses[:4] == [FIRST_RESTART_S, 2.0, 4.0, 8.0] and pauses[-1] == LONGEST_RESTART_S
    assert supervision.members["b"].condition is Condition.RUNNING and supervision.members["b"].since == 0.0


def test_another_failure_is_told_again() -> None:
    supervision = running(a=A)
    supervision.ended("a", 6, "one", 1.0)
    supervision.due(2.0)
    assert len(words(supervision.ended("a", 5, "", 3.0))) == 1
    assert supervision.members["a"].failure == "ended with exit code 5"


def test_a_steady_run_ends_a_bad_time() -> None:
    supervision = running(a=A)
    supervision.ended("a", 6, "one", 1.0)
    supervision.due(2.0)
    assert supervision.deadline() == 2.0 + GOOD_RUN_S
    assert words(supervision.due(2.0 + GOOD_RUN_S)) == ["a runs again, after 1 failure"]
    assert supervision.deadline() is None
    (told,) = words(supervision.ended("a", 6, "one", 99.0))
    assert "after 1 s" in told


def test_a_volume_that_ended_in_order_stays_ended_until_it_is_asked_for() -> None:
    supervision = running(a=A, b=B)
    assert without_words(supervision.ended("a", 0, "", 1.0)) == []
    assert supervision.reload({"a": A, "b": B}, 2.0) == [] and not supervision.over
    assert supervision.due(99.0) == []
    assert supervision.up(3.0) == [Start("a")]
    supervision.ended("a", 0, "", 4.0)
    supervision.ended("b", 0, "", 4.0)
    assert supervision.over


def test_up_starts_what_waits_after_a_failure_at_once() -> None:
    supervision = running(a=A)
    supervision.ended("a", 6, "one", 1.0)
    assert not supervision.over
    assert supervision.up(1.1) == [Start("a")]
    assert supervision.up(1.2) == []


def test_a_volume_with_an_enabled_unit_is_left_to_it() -> None:
    supervision = Supervision()
    left = Wanted("a", unit="pydbt@a.service")
    steps = supervision.reload({"a": left}, 0.0)
    assert without_words(steps) == [] and "pydbt@a.service" in words(steps)[0]
    assert supervision.over and supervision.up(1.0) == []
    assert supervision.reload({"a": A}, 2.0) == [Start("a")]
    assert without_words(supervision.reload({"a": left}, 3.0)) == [Stop("a")]
    assert without_words(supervision.ended("a", 0, "", 4.0)) == []
    assert supervision.members["a"].condition is Condition.LEFT_TO_UNIT


def test_a_wrong_file_stops_nothing_and_is_not_started() -> None:
    supervision = running(a=A)
    wrong = Wanted("", problem="line 3 is wrong")
    steps = supervision.reload({"a": wrong, "b": wrong}, 1.0)
    assert without_words(steps) == [] and len(words(steps)) == 2
    assert supervision.members["a"].condition is Condition.RUNNING
    assert supervision.members["b"].condition is Condition.BROKEN and supervision.up(1.5) == []
    assert supervision.reload({"a": A, "b": B}, 2.0) == [Start("b")], "the same settings as it was started with"


def test_stop_ends_everything_and_starts_nothing_more() -> None:
    supervision = running(a=A, b=B, c=Wanted("c"))
    supervision.ended("c", 6, "one", 1.0)
    assert supervision.stop() == [Stop("a"), Stop("b")]
    assert supervision.stop() == []
    assert supervision.reload({"d": A}, 2.0) == [] and supervision.up(2.0) == [] and supervision.due(99.0) == []
    assert supervision.ended("a", 0, "", 3.0) == [] and not supervision.over
    assert supervision.ended("b", 7, "not saved", 3.0) == [] and supervision.over


def test_the_exit_code_of_a_stop_is_of_what_goes_wrong_at_it_alone() -> None:
    supervision = running(good=A, bad=B)
    assert not supervision.spoils_the_stop("good", 7), "nothing is stopped yet"
    supervision.ended("bad", 6, "no disk", 1.0)
    supervision.due(1.0 + FIRST_RESTART_S)
    supervision.stop()
    assert supervision.spoils_the_stop("good", 7) and not supervision.spoils_the_stop("good", 0)
    assert not supervision.spoils_the_stop("bad", 6), "it was failing anyway"
    assert not supervision.spoils_the_stop("good", -9), "what was killed has a sentence of its own"


@given(st.lists(st.sampled_from(["fail", "end", "up", "same", "other", "none", "time"]), max_size=40))
def test_a_volume_never_has_two_processes_and_never_starts_fast(happenings: list[str]) -> None:
    supervision, now, alive, wanted, failed_at = Supervision(), 0.0, False, {"a": A}, None

    def carry_out(steps: list[object], asked: bool) -> None:
        nonlocal alive
        for step in steps:
            if isinstance(step, Start):
                assert not alive
                assert asked or failed_at is None or now - failed_at >= FIRST_RESTART_S
                alive = True
            if isinstance(step, Stop | Renew):
                assert alive

    carry_out(supervision.reload(wanted, now), True)
    for what in happenings:
        now += 0.25
        if what in ("fail", "end") and alive:
            stopping = supervision.members["a"].condition is Condition.STOPPING
            alive, failed_at = False, now if what == "fail" and not stopping else None
            carry_out(supervision.ended("a", 1 if what == "fail" else 0, "", now), False)
        elif what == "up":
            carry_out(supervision.up(now), True)
        elif what in ("same", "other", "none"):
            wanted = {"same": wanted, "other": {"a": B if wanted == {"a": A} else A}, "none": {}}[what]
            carry_out(supervision.reload(wanted, now), True)
        carry_out(supervision.due(now), False)

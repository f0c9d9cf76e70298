"""The planned change of places: given up without a trace, or gone through; and never two primaries, whatever is lost where."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from pydbt.core.primary.handover import HandoverSteps, Step
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.promotion import Position
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.takeover import why_not_take_over


def through(*steps: Step) -> HandoverSteps:
    handover = HandoverSteps(0.0, 10.0)
    assert handover.step is Step.ASKING
    for step in steps:
        match step:
            case Step.DRAINING:
                handover.answered("")
            case Step.ENDING:
                handover.drained(True, 1.0)
            case Step.TELLING:
                handover.became_replica()
            case Step.OVER:
                handover.told()
        assert handover.step is step
    return handover


ALL = (Step.DRAINING, Step.ENDING, Step.TELLING, Step.OVER)


def test_a_change_of_places_goes_from_the_question_to_the_end() -> None:
    through(*ALL)


@pytest.mark.parametrize("steps", [ALL[:0], ALL[:1], ALL[:2]])
def test_a_change_of_places_can_be_given_up_before_this_side_is_a_replica(steps: tuple[Step, ...]) -> None:
    handover = through(*steps)
    handover.lost("the cable was cut")
    assert (handover.step, handover.refusal) == (Step.GIVEN_UP, "the cable was cut")


@pytest.mark.parametrize("steps", [ALL[:3], ALL])
def test_a_replica_does_not_become_a_primary_by_itself(steps: tuple[Step, ...]) -> None:
    handover = through(*steps)
    handover.lost("the cable was cut")
    handover.answered("no")
    handover.drained(False, 1000.0)
    handover.waited(1000.0)
    assert handover.step is steps[-1] and not handover.may_be_given_up
    with pytest.raises(AssertionError):
        handover.give_up("never mind")


def test_a_refusal_or_silence_gives_the_change_of_places_up_with_its_reason() -> None:
    handover = through()
    handover.answered("its target is an image file")
    assert (handover.step, handover.refusal) == (Step.GIVEN_UP, "its target is an image file")
    silent = through()
    silent.waited(10.0)
    assert silent.step is Step.ASKING
    silent.waited(10.1)
    assert silent.step is Step.GIVEN_UP and "no answer" in silent.refusal


def test_a_change_of_places_is_given_up_when_not_everything_arrives_in_time() -> None:
    handover = through(Step.DRAINING)
    handover.drained(False, 9.0)
    assert handover.step is Step.DRAINING
    handover.drained(False, 10.1)
    assert handover.step is Step.GIVEN_UP and "in time" in handover.refusal


@pytest.mark.parametrize("wrong", ["became_replica", "told"])
def test_no_step_is_left_out(wrong: str) -> None:
    with pytest.raises(AssertionError):
        getattr(through(Step.DRAINING), wrong)()


# --- both sides, and everything that may be lost ----------------------------------------------------------

HELLO = f.Hello("ab" * 16, 1 << 20, 4096, 7, generations=Generations(4, shared=True))
RECORD = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume="ab" * 16, size_bytes=1 << 20, block_bytes=4096,
    consistent=True, epoch=7, sequence=10, generations=Generations(4),
)  # fmt: skip


@dataclass(frozen=True)
class Both:
    """Alpha hands over to beta. ``step``: of alpha's process, None when it died. ``flying``: messages that were not lost yet.

    ``alpha_primary``, ``beta_primary`` are durable; ``told``: alpha's record says that it does not know what beta did.
    ``reached``: beta's image has everything.
    """

    step: Step | None = Step.ASKING
    alpha_primary: bool = True
    told: bool = False
    beta_primary: bool = False
    reached: bool = False
    flying: frozenset[str] = frozenset({"question"})

    def alpha(self) -> HandoverSteps:
        handover = HandoverSteps(0.0, 10.0)
        assert self.step is not None
        handover.step = self.step
        return handover


def beta_takes(both: Both, *, final: bool) -> bool:
    """The product's own decision."""
    image = Position(7, 10 if both.reached else 9)
    words = why_not_take_over(
        f.Handover(final, "10.0.0.1:7790", 7, 10),
        HELLO,
        RECORD,
        image,
        staged=False,
        config=SecondaryConfig(1 << 20, unable="", sector_bytes=512),
    )
    return not words


def successors(both: Both, *, hasty: bool = False) -> Iterator[Both]:
    """``hasty``: a program that tells the peer before it is a replica itself."""
    for message in both.flying:
        yield replace(both, flying=both.flying - {message})  # lost
    if both.step is not None:
        yield replace(both, step=None)  # killed, or the power is gone
    if not both.reached and both.alpha_primary:
        yield replace(both, reached=True)
    if "question" in both.flying and not both.beta_primary and beta_takes(both, final=False):
        yield replace(both, flying=both.flying - {"question"} | {"answer"})
    if "final" in both.flying and not both.beta_primary and beta_takes(both, final=True):
        # Beta may die between the durable promotion and the answer.
        yield replace(both, beta_primary=True, flying=both.flying - {"final"} | {"done"})
        yield replace(both, beta_primary=True, flying=both.flying - {"final"})
    if both.step is Step.ASKING and "answer" in both.flying:
        handover = both.alpha()
        handover.answered("")
        yield replace(both, step=handover.step, flying=both.flying - {"answer"})
    if both.step is Step.DRAINING and both.reached:
        handover = both.alpha()
        handover.drained(True, 1.0)
        yield replace(both, step=handover.step)
    if both.step is Step.ENDING and hasty:
        yield replace(both, flying=both.flying | {"final"})
    if both.step is Step.ENDING:
        handover = both.alpha()
        handover.became_replica()
        yield replace(
            both, alpha_primary=False, told=True
        )  # durable, and then the power is gone before anything is sent
        yield replace(both, alpha_primary=False, told=True, step=handover.step, flying=both.flying | {"final"})
    if both.step is Step.TELLING and "done" in both.flying:
        handover = both.alpha()
        handover.told()
        yield replace(both, step=handover.step, told=False, flying=both.flying - {"done"})
    if both.step in (Step.ASKING, Step.DRAINING, Step.ENDING) and both.alpha_primary:
        handover = both.alpha()
        handover.lost("cut")
        yield replace(both, step=None)  # given up: it goes on as the primary
    if not both.alpha_primary and not both.told and both.step is None and not both.beta_primary:
        yield replace(both, alpha_primary=True)  # a person promotes it: not refused, since nothing is unknown


def reachable(*, hasty: bool = False) -> set[Both]:
    seen, todo = {Both()}, deque([Both()])
    while todo:
        for other in successors(todo.popleft(), hasty=hasty):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def test_a_message_lost_at_any_moment_never_leaves_two_primaries() -> None:
    seen = reachable()
    assert not [both for both in seen if both.alpha_primary and both.beta_primary]
    assert any(both.beta_primary and both.step is Step.OVER for both in seen), "it can come to its end"
    assert any(not both.alpha_primary and not both.beta_primary and not both.flying for both in seen), (
        "nobody may be left"
    )


def test_a_program_that_told_before_it_was_a_replica_would_be_found() -> None:
    assert [both for both in reachable(hasty=True) if both.alpha_primary and both.beta_primary]

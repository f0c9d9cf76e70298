"""The planned change of places, as the primary goes through it: one step after the other, and never two primaries.

    ASKING    the secondary is asked whether it could take over
    DRAINING  everything that was written has to reach it
    ENDING    nothing is captured any more, and this side becomes a replica, durably
    TELLING   this side is a replica, and the secondary is told to take over
    OVER      the secondary is the primary, or nobody knows whether it is

Up to ENDING the change is given up without a trace: this side is the primary, and the other was told nothing. From TELLING on
this side is a replica whatever happens; the secondary is promoted only by the message that is sent then. So at every moment, and
if either side or any message is lost there, at most one side is a primary.
"""

from __future__ import annotations

from enum import StrEnum


class Step(StrEnum):
    """How far it is."""

    ASKING = "asking"
    DRAINING = "draining"
    ENDING = "ending"
    TELLING = "telling"
    OVER = "over"
    GIVEN_UP = "given up"


class HandoverSteps:
    """``refusal``: why it was given up. Times are of the monotonic clock."""

    def __init__(self, now: float, patience_s: float) -> None:
        self.step = Step.ASKING
        self.refusal = ""
        self._until = now + patience_s

    @property
    def may_be_given_up(self) -> bool:
        """Whether this side is still the primary, and nobody was told anything else."""
        return self.step in (Step.ASKING, Step.DRAINING, Step.ENDING)

    def answered(self, refusal: str) -> None:
        """The secondary could take over, or says why not."""
        if self.step is Step.ASKING:
            if refusal:
                self.give_up(refusal)
            else:
                self.step = Step.DRAINING

    def drained(self, everything: bool, now: float) -> None:
        """Whether the secondary has everything, durably, and nothing is out of sync."""
        if self.step is Step.DRAINING:
            if everything:
                self.step = Step.ENDING
            elif now > self._until:
                self.give_up("not everything reached the secondary in time")

    def waited(self, now: float) -> None:
        """Nothing happened."""
        if self.step is Step.ASKING and now > self._until:
            self.give_up("the secondary gave no answer in time")

    def lost(self, reason: str) -> None:
        """The connection to the secondary is gone."""
        if self.may_be_given_up:
            self.give_up(reason)

    def became_replica(self) -> None:
        """This side is a replica, durably."""
        assert self.step is Step.ENDING, f"a handover that is {self.step} ends nothing"
        self.step = Step.TELLING

    def told(self) -> None:
        """The secondary has answered, or nobody knows."""
        assert self.step is Step.TELLING, f"a handover that is {self.step} is not told"
        self.step = Step.OVER

    def give_up(self, reason: str) -> None:
        """This side stays the primary."""
        assert self.may_be_given_up, "a replica does not become a primary by itself"
        self.step, self.refusal = Step.GIVEN_UP, reason

"""A change of places of which a replica does not know that it was completed: there may be no primary, and a person has to look.

It is written down before the step that it tells of, so that it outlives whatever ends that step. It is over when a primary is
heard that goes on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from pydbt.core.protocol.divergence import short
from pydbt.core.protocol.frame_checks import check_text


class HandoverStage(StrEnum):
    """How far it came, as this side knows it.

    ASKED: the primary asked whether this side could take its place. REFUSED: it has given its place up, and this side did not
    take it. PROMOTED: this side was promoted, and has not run since. GIVEN: this side has given its place up. TAKEN: the other
    one took it, and has not been heard since.
    """

    ASKED = "asked"
    REFUSED = "refused"
    PROMOTED = "promoted"
    GIVEN = "given"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class OpenHandover:
    """``other``: the address of the other side. ``since``: the moment (RFC 3339), empty when it is not known. ``why`` it was not
    completed, as far as that is known."""

    stage: HandoverStage
    other: str
    since: str = ""
    why: str = ""

    def __post_init__(self) -> None:
        check_text("other", self.other, 300)
        check_text("since", self.since, 64)
        check_text("why", self.why)

    @property
    def words(self) -> str:
        """What is known, and what to do, as a sentence."""
        at, why = f" at {short(self.since)}" if self.since else "", f" ({self.why})" if self.why else ""
        match self.stage:
            case HandoverStage.ASKED:
                return (
                    f"its primary asked{at} whether this side could take its place, and is not heard now, so that it may be a "
                    f"replica too: look there with 'controller status'; if it is one (at {self.other}), 'controller promote' "
                    "this side"
                )
            case HandoverStage.REFUSED:
                return (
                    f"its primary gave its place up{at}, and this side did not take it{why}, so that nobody is known to be "
                    f"the primary: 'controller promote' this side, or with --force the other one (at {self.other})"
                )
            case HandoverStage.PROMOTED:
                return (
                    f"this side was promoted{at}, and no run has begun here since: start 'controller run' with "
                    f"--secondary {self.other}, where its former primary is to be the secondary"
                )
            case HandoverStage.TAKEN:
                return (
                    f"{self.other} took the place of this side{at}, and has not been heard since: look there with 'controller "
                    "status', and start 'controller run' if none runs"
                )
            case HandoverStage.GIVEN:
                return (
                    f"this side gave its place to {self.other}{at}, and nobody is known to have taken it{why}: look there "
                    "with 'controller status'; if it is a replica too, 'controller promote' it there, or this side with "
                    "--force if that one is lost"
                )

    def to_values(self) -> dict[str, str]:
        """For the file."""
        return asdict(self)

    def to_report(self) -> dict[str, str]:
        """For the status."""
        return {"stage": self.stage.value, "other": self.other, "since": self.since, "words": self.words}

    @classmethod
    def from_values(cls, values: object) -> OpenHandover:
        """What ``to_values`` made. ValueError for anything else."""
        names = {"stage", "other", "since", "why"}
        if not isinstance(values, dict) or values.keys() != names:
            raise ValueError("its keys are not those of a change of places")
        return cls(HandoverStage(values["stage"]), values["other"], values["since"], values["why"])

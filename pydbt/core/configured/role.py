"""In which role a configured side starts: its state records that, and its file only says in which role it began.

A change of places, a promotion and a demotion change the state of a side and no file. So after a reboot everything that has to
know the role asks here: the services, the arming, the gate, the hold, the check of the configuration and the status.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pydbt.core.protocol.divergence import short

if TYPE_CHECKING:
    from pydbt.core.secondary.replica import ReplicaRecord

PRIMARY, SECONDARY = "run", "secondary"
"""The roles, by the names of their commands, which are those of their tables as well."""
OTHER_ROLE = {PRIMARY: SECONDARY, SECONDARY: PRIMARY}
PEER_KEYS = {PRIMARY: "secondary", SECONDARY: "listen"}
"""The key without which the table of a role cannot be used, beside that of the device."""


class Recorded(Enum):
    """What a state directory records of its side. PROMOTED: it was a replica, and is the volume since."""

    NOTHING = "nothing"
    VOLUME = "volume"
    REPLICA = "replica"
    PROMOTED = "promoted"


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """``since``: when it was promoted, or gave its place away (RFC 3339), empty when that is not known. ``successor``: the side
    that took its place. ``listen``: where it last waited for its primary; ``secondaries``: of a volume, where they are.
    """

    recorded: Recorded = Recorded.NOTHING
    since: str = ""
    successor: str = ""
    listen: str = ""
    secondaries: tuple[str, ...] = ()

    def role(self, by_file: str) -> str:
        """The role now; ``by_file`` for a side without a state.

        The state of a volume that was never a replica does not make a volume of what a file calls a replica: somebody wrote that
        file anew, or named a wrong state directory. Such a start is refused.
        """
        match self.recorded:
            case Recorded.REPLICA:
                return SECONDARY
            case Recorded.PROMOTED:
                return PRIMARY
            case _:
                return by_file

    def became(self) -> str:
        """How it came into its role, as the end of a sentence."""
        if self.recorded is Recorded.PROMOTED:
            return f"the primary, since it was promoted at {short(self.since)}"
        if self.successor:
            return f"a replica, since {self.successor} took its place at {short(self.since)}"
        return "a replica"

    def differs(self, by_file: str) -> str:
        """That the role is not that of the file, as a sentence; empty when it is."""
        role = self.role(by_file)
        if role == by_file:
            return ""
        return f"its file begins as [{by_file}], and by its state this side is {self.became()}: it starts as [{role}]"


class StartAs(Enum):
    """What a service of this side does. ANSWER: it was promoted, nobody is known to whom it could replicate, and it tells its
    old primary of that. REFUSE: it is a replica, and does not know where its primary expects it."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    ANSWER = "answer"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class RoleDecision:
    """``lacks``: the fact that is missing for the role, and what to do, as a sentence; empty when nothing is."""

    start: StartAs
    lacks: str = ""


def decide(
    by_file: str, known: RoleRecord, *, named: bool, is_image: bool, file: str, is_run: bool = False
) -> RoleDecision:
    """How a side starts. ``named``: ``file`` has a table for the other role, too. ``is_image``: its device is an image file,
    which is nobody's SOURCE. ``is_run``: another process of this machine is the primary of it already."""
    role = known.role(by_file)
    if role == by_file:
        return RoleDecision(StartAs.PRIMARY if role == PRIMARY else StartAs.SECONDARY)
    if role == SECONDARY:
        if named or known.listen:
            return RoleDecision(StartAs.SECONDARY)
        return RoleDecision(
            StartAs.REFUSE, _lacks(known, role, file, "this machine, at which it waits for its primary")
        )
    if is_image or is_run:
        return RoleDecision(StartAs.ANSWER)
    if named or known.secondaries:
        return RoleDecision(StartAs.PRIMARY)
    return RoleDecision(StartAs.ANSWER, _lacks(known, role, file, "the machine that is to be its secondary"))


def _lacks(known: RoleRecord, role: str, file: str, whose: str) -> str:
    return (
        f"by its state this side is {known.became()}, and {file} names no address of {whose}: add a table [{role}] with "
        f'{PEER_KEYS[role]} = "ADDR:PORT" to it, and start it again'
    )


def recorded(record: ReplicaRecord | None, *, is_volume: bool) -> Recorded:
    """``is_volume``: the state directory has the state of a volume.

    It may have both after a crash: a promotion writes that state before its record, and a demotion removes it afterwards. So the
    record decides where there is one.
    """
    if record is not None:
        return Recorded.PROMOTED if record.promoted else Recorded.REPLICA
    return Recorded.VOLUME if is_volume else Recorded.NOTHING

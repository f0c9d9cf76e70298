"""Whether a volume may be checked and mounted: first its secondaries are asked whether one of them has become the volume.

``e2fsck`` and every mount write. An old primary that comes back after a failover would change its disk before anybody looks.
Nobody who does not prove to be the secondary opens it: such an answer counts as none. So does a refusal that tells of no other
primary: it names no replica, and a side in trouble may follow another primary by now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum

from pydbt.core.configured.on_unreachable import OnUnreachable
from pydbt.core.protocol.divergence import short
from pydbt.core.protocol.frames import (
    SECOND_PRIMARY,
    SUPERSEDED,
    Frame,
    Hello,
    Refuse,
    Welcome,
)
from pydbt.core.protocol.generations import objection
from pydbt.core.protocol.refusals import is_expected, refusal_words
from pydbt.core.protocol.role import PROMOTED, REPLICA, Role

SUPERSEDES = frozenset({SUPERSEDED, SECOND_PRIMARY, "newer", "split-brain", "unrelated"})
"""Refusals of a side that is, or follows, another primary of this volume. Earlier versions say no more than that."""


class HeardRole(Enum):
    """What a secondary has said of itself; NOTHING also where a stranger answered."""

    REPLICA = "replica"
    PROMOTED = "promoted"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class RoleAnswer:
    """Of the secondary at ``address``, with the reason in ``words``."""

    address: str
    heard: HeardRole
    words: str = ""


class GateOutcome(StrEnum):
    """``OPEN``: every secondary is a replica; ``UNHEARD``: it is mounted although one did not answer; ``SHUT``: one is the volume
    now; ``SILENT``: one did not answer, and the volume is not mounted for that reason."""

    OPEN = "open"
    UNHEARD = "unheard"
    SHUT = "shut"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """``words``: the reason, for people."""

    outcome: GateOutcome
    words: str


def silent(address: str, error: Exception) -> RoleAnswer:
    """Of a secondary that could not be asked, or whose answer is not to be read: the error says which it was."""
    return RoleAnswer(address, HeardRole.NOTHING, f"it cannot be asked: {error}")


def no_state(state_dir: str) -> RoleAnswer:
    """Of a configured volume without a state: it is new, or its state lies on a file system that is not mounted.

    Nobody can tell these apart, so it counts as a secondary that does not answer.
    """
    return RoleAnswer(
        state_dir,
        HeardRole.NOTHING,
        "it has no state of the volume, so that nobody knows whom to ask; mount the file system of that folder, or if the volume "
        "is new, start its replication ('controller run'), or have no-gate = true in its file until then",
    )


def answer_of(address: str, frame: Frame, hello: Hello, expected: str) -> RoleAnswer:
    """What the first frame of a secondary says. ``expected`` is the name of the replica on record, empty before there is one."""
    match frame:
        case Role() | Welcome() if not is_expected(expected, frame.replica, frame.formerly or ()):
            return RoleAnswer(
                address, HeardRole.NOTHING, f"another replica is there ({frame.replica}), not the one of this volume"
            )
        case Role(role=role, since=since) if role == PROMOTED:
            return RoleAnswer(address, HeardRole.PROMOTED, f"it was promoted at {short(since)}, and is the volume now")
        case Role(role=role) if role == REPLICA:
            return RoleAnswer(address, HeardRole.REPLICA, "it is a replica")
        case Welcome(volume=volume) if volume not in (None, hello.volume):
            return RoleAnswer(address, HeardRole.NOTHING, f"it holds another volume ({volume})")
        case Welcome(volume=volume, generations=theirs):
            found = objection(hello.generations, theirs) if volume is not None else None
            if found is not None:
                return RoleAnswer(address, HeardRole.PROMOTED, found[1])
            return RoleAnswer(address, HeardRole.REPLICA, "it is a replica")
        case Refuse(code=code, message=message):
            heard = HeardRole.PROMOTED if code in SUPERSEDES else HeardRole.NOTHING
            return RoleAnswer(address, heard, f"it refuses: {message or refusal_words(code)}")
    return RoleAnswer(address, HeardRole.NOTHING, f"it answered with {type(frame).__name__}")


def verdict_of(answers: Iterable[RoleAnswer], policy: OnUnreachable, waited_s: float) -> GateVerdict | None:
    """None: those that have not answered are to be asked again. One that was promoted decides."""
    found = list(answers)
    if promoted := [one for one in found if one.heard is HeardRole.PROMOTED]:
        return GateVerdict(GateOutcome.SHUT, _words(promoted))
    unheard = [one for one in found if one.heard is HeardRole.NOTHING]
    if not unheard:
        return GateVerdict(GateOutcome.OPEN, _words(found))
    if waited_s < policy.wait_s:
        return None
    return GateVerdict(GateOutcome.SILENT if policy.refuses else GateOutcome.UNHEARD, _words(unheard))


def _words(answers: list[RoleAnswer]) -> str:
    return "; ".join(f"{one.address}: {one.words}" for one in answers)

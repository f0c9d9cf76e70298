"""Whether a replica may be promoted now, and what is lost then.

Never two primaries: a replica whose primary is alive is not promoted without `--force`. And never a figure that is
better than the truth: what is not known is called unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pydbt.core.errors import BusyError, DeviceError, UsageError
from pydbt.core.protocol.divergence import short
from pydbt.core.secondary.primary_watch import SIGN_OF_LIFE_S, PrimaryReport
from pydbt.core.secondary.replica import ReplicaState

UNKNOWN_MOMENT = "an unknown time"
"""In the place of a moment that could not be read."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where an image stands."""

    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a replica is not promoted, as a sentence."""

    why: str
    may_be_forced: bool

    def heed(self, *, force: bool) -> None:
        """UsageError when nothing can force it, BusyError when something could and does not."""
        if not self.may_be_forced:
            raise UsageError(self.why)
        if not force:
            raise BusyError(self.why)


def require_whole(target: object, problem: str) -> None:
    """DeviceError while the target lacks something that it could not be written, which nothing forces onto it."""
    if problem:
        raise DeviceError(
            f"{target} cannot be promoted while not all of it can be written there: {problem}; if it never can, stop the "
            "secondary, copy TARGET to another disk (as ddrescue does), and run 'controller promote NEWDISK --accept-target' "
            "with the same --state"
        )


def why_not_promote(
    target: str, state: ReplicaState, host: str, *, lives: bool, has_slept: bool = False, gate_asked: str = ""
) -> Objection | None:
    """None when it may be. ``lives``: its primary ``host`` was heard within a heartbeat, and did not end on purpose.

    ``has_slept``: it was heard that long before a suspension of this machine, and not after it. ``gate_asked``: when it asked
    whether it may mount the volume, of one that was not heard since; empty: it did not ask.
    """
    if state is ReplicaState.INCONSISTENT:
        return Objection(
            f"{target} is inconsistent, a mixture of different moments, because its first copy, or a "
            "resynchronization in place, was not completed, 'controller invalidate' gave it up, another program changed it, or "
            "its journal is damaged: it cannot be promoted",
            may_be_forced=False,
        )
    if lives and has_slept:
        return Objection(
            f"the primary {host or 'of this replica'} was alive when this machine was suspended, and there was no time yet to "
            f"hear it again: ask again in {SIGN_OF_LIFE_S:g} s, or add --force if it is to lose its place",
            may_be_forced=True,
        )
    if lives:
        return Objection(
            f"the primary {host or 'of this replica'} is alive (heard within the last {SIGN_OF_LIFE_S:g} s), and programs may be "
            "writing there: stop it with 'controller down' there, or add --force if it is to lose its place",
            may_be_forced=True,
        )
    if gate_asked:
        return Objection(
            f"the primary {host or 'of this replica'} asked at {short(gate_asked)} whether it may mount the volume, was told "
            "that this side is a replica, and has not connected since: it may be mounted and written there; look there, and "
            "unmount it, or add --force if it is lost",
            may_be_forced=True,
        )
    return None


def why_not_take_back(handed_to: str) -> Objection | None:
    """Of a side that was the primary, and is a replica since it told ``handed_to`` to take over; empty: nobody was told."""
    if not handed_to:
        return None
    return Objection(
        f"this side has told {handed_to} to take over, and does not know whether it did: look there with "
        "'controller status'; if that is still a replica, 'controller promote' it, or add --force here",
        may_be_forced=True,
    )


@dataclass(frozen=True, slots=True)
class Loss:
    """What a promotion gives up. ``as_of``: the image has every write before this moment, empty when that is not known.

    ``seconds``, ``behind_bytes``: from then until the primary last told (``told``), it had at most this beyond the image.
    ``behind_bytes`` None: it did not know how much, or never told. ``nothing``: it had ended, and lacked nothing. What it wrote
    after ``told`` is not known, unless it had ended.
    """

    host: str
    as_of: str
    told: str
    seconds: float
    behind_bytes: int | None
    nothing: bool


def loss(primary: PrimaryReport, image: Position) -> Loss:
    """What is lost when this image is promoted. ``primary``: what was last known of it."""
    known = f"{image.epoch:016x}" == primary.as_of_epoch and image.sequence >= primary.as_of_sequence
    as_of = primary.as_of if known else ""
    behind = primary.behind_bytes
    seconds = _seconds_between(as_of, primary.told) if as_of else 0.0
    return Loss(primary.host, as_of, primary.told, seconds, behind, bool(as_of) and primary.ended and behind == 0)


def superseded_words(host: str, moment: str) -> str:
    """What the old primary is told, at the promotion or whenever it connects again."""
    return (
        f"the replica on {host} was promoted at {short(moment)} and is the volume now; writes here since then are only here: "
        "stop the programs that write, and make this side the replica with 'controller demote'"
    )


def _seconds_between(earlier: str, later: str) -> float:
    try:
        return max((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)) / timedelta(seconds=1), 0.0)
    except (ValueError, TypeError):
        return 0.0

"""Whether a node of a cluster may be promoted without a person, and how much it is to be preferred.

Two things are never risked for availability. A node whose primary may still write is not promoted: only fencing proves that
it does not. And no more is given up than the administrator allowed: a replica counts as complete up to a moment only where it
was told so, and what is not known is never good enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from pydbt.core.cluster.owner import BegunPromotion, ContentOwner, OwnerClaim
from pydbt.core.secondary.primary_watch import PrimaryReport
from pydbt.core.secondary.promotion import Position, loss
from pydbt.core.secondary.replica import ReplicaState

OWNER_SCORE = 1000
"""It has everything, and the maps of what others lack."""
COMPLETE_SCORE = 500
"""A planned move: it has everything."""
FOLLOWER_SCORE = 100
"""It was complete a moment ago."""
_WHOLE_SECOND = timedelta(seconds=1)
"""The moment of a fencing may be told in whole seconds, rounded down."""


class NodeContent(StrEnum):
    """What the state directory of a node says that its device is."""

    NOTHING = "nothing"
    VOLUME = "volume"
    REPLICA = "replica"


@dataclass(frozen=True, slots=True)
class Fencing:
    """A node was cut off from power or disks: it wrote nothing after ``completed``."""

    node: str
    completed: datetime


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What a replica knows. ``told_at``: when it told this, by this node's clock. ``problem``: why its target cannot be
    written."""

    state: ReplicaState
    image: Position
    primary: PrimaryReport
    told_at: datetime
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What one node knows. ``fencings`` is None when the history could not be read; ``replica`` when nothing told of it.

    ``begun``: a promotion of this node that may not be finished.
    """

    volume: str
    node: str
    content: NodeContent
    owner: ContentOwner | None
    replica: ReplicaFacts | None
    fencings: tuple[Fencing, ...] | None
    now: datetime
    max_loss_s: float
    begun: BegunPromotion | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether this node began to be promoted, and nobody was promoted since."""
        return self.begun is not None and self.owner is not None and self.begun.is_under(self.owner)


@dataclass(frozen=True, slots=True)
class Candidate:
    """``score`` None: the cluster is not to choose this node. ``why_not``: why it may not be promoted now; empty when it may.
    Pacemaker shows the first 127 characters of it, so that what matters stands there.

    ``fenced``: the primary was fenced, so that having heard of it a moment ago is no objection. ``lost_s``: what the primary
    wrote in at most this many seconds is given up; None where nothing is. ``stands_still``: no other node is the primary, this
    one is not to be, and only a person can change that.
    """

    score: int | None
    why_not: str
    fenced: bool = False
    lost_s: float | None = None
    stands_still: bool = False


def candidate(facts: NodeFacts) -> Candidate:
    """May this node be promoted now, and how much is it preferred?"""
    found = _judged(facts)
    return replace(found, stands_still=found.score is None and _has_no_primary(facts))


def _has_no_primary(facts: NodeFacts) -> bool:
    """Whether no node is promoted, by all that is known here."""
    owner, replica = facts.owner, facts.replica
    if owner is None or owner.node == facts.node or owner.claim is OwnerClaim.RELEASED:
        return True
    fencing = _last_fencing(facts.fencings or (), owner)
    if owner.claim is OwnerClaim.CHOSEN or fencing is None:
        return False
    heard_at = None if replica is None else _heard_at(replica)
    return heard_at is None or heard_at <= fencing.completed + _WHOLE_SECOND


def _judged(facts: NodeFacts) -> Candidate:
    if facts.content is NodeContent.NOTHING:
        return Candidate(None, "this node has neither the volume nor a replica of it: make the first copy by hand")
    if (owner := facts.owner) is None:
        return Candidate(
            None,
            f"the cluster does not know whose content counts: run 'controller cluster choose {facts.volume}' on that node, once",
        )
    if facts.content is NodeContent.VOLUME and owner.node != facts.node:
        return _go_on(owner) if facts.is_unfinished else Candidate(None, _returned_words(owner, facts.volume))
    replica = facts.replica
    if facts.content is NodeContent.REPLICA:
        if replica is None:
            return Candidate(None, "nothing is known of the replica of this node: its secondary does not answer")
        if replica.state is ReplicaState.INCONSISTENT or replica.problem:
            more = f" ({replica.problem})" if replica.problem else ""
            return Candidate(None, f"the replica of this node is inconsistent{more}")
    if owner.node == facts.node:
        return Candidate(OWNER_SCORE, "")
    assert replica is not None
    found = _of_replica(facts, owner, replica)
    if found.why_not and facts.begun is not None and facts.is_unfinished and not _heard_since(replica, facts.begun.at):
        return _go_on(owner)
    return found


def _of_replica(facts: NodeFacts, owner: ContentOwner, replica: ReplicaFacts) -> Candidate:
    """Of a replica whose owner is another node."""
    match owner.claim:
        case OwnerClaim.CHOSEN:
            return Candidate(None, f"the content of {owner.node} was chosen, and that node was not promoted since")
        case OwnerClaim.RELEASED:
            return _after_release(owner, replica, facts.volume)
        case OwnerClaim.PROMOTED:
            return _after_promotion(facts, owner, replica)


def _go_on(owner: ContentOwner) -> Candidate:
    """A promotion that was cut off: what it gives up was decided when it began. An owner that is back has more, and goes first.

    A start has perhaps made it a replica again, which has no memory of its primary: it is what was promoted all the same.
    """
    fenced = owner.claim is OwnerClaim.PROMOTED
    return Candidate(FOLLOWER_SCORE if fenced else COMPLETE_SCORE, "", fenced=fenced)


def _heard_since(replica: ReplicaFacts, moment: datetime) -> bool:
    heard_at = _heard_at(replica)
    return heard_at is not None and heard_at > moment + _WHOLE_SECOND


def _returned_words(owner: ContentOwner, volume: str) -> str:
    """Why a node that was the primary stays out. First what to do: the rest may be cut off."""
    return (
        f"run 'controller cluster rejoin {volume}' on this node: {owner.node} was promoted since this one was the primary; "
        "that makes this node a replica, and gives up what only it has"
    )


def _after_release(owner: ContentOwner, replica: ReplicaFacts, volume: str) -> Candidate:
    """The owner was demoted in good order: this replica either has all of it, or is no candidate."""
    if loss(replica.primary, replica.image).nothing:
        return Candidate(COMPLETE_SCORE, "")
    return Candidate(
        None,
        f"{owner.node} was stopped in good order, and this replica may lack a part of it: start it there, or run "
        f"'controller cluster choose {volume}' on this node, which gives that up",
    )


def _after_promotion(facts: NodeFacts, owner: ContentOwner, replica: ReplicaFacts) -> Candidate:
    """The owner is the primary, or was until it failed."""
    lost_now = _lost_s(replica, facts.now)
    follows = lost_now is not None and lost_now <= facts.max_loss_s
    if facts.fencings is None:
        return Candidate(None, f"the history of fencing cannot be read, so that {owner.node} may still be the primary")
    fencing = _last_fencing(facts.fencings, owner)
    if fencing is None:
        score = FOLLOWER_SCORE if follows else None
        return Candidate(score, f"{owner.node} is the primary, and was not fenced since it was promoted")
    heard_at = _heard_at(replica)
    if heard_at is not None and heard_at > fencing.completed + _WHOLE_SECOND:
        score = FOLLOWER_SCORE if follows else None
        return Candidate(score, f"{owner.node} was heard after it was fenced: it is the primary again")
    lost_s = _lost_s(replica, fencing.completed)
    if lost_s is None:
        return Candidate(None, f"{owner.node} was fenced, and it is not known up to when this replica was complete")
    if lost_s > facts.max_loss_s:
        return Candidate(
            None,
            f"the last {lost_s:.0f} s may be only on {owner.node}, fenced (max_loss {facts.max_loss_s:g} s): start it, or run "
            f"'controller cluster choose {facts.volume}' on this node, which gives them up",
        )
    return Candidate(FOLLOWER_SCORE, "", fenced=True, lost_s=lost_s)


def _last_fencing(fencings: tuple[Fencing, ...], owner: ContentOwner) -> Fencing | None:
    """The last one of the owner since it became that."""
    after = [one for one in fencings if one.node == owner.node and one.completed + _WHOLE_SECOND >= owner.since]
    return max(after, key=lambda one: one.completed, default=None)


def _heard_at(replica: ReplicaFacts) -> datetime | None:
    """When the primary was last heard, by this node's clock; None when it was not since the secondary was started."""
    heard_seconds = replica.primary.heard_seconds
    return None if heard_seconds is None else replica.told_at - timedelta(seconds=heard_seconds)


def _lost_s(replica: ReplicaFacts, until: datetime) -> float | None:
    """The longest time before ``until`` whose writes this replica may lack; None when nobody knows.

    It is counted in two ways, and the longer one counts. By the silence: the primary was last heard that time ago, and told
    then how far the replica was behind; that needs no clocks that agree. By the clocks: from the moment, of the primary's
    clock, up to which the replica has everything; that does not trust what was heard last to be what was told last.
    """
    heard_at = _heard_at(replica)
    as_of, told = _moment(loss(replica.primary, replica.image).as_of), _moment(replica.primary.told)
    if heard_at is None or as_of is None or told is None:
        return None
    by_silence = until - heard_at + max(told - as_of, timedelta())
    return max(by_silence, until - as_of, timedelta()).total_seconds()


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None

"""Which node of a cluster may be promoted without a person: only one that lacks no more than was allowed, after fencing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.cluster.candidate import (
    COMPLETE_SCORE,
    FOLLOWER_SCORE,
    OWNER_SCORE,
    Fencing,
    NodeContent,
    NodeFacts,
    ReplicaFacts,
    candidate,
)
from pydbt.core.cluster.owner import BegunPromotion, ContentOwner, OwnerClaim
from pydbt.core.configured.problems import MAX_NAME_CHARACTERS
from pydbt.core.secondary.primary_watch import PrimaryReport
from pydbt.core.secondary.promotion import Position
from pydbt.core.secondary.replica import ReplicaState

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
EPOCH = 0xA1
SHOWN_CHARACTERS = 127  # of a reason, by Pacemaker 2.1


def at(seconds: float) -> datetime:
    """By the clocks of both machines, which agree unless a test says otherwise."""
    return NOON + timedelta(seconds=seconds)


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def report(heard_ago: float | None, told: float, as_of: float, *, ended: bool = False) -> PrimaryReport:
    return PrimaryReport(
        "alpha", "/dev/vda", heard_ago, ended, text(at(told)), 0, text(at(as_of)), f"{EPOCH:016x}", 100
    )


REPLICA = ReplicaFacts(ReplicaState.CONSISTENT, Position(EPOCH, 100), report(10.0, 0, 0), told_at=at(10))
"""At second 0 the primary was last heard, and the replica was complete; then alpha failed, and was fenced at second 5."""
FACTS = NodeFacts(
    "data", "beta", NodeContent.REPLICA, ContentOwner("alpha", OwnerClaim.PROMOTED, at(-3600)), REPLICA,
    (Fencing("alpha", at(5)),), now=at(10), max_loss_s=30,
)  # fmt: skip


def told(primary: PrimaryReport, **changes: object) -> NodeFacts:
    return replace(FACTS, replica=replace(REPLICA, primary=primary), **changes)  # type: ignore[arg-type]


def test_a_replica_that_was_complete_shortly_before_the_fencing_may_be_promoted() -> None:
    found = candidate(FACTS)
    assert (found.why_not, found.score, found.fenced, found.lost_s) == ("", FOLLOWER_SCORE, True, 5)


def test_ten_minutes_of_writes_behind_a_cut_link_are_never_given_up_without_a_person() -> None:
    found = candidate(told(report(610.0, -600, -600)))
    shown = found.why_not[:SHOWN_CHARACTERS]
    assert found.score is None and "605 s" in shown and "max_loss 30 s" in shown
    assert "start it" in shown and "'controller cluster choose data'" in shown, "and what a person can do"


def test_a_primary_that_was_not_fenced_may_still_write() -> None:
    for fencings in ((), (Fencing("gamma", at(5)),), (Fencing("alpha", at(-4000)),)):
        found = candidate(replace(FACTS, fencings=fencings))
        assert "not fenced since" in found.why_not and found.score == FOLLOWER_SCORE, (
            "the cluster may choose it to fence"
        )


def test_while_nothing_was_fenced_a_replica_that_fell_behind_is_not_chosen_either() -> None:
    assert candidate(told(report(31.0, -21, -21), fencings=())).score is None
    assert candidate(told(report(1.0, 9, -25), fencings=())).score is None, "it is heard, and the replica is behind"


def test_a_primary_that_is_heard_after_its_fencing_is_one_again() -> None:
    found = candidate(told(report(1.0, 9, 9)))
    assert "heard after" in found.why_not
    assert candidate(told(report(4.5, 5, 5))).why_not == "", "a moment in whole seconds is rounded down"


def test_a_node_with_an_unknown_fact_is_never_a_candidate() -> None:
    unknown = [
        told(replace(REPLICA.primary, heard_seconds=None)),
        told(replace(REPLICA.primary, told="")),
        told(replace(REPLICA.primary, as_of="")),
        told(replace(REPLICA.primary, as_of="2026-01-02 12:00:00")),
        told(replace(REPLICA.primary, as_of_epoch=f"{EPOCH + 1:016x}")),
        told(PrimaryReport.from_values(None)),
        replace(FACTS, fencings=None),
        replace(FACTS, replica=None),
        replace(FACTS, owner=None),
        replace(FACTS, content=NodeContent.NOTHING),
        replace(FACTS, replica=replace(REPLICA, image=Position(EPOCH, 99))),
    ]
    for facts in unknown:
        found = candidate(facts)
        assert found.why_not and found.score is None, facts


@pytest.mark.parametrize("ahead_s", [-40, 40])
def test_a_clock_that_is_wrong_makes_no_replica_newer_than_it_is(ahead_s: float) -> None:
    """Last heard 40 s before the fencing; the primary's clock goes before, or behind."""
    found = candidate(told(report(45.0, -35 + ahead_s, -35 + ahead_s)))
    assert found.score is None and "max_loss" in found.why_not


def test_a_late_report_that_tells_of_an_earlier_moment_counts_from_that_moment() -> None:
    found = candidate(told(report(10.0, -600, -600)))
    assert "605 s" in found.why_not


def test_the_time_by_which_the_replica_was_behind_counts_as_lost() -> None:
    assert candidate(told(report(10.0, 0, -20))).lost_s == 25
    assert "may be only on alpha" in candidate(told(report(10.0, 0, -26))).why_not


def test_an_inconsistent_replica_is_never_promoted() -> None:
    for replica in (replace(REPLICA, state=ReplicaState.INCONSISTENT), replace(REPLICA, problem="bad block at byte 0")):
        for owner in (FACTS.owner, ContentOwner("beta", OwnerClaim.CHOSEN, at(0))):
            found = candidate(replace(FACTS, replica=replica, owner=owner))
            assert "inconsistent" in found.why_not and found.score is None
    assert "bad block" in candidate(replace(FACTS, replica=replace(REPLICA, problem="bad block"))).why_not


@pytest.mark.parametrize("claim", OwnerClaim)
@pytest.mark.parametrize("content", [NodeContent.VOLUME, NodeContent.REPLICA])
def test_the_owner_has_everything_and_is_preferred(claim: OwnerClaim, content: NodeContent) -> None:
    found = candidate(replace(FACTS, content=content, owner=ContentOwner("beta", claim, at(0)), fencings=None))
    assert (found.why_not, found.score, found.lost_s) == ("", OWNER_SCORE, None)


@pytest.mark.parametrize(
    ("changes", "stands_still"),
    [
        ({}, False),
        ({"owner": None}, True),
        ({"owner": ContentOwner("alpha", OwnerClaim.RELEASED, at(0)), "replica": None}, True),
        ({"owner": ContentOwner("alpha", OwnerClaim.CHOSEN, at(0))}, False),
        ({"replica": replace(REPLICA, state=ReplicaState.INCONSISTENT)}, True),
        ({"replica": replace(REPLICA, state=ReplicaState.INCONSISTENT), "fencings": ()}, False),
        ({"replica": replace(REPLICA, state=ReplicaState.INCONSISTENT), "fencings": None}, False),
        ({"replica": replace(REPLICA, state=ReplicaState.INCONSISTENT, primary=report(1.0, 0, 0))}, False),
        ({"replica": replace(REPLICA, problem="bad"), "owner": ContentOwner("beta", OwnerClaim.PROMOTED, at(0))}, True),
        ({"max_loss_s": 4}, True),
        ({"max_loss_s": 4, "fencings": ()}, False),
    ],
)
def test_the_volume_stands_still_where_no_other_node_is_the_primary_and_this_one_may_not_be(
    changes: dict[str, object], stands_still: bool
) -> None:
    found = candidate(replace(FACTS, **changes))  # type: ignore[arg-type]
    assert found.stands_still == stands_still, found
    assert found.why_not or not stands_still


def test_an_old_primary_that_comes_back_is_no_candidate() -> None:
    found = candidate(replace(FACTS, content=NodeContent.VOLUME))
    assert found.score is None and "alpha was promoted since" in found.why_not
    longest = candidate(replace(FACTS, content=NodeContent.VOLUME, volume="v" * MAX_NAME_CHARACTERS))
    for words, name in ((found.why_not, "data"), (longest.why_not, "v" * MAX_NAME_CHARACTERS)):
        assert f"'controller cluster rejoin {name}'" in words[:SHOWN_CHARACTERS], "the command as it is typed"


def test_a_promotion_that_was_cut_off_may_be_finished_while_nobody_was_promoted_since() -> None:
    released = ContentOwner("alpha", OwnerClaim.RELEASED, at(-10))
    assert FACTS.owner is not None
    for owner, score in ((FACTS.owner, FOLLOWER_SCORE), (released, COMPLETE_SCORE)):
        begun = BegunPromotion(owner, at(6))
        # What a start made a replica again has no memory of its primary. And a history of fencing may be forgotten.
        unheard = replace(REPLICA, primary=PrimaryReport.from_values(None))
        for facts in (
            replace(FACTS, content=NodeContent.VOLUME, replica=None), replace(FACTS, replica=unheard, fencings=()),
        ):  # fmt: skip
            found = candidate(replace(facts, owner=owner, begun=begun))
            assert (found.why_not, found.score) == ("", score)
            assert found.fenced == (owner is FACTS.owner)
            later = replace(owner, since=at(7))
            for other in (later, replace(owner, node="gamma")):
                found = candidate(replace(facts, owner=other, begun=begun))
                assert found.score is None and found.why_not, "another one was promoted since"


def test_an_interrupted_promotion_goes_on_with_the_loss_accepted_at_its_begin_and_with_no_other() -> None:
    assert FACTS.owner is not None
    begun = BegunPromotion(FACTS.owner, at(6))
    for state in (ReplicaState.INCONSISTENT, ReplicaState.CONSISTENT):
        heard = told(report(1.0, 0, 0), begun=begun)
        assert heard.replica is not None
        heard = replace(heard, replica=replace(heard.replica, state=state), now=at(10))
        words = "inconsistent" if state is ReplicaState.INCONSISTENT else "was heard after it was fenced"
        assert words in candidate(heard).why_not
    assert candidate(replace(FACTS, begun=begun)) == candidate(FACTS), "what may be promoted anyway is judged as ever"


def test_the_record_of_a_begun_promotion_is_read_again_and_any_other_text_is_none() -> None:
    begun = BegunPromotion(ContentOwner("alpha", OwnerClaim.PROMOTED, at(0.1234567)), at(5.5))
    again = BegunPromotion.from_text(f"{begun.to_text()}\n")
    assert again is not None and again.at == begun.at and again.is_under(begun.under)
    owner = "promoted alpha 2026-01-02T12:00:00+00:00"
    lasting = begun.to_text()
    without_zone = f"2026-01-02T12:00:00 {owner}"
    for text in ("", "x", f"noon {owner}", without_zone, lasting.replace("promoted", "demoted"), lasting[:-6]):
        assert BegunPromotion.from_text(text) is None


def test_after_a_planned_demotion_only_a_replica_that_has_everything_is_one() -> None:
    released = ContentOwner("alpha", OwnerClaim.RELEASED, at(0))
    found = candidate(told(report(10.0, 0, 0, ended=True), owner=released, fencings=()))
    assert (found.why_not, found.score) == ("", COMPLETE_SCORE)
    behind = replace(report(10.0, 0, 0, ended=True), behind_bytes=4096)
    for primary in (report(10.0, 0, 0), behind, replace(behind, behind_bytes=None)):
        assert candidate(told(primary, owner=released)).score is None


def test_a_person_s_choice_counts_for_that_node_alone() -> None:
    assert "was chosen" in candidate(replace(FACTS, owner=ContentOwner("alpha", OwnerClaim.CHOSEN, at(0)))).why_not


@given(
    heard=st.floats(-700, 20), told_at=st.floats(-700, 20), as_of=st.floats(-700, 20), fenced=st.floats(-10, 20),
    max_loss=st.floats(0, 120),
)  # fmt: skip
def test_nothing_older_than_max_loss_is_ever_promoted(
    heard: float, told_at: float, as_of: float, fenced: float, max_loss: float
) -> None:
    facts = told(report(20 - heard, told_at, as_of), fencings=(Fencing("alpha", at(fenced)),), max_loss_s=max_loss)
    facts = replace(facts, replica=replace(facts.replica, told_at=at(20)), now=at(20))  # type: ignore[type-var]
    found = candidate(facts)
    if not found.why_not:
        assert fenced - as_of <= max_loss + 0.01 and fenced - heard <= max_loss + 0.01 and heard <= fenced + 1.01

"""Which events lie between one status and the next; and that a fact which flaps is told truly, and is no flood."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.identity_expiry import IdentityState, Lifetime, identity_problem
from pydbt.core.seen import event_names as names
from pydbt.core.seen.change_words import NamedChange
from pydbt.core.seen.changes import BURST, REGAIN_S, Changes
from pydbt.core.seen.view import View
from tests.core.seen.statuses import primary, secondary, secondary_keys


def told(*statuses: dict[str, Any], every_s: float = 1.0, late_after_s: float = 60.0) -> list[list[NamedChange]]:
    changes = Changes(late_after_s)
    return [changes.look(View(status), number * every_s) for number, status in enumerate(statuses)]


def names_of(changes: list[NamedChange]) -> list[str]:
    return [change.name for change in changes]


def test_the_first_status_tells_that_the_controller_has_begun_and_what_is_not_as_usual() -> None:
    (first,) = told(primary(secondary_keys(connected=False, replica_state="inconsistent", taints=["fsck"])))
    assert names_of(first) == [names.STARTED, names.TAINTED]
    assert first[0].figures == {"mode": "normal", "replica_state": "inconsistent"}
    (first,) = told(secondary())
    assert names_of(first) == [names.STARTED, names.CONNECTED, names.IN_SYNC]


def test_a_mode_that_waits_tells_for_what() -> None:
    _, (changed,) = told(
        primary(), primary(secondary_keys(mode="resynchronizing", waiting_for="the maps to be written"))
    )
    assert changed.words == "mode resynchronizing, before that normal: waiting for the maps to be written"


def test_the_same_status_again_tells_nothing() -> None:
    for status in (primary(), secondary()):
        assert not any(told(status, status, status)[1:])


LAST = {
    "ended": "2026-01-01T00:00:00Z", "compared_bytes": 4096, "differing_bytes": 512, "filled_bytes": 0, "unreadable_bytes": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name", "figures", "back"),
    [
        ({"mode": "paused"}, names.MODE_CHANGED, {"before": "normal", "after": "paused"}, names.MODE_CHANGED),
        ({"replica_state": "outdated"}, names.REPLICA_CHANGED, {"after": "outdated"}, names.REPLICA_CHANGED),
        ({"connected": False, "connection_problem": "no route"}, names.DISCONNECTED, {}, names.CONNECTED),
        ({"taints": ["fsck", "restore"]}, names.TAINTED, {"taints": "fsck; restore"}, names.TAINT_ANSWERED),
        ({"refused": "split-brain"}, names.SPLIT_BRAIN, {"code": "split-brain"}, names.ACCEPTED),
        ({"refused": "newer"}, names.REFUSED, {"code": "newer"}, names.ACCEPTED),
        ({"unreadable": {"bytes": 4096}}, names.DISK_ERROR, {"disk": "source", "bytes": 4096}, names.DISK_RECOVERED),
        ({"unwritable": {"bytes": 512}}, names.DISK_ERROR, {"disk": "target", "bytes": 512}, names.DISK_RECOVERED),
        ({"verify": {"running": {"total_bytes": 9}}}, names.VERIFY_STARTED, {"total_bytes": 9}, None),
        ({"verify": {"last": LAST}}, names.VERIFIED, {"differing_bytes": 512, "compared_bytes": 4096}, None),
        ({"persist_problem": "full"}, names.PROBLEM, {"key": "persist_problem"}, names.PROBLEM_ENDED),
        ({"epochs": {"problem": "no moment"}}, names.PROBLEM, {"key": "epochs.problem"}, names.PROBLEM_ENDED),
        ({"progress": {"still_seconds": 61.0}}, names.STANDING_STILL, {"still_s": 61.0}, names.MOVING_AGAIN),
        ({"statistics": {"log_full": 3}}, names.LOG_FULL, {"times": 3}, None),
    ],
)
def test_each_change_of_a_secondary_has_its_name_and_figures(
    changed: dict[str, Any], name: str, figures: dict[str, Any], back: str | None
) -> None:
    _, (there, *more), gone = told(primary(), primary(secondary_keys(**changed)), primary())
    assert there.name == name and there.words and not more
    assert there.figures == {**there.figures, **figures, "secondary": "10.0.0.2:7790"}
    assert set(there.figures) - {"secondary"} <= set(names.NAMES[name].figures)
    assert names_of(gone) == ([back] if back else [])


def test_a_verification_that_could_not_compare_everything_names_how_much() -> None:
    found = {**LAST, "differing_bytes": 0, "unreadable_bytes": 8192}
    _, (there,) = told(primary(), primary(secondary_keys(verify={"last": found})))
    assert there.words == (
        "the verification has ended: no difference; 8.0 KiB of the source cannot be read, and were not compared"
    )


@pytest.mark.parametrize(
    ("changed", "name", "back"),
    [
        ({"problem": "the journal cannot be written"}, names.PROBLEM, names.PROBLEM_ENDED),
        ({"target_problem": "TARGET is gone"}, names.DISK_ERROR, names.DISK_RECOVERED),
        (
            {"identity": {"expires": "2026-02-01", "problem": "ends soon"}},
            names.IDENTITY_ENDING,
            names.IDENTITY_RENEWED,
        ),
        ({"connected": False, "silent_seconds": 4.0}, names.DISCONNECTED, names.CONNECTED),
    ],
)
def test_each_change_of_a_replica_has_its_name(changed: dict[str, Any], name: str, back: str) -> None:
    _, there, gone = told(secondary(), secondary(**changed), secondary())
    assert (names_of(there), names_of(gone)) == ([name], [back])


def test_an_identity_that_ends_soon_or_that_the_clock_refuses_is_no_news_with_each_hour_and_second() -> None:
    """Both sentences have figures that go on with the time: how long is left, and what this machine's clock says."""
    began = datetime(2026, 11, 28, 12, tzinfo=UTC)
    lasting = Lifetime(began, began + timedelta(days=40))

    def at(hours: float) -> dict[str, Any]:
        problem = identity_problem(IdentityState(lasting, lasting), began + timedelta(hours=hours))
        return secondary(identity={"expires": "2027-01-07", "problem": problem})

    hours = [-1.0, -0.9997, 0.0, 24 * 11.0, 24 * 12.0, 24 * 39.0, 24 * 39.1, 24 * 40.0, 24 * 40.1]
    looks = told(secondary(), *map(at, hours), every_s=3600.0)
    _, clock, same, right, ending, day, hour, less, end, after = looks
    assert names_of(clock) == [names.IDENTITY_ENDING] and "this machine's clock says" in clock[0].words
    assert names_of(right) == [names.IDENTITY_RENEWED]
    assert names_of(ending) == [names.IDENTITY_ENDING] and "in 29 days" in ending[0].words
    assert names_of(hour) == names_of(end) == [names.IDENTITY_ENDING]
    assert not any((same, day, less, after))


def test_a_notice_of_the_volume_names_no_secondary() -> None:
    _, (there,) = told(primary(), primary(notices=["swap on the volume"]))
    assert (there.name, there.words, there.figures) == (names.PROBLEM, "swap on the volume", {"key": "notices"})


SHUT = {"outcome": "shut", "words": "h:1: it was promoted"}


@pytest.mark.parametrize(
    ("usual", "changed", "key", "words"),
    [
        (primary(), primary(gate=SHUT), "gate", "MUST NOT BE MOUNTED HERE: h:1: it was promoted"),
        (secondary(), secondary(handover={"words": "there may be no primary"}), "handover", "there may be no primary"),
        (secondary(), secondary(divergence={"words": "it alone has writes"}), "divergence", "it alone has writes"),
    ],
)
def test_a_state_that_waits_for_a_person_is_a_problem_also_when_it_was_there_at_the_start(
    usual: dict[str, Any], changed: dict[str, Any], key: str, words: str
) -> None:
    _, (there,), (over,) = told(usual, changed, usual)
    assert (there.name, there.figures) == (names.PROBLEM, {"key": key}) and there.words.startswith(words)
    assert (over.name, over.figures) == (names.PROBLEM_ENDED, {"key": key})
    (first,) = told(changed)
    assert {"key": key} in [one.figures for one in first if one.name == names.PROBLEM]


def test_secondaries_that_come_and_go_are_told_and_each_event_names_its_secondary() -> None:
    one, other = secondary_keys("a:1"), secondary_keys("b:2", replica_state="outdated", connected=False)
    _, added, changed, removed = told(
        primary(one), primary(one, other), primary(one, {**other, "mode": "paused"}), primary(one)
    )
    assert (names_of(added), added[0].figures["secondary"]) == ([names.ADDED], "b:2")
    assert [(change.name, change.figures["secondary"]) for change in changed] == [(names.MODE_CHANGED, "b:2")]
    assert (names_of(removed), removed[0].figures["secondary"]) == ([names.REMOVED], "b:2")


def test_a_replica_that_is_late_is_told_once_and_in_sync_only_when_it_has_everything() -> None:
    behind = primary(secondary_keys(replica_state="consistent", lag_seconds=50.0, out_of_sync_bytes=8192))
    later = primary(secondary_keys(replica_state="consistent", lag_seconds=61.0, out_of_sync_bytes=4096))
    less = primary(secondary_keys(replica_state="consistent", lag_seconds=2.0, out_of_sync_bytes=512))
    _, quiet, late, still, good = told(primary(), behind, later, less, primary())
    assert not quiet and not still and names_of(late) == [names.OUT_OF_SYNC] and names_of(good) == [names.IN_SYNC]
    assert late[0].figures["out_of_sync_bytes"] == 4096 and late[0].figures["out_of_sync_s"] == 61.0
    assert good[0].figures["out_of_sync_s"] == 63.0


def test_where_nobody_knows_how_far_it_is_behind_the_time_counts() -> None:
    unknown = primary(secondary_keys(replica_state="inconsistent", lag_seconds=None, out_of_sync_bytes=None))
    looks = told(*[unknown] * 4, every_s=25.0)
    assert [names.OUT_OF_SYNC in names_of(look) for look in looks] == [False, False, False, True]
    assert "an unknown amount" in looks[3][0].words


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 5.0)), min_size=1, max_size=200))
def test_a_connection_that_flaps_is_no_flood_and_the_last_event_is_true(steps: list[tuple[bool, float]]) -> None:
    changes, at, events = Changes(), 0.0, []
    count, before, known = 0, False, False
    for connected, pause_s in steps:
        at += pause_s
        count += connected != before
        before = connected
        events += changes.look(View(secondary(connected=connected)), at)
    events += changes.look(View(secondary(connected=before)), at + BURST * REGAIN_S)
    about = [
        one
        for one in events
        if one.name in (names.CONNECTED, names.DISCONNECTED) or one.figures.get("key") == "connected"
    ]
    assert len(about) <= BURST + at / REGAIN_S + 1
    for event in about:
        if event.name != names.FLAPPING:
            assert known is not (event.name == names.CONNECTED), "two events of the same kind in a row"
            known = event.name == names.CONNECTED
    assert known is before
    assert count == sum(int(str(one.figures.get("changes") or one.figures.get("times") or 1)) for one in about)


@given(st.lists(st.sampled_from(["up-to-date", "consistent", "outdated"]), max_size=60), st.floats(0.5, 40.0))
def test_out_of_sync_and_in_sync_alternate(states: list[str], pause_s: float) -> None:
    looks = told(*(secondary(replica_state=state) for state in states), every_s=pause_s, late_after_s=30.0)
    found = [name for look in looks for name in names_of(look) if name in (names.OUT_OF_SYNC, names.IN_SYNC)]
    assert all(one != other for one, other in pairwise(found))


def test_every_name_that_is_made_is_in_the_table_and_none_twice() -> None:
    spoken = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)} - {names.ANY}
    assert spoken == names.NAMES.keys() | names.TOLD_BY_THE_COMMAND.keys()
    assert not names.NAMES.keys() & names.TOLD_BY_THE_COMMAND.keys()

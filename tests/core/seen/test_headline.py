"""The first line of a status: behind or not, by how much, why, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pydbt.cli.render import rows
from pydbt.core.seen.headline import headline, progress_words
from pydbt.core.seen.view import View
from pydbt.core.units import MIB
from tests.cli.conftest import STATUS

NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
WELL = {**STATUS, "mode_since": "2026-01-02T03:04:05Z", "connected": True, "connection_problem": "", "refused": ""}


def line(**changes: object) -> str:
    return headline(View({**WELL, **changes}), NOW)


def test_up_to_date_is_said_only_of_a_replica_that_is() -> None:
    assert line() == "up to date; normal for 60 min 0 s"
    assert line(replica_state="consistent", lag_seconds=9.0, out_of_sync_bytes=40960).startswith(
        "behind by 40.0 KiB, 9.0 s"
    )
    assert not line(mode="stopped").startswith("up to date"), "nobody follows what is written now"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"connected": False, "connection_problem": "no route to host"}, "not connected: no route to host"),
        ({"persist_problem": "no space left on device"}, "the map cannot be saved: no space left on device"),
        ({"waiting_for": "the maps to be written"}, "waiting for the maps to be written"),
        ({"tainted": True, "taints": ["an unknown operation wrote"]}, "TAINTED, an unknown operation wrote"),
        ({"epochs": {"problem": "it was written to"}}, "no newer image: it was written to"),
        ({"write_rate_bytes": 2 * MIB}, "2.0 MiB per second are written"),
        (
            {"unreadable": {"bytes": 4096, "places": [{"offset_bytes": 8192, "length_bytes": 4096}]}},
            "the SOURCE cannot be read at byte 8192 (4.0 KiB)",
        ),
        ({"replica_state": "inconsistent"}, "the replica is INCONSISTENT"),
        ({"audit": {"verdict": "unavailable: the kernel keeps no count"}}, "not audited: the kernel keeps no count"),
        ({"notices": ["/dev/x is swap on this volume"]}, "/dev/x is swap on this volume"),
        (
            {"gate": {"outcome": "shut", "words": "h:1: it was promoted"}},
            "MUST NOT BE MOUNTED HERE: h:1: it was promoted",
        ),
        ({"gate": {"outcome": "silent", "words": "h:1"}}, "not mounted, because a secondary did not answer: h:1"),
    ],
)
def test_the_reason_why_the_replica_does_not_follow_is_on_the_line(changes: dict[str, object], words: str) -> None:
    behind = {"mode": "unsynchronized", "replica_state": "outdated", "out_of_sync_bytes": MIB, "lag_seconds": None}
    told = line(**{**behind, **changes})
    assert words in told and "behind by 1.0 MiB" in told


def test_a_secondary_that_did_not_answer_the_gate_is_not_told_of_when_it_is_connected_and_an_open_gate_never() -> None:
    unheard = {"outcome": "unheard", "words": "h:1"}
    assert "mounted" not in line(mode="normal", connected=True, gate=unheard)
    assert "mounted" in line(mode="normal", connected=False, gate=unheard)
    assert "h:1" not in line(mode="normal", connected=False, gate={"outcome": "open", "words": "h:1"})


def test_a_split_brain_is_named_as_one() -> None:
    told = line(
        mode="refused", refused="split-brain", replica_state="outdated", connection_problem="both sides were written"
    )
    assert told.startswith("REFUSED by the secondary (split brain)") and "both sides were written" in told


def test_a_figure_that_nobody_knows_is_unknown_and_never_0() -> None:
    told = line(mode="stopped", replica_state="outdated", out_of_sync_bytes=None, lag_seconds=None)
    assert told.startswith("stopped, behind by an unknown amount")


def test_a_synchronization_tells_its_rate_its_end_and_when_it_stands_still() -> None:
    part = {
        "done_bytes": 2 * MIB,
        "total_bytes": 429 * MIB,
        "rate_bytes": MIB,
        "eta_seconds": 427.0,
        "still_seconds": None,
    }
    assert progress_words(View(part)) == "0 %, 2.0 MiB of 429 MiB, 1.0 MiB per second, 7 min 7 s left"
    still = {**part, "rate_bytes": 0, "eta_seconds": None, "still_seconds": 840.0}
    assert progress_words(View(still)) == "0 %, 2.0 MiB of 429 MiB, standing still for 14 min 0 s"
    assert "no end in sight" in progress_words(View({**part, "eta_seconds": None}))


def test_the_line_of_several_secondaries_tells_how_many_are_in_the_worst_mode() -> None:
    several = [{**WELL, "secondary": "a:1"}, {**WELL, "secondary": "b:2", "mode": "unsynchronized"}]
    assert "unsynchronized (1 of 2 secondaries) for" in line(mode="unsynchronized", secondaries=several)


def test_a_secondary_tells_how_long_its_primary_is_silent() -> None:
    there = {
        "role": "secondary",
        "mode": "streaming",
        "replica_state": "up-to-date",
        "connected": True,
        "silent_seconds": 0.4,
    }
    assert headline(View(there), NOW) == "up to date; streaming"
    silent = {**there, "replica_state": "consistent", "connected": False, "silent_seconds": 9.0}
    told = headline(View(silent), NOW)
    assert told == "the replica is consistent; streaming; nothing was heard from the primary for 9.0 s"
    assert headline(View({**silent, "mode": "offline", "silent_seconds": None}), NOW).endswith("no primary")
    away = {**silent, "mode": "offline", "silent_seconds": None}
    for primary, words in (
        ({"host": "alpha", "heard_seconds": 9.0, "ended": False}, "no primary (alpha was heard 9.0 s ago)"),
        ({"host": "", "heard_seconds": 9.0, "ended": True}, "no primary (it ended 9.0 s ago)"),
        ({"host": "alpha", "heard_seconds": None, "ended": True}, "no primary"),
    ):
        assert headline(View({**away, "primary": primary}), NOW).endswith(words)
    broken = {**there, "target_problem": "TARGET /dev/x cannot be written at byte 4096: Input/output error"}
    assert headline(View(broken), NOW).endswith(str(broken["target_problem"]))


def test_one_failure_of_a_target_is_named_once_and_two_failures_are_both_named() -> None:
    words = "TARGET /dev/x cannot be written at byte 4096: Input/output error"
    down = {"role": "secondary", "mode": "restarting", "replica_state": "inconsistent", "target_problem": words}
    for problem in (f"the secondary's target failed: {words}", words):
        told = headline(View({**down, "problem": problem}), NOW)
        assert told == f"the replica is inconsistent; restarting; {problem}"
    told = headline(View({**down, "problem": "replica.json cannot be written"}), NOW)
    assert told.endswith(f"restarting; replica.json cannot be written; {words}")


def test_the_headline_is_the_first_row_and_a_time_that_is_none_is_left_out() -> None:
    assert rows(View(WELL))[0][0] == "state"
    assert line(mode_since="yesterday") == "up to date; normal"

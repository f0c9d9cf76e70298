"""The news in a sight: each change that a person would see, and nothing of an idle second."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pydbt.core.seen.gist import gist, lag_step, without_durations
from pydbt.core.seen.sight import STALE_S, Asked, Sight, sight_of
from pydbt.core.units import MIB, format_seconds
from tests.core.seen.test_sight import NOW, REPLICA, WELL, seen

# Each key that a volume tells.
FULL = json.loads((Path(__file__).parents[2] / "controller" / "golden" / "one.json").read_text())
BUSY = {**WELL, "lag_seconds": 0.2, "unreadable": {"bytes": 4096, "places": []}, "tainted": True, "taints": ["a"]}


def full(later_s: float = 0.0, wire: float | None = 230.0, **changes: Any) -> Sight:
    """Of a volume that does nothing, this many seconds later."""
    since = {
        "mode": "normal",
        "mode_since": "2026-01-02T03:04:05Z",
        "running": True,
        "last_in_sync": str(NOW),
        "sent_bytes": 0,
    }
    return sight_of(
        Asked({**FULL, **since, **changes}, 0.2, "", wire), "0" * 16, "h", "data", NOW + timedelta(seconds=later_s)
    )


def test_an_idle_second_is_no_news() -> None:
    """Its words have another duration, heartbeats were sent, and the clock went on."""
    moved = {"sent_bytes": 99, "last_in_sync": str(NOW + timedelta(seconds=7)), "lag_seconds": 0.9}
    later = full(7.0, 96.0, **moved, statistics={"unsynchronized_seconds": 4.0}, audit={**FULL["audit"], "looks": 10})
    assert later.words != full().words and gist(later) == gist(full())
    assert gist(full(secondaries=[{**FULL["secondaries"][0], "lag_seconds": 0.9}])) == gist(full())


def test_the_length_of_a_silence_is_no_news_and_its_begin_is() -> None:
    stale = {age_s: seen(age_s, "the controller is silent") for age_s in (0.2, STALE_S + 1, STALE_S + 90)}
    assert gist(stale[STALE_S + 1]) == gist(stale[STALE_S + 90]) != gist(stale[0.2])
    cut_off = [seen(connected=False, connection_problem=f"unanswered for {seconds} s") for seconds in (1.4, 2.5)]
    assert gist(cut_off[0]) == gist(cut_off[1]) != gist(seen(connected=False, connection_problem="refused"))
    quiet = [{**REPLICA, "connected": False, "silent_seconds": seconds} for seconds in (4.0, 5.0)]
    one, other = (sight_of(Asked(status, 0.1), "0" * 16, "h", "copy", NOW) for status in quiet)
    assert one.words != other.words and gist(one) == gist(other)


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "paused"},
        {"out_of_sync_bytes": 0},
        {"connected": False},
        {"notices": ["swap is on it"]},
        {"lag_bytes": 8192},
        {"lag_seconds": 40.0},
        {"lag_seconds": None},
        {"taints": ["a", "b"]},
        {"unreadable": {"bytes": 8192, "places": []}},
        {"unwritable": {"bytes": 512, "places": []}},
        {"persist_problem": "no space left on device"},
        {"persist_problem": "the disk is broken"},
        {"handover": {"words": "nobody is known to have taken its place"}},
        {"divergence": {"words": "it alone has writes"}},
        {"cluster": {"words": "it is older", "told": "now"}},
        {"gate": {"outcome": "silent", "words": "h:1"}},
        {"audit": {"verdict": "differs"}},
        {"epochs": {"problem": "it was written to"}},
        {"attribution": {"state": "attached"}},
        {"attribution": {"outrun": {"name": "tar"}}},
        {"block_io": {"state": "attached"}},
        {"verify": {"running": {"done_bytes": 4096}}},
        {"marks": [{"name": "before migration 14"}]},
        {"lost_records": 1},
        {"waiting_for": "the maps to be written"},
        {"secondaries": [{"secondary": "a:1", "lag_seconds": 40.0}]},
        {"secondaries": [{"secondary": "a:1", "connection_problem": "no route"}]},
    ],
)
def test_each_change_that_a_person_would_see_is_news(change: dict[str, Any]) -> None:
    before = {**BUSY, "secondaries": [{"secondary": "a:1", "lag_seconds": 0.2}]}
    one, other = (
        {**status, "persist_problem": status.get("persist_problem", "full")} for status in (before, before | change)
    )
    assert gist(seen(**one)) != gist(seen(**other))


def test_bytes_on_the_wire_are_news_in_steps() -> None:
    assert gist(seen(wire=5 * MIB)) != gist(seen(wire=6 * MIB)) and gist(seen(wire=None)) != gist(seen(wire=1.0))
    assert gist(seen(wire=90.0)) == gist(seen(wire=300.0)), "heartbeats"


def test_no_duration_is_left_in_a_sentence_and_all_else_is() -> None:
    for seconds in (0.0, 9.96, 45.0, 200.0, 7300.0, 200_000.0):
        assert without_durations(f"normal for {format_seconds(seconds)}; x") == "normal for ; x"
    assert without_durations("behind by 40.0 KiB; at byte 4096 (512 B)") == "behind by 40.0 KiB; at byte 4096 (512 B)"


def test_a_lag_is_another_one_when_it_has_doubled() -> None:
    assert [lag_step(seconds) for seconds in (None, -1.0, 0.0, 0.9, 1.0, 3.9, 4.0, 40.0)] == [None, 0, 0, 0, 1, 2, 3, 6]


def test_a_moment_that_is_unknown_breaks_nothing() -> None:
    assert gist(sight_of(Asked({}, 3.0), "0" * 16, "h", "x", datetime.min.replace(tzinfo=NOW.tzinfo)))

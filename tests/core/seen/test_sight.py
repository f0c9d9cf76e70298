"""How a volume stands: never better than the truth, and never green when the truth is old."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pydbt.core.seen.sight import LEVELS_MAX, STALE_S, Asked, Level, Sight, aged, is_shallow, sight_of

NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
WELL: dict[str, Any] = {
    "running": True, "role": "primary", "source": "/dev/vdb", "mode": "normal", "mode_since": "2026-01-02T03:04:05Z",
    "replica_state": "up-to-date", "connected": True, "tainted": False, "lag_seconds": 0.1, "lag_bytes": 4096,
    "out_of_sync_bytes": 4096, "write_rate_bytes": 1000, "queue": {"size": 10, "used": 1}, "log": {"size": 20, "used": 2},
}  # fmt: skip
REPLICA: dict[str, Any] = {
    "running": True, "role": "secondary", "target": "/dev/vdc", "mode": "streaming", "replica_state": "up-to-date",
    "connected": True, "journal": {"size": 5, "used": 1},
}  # fmt: skip

Rows = list[tuple[dict[str, Any], Level]]
OF_A_PRIMARY: Rows = [
    ({"replica_state": "consistent"}, Level.BEHIND),
    ({"mode": "resynchronizing", "replica_state": "outdated"}, Level.BEHIND),
    ({"mode": "initial-sync", "replica_state": "inconsistent"}, Level.BEHIND),
    ({"mode": "initial-sync", "replica_state": "inconsistent", "connected": False}, Level.BAD),
    ({"mode": "paused", "connected": False, "replica_state": "outdated"}, Level.BEHIND),
    ({"mode": "unsynchronized", "connected": False}, Level.BAD),
    ({"connected": None}, Level.BAD),
    ({"mode": "refused", "refused": "split-brain"}, Level.BAD),
    ({"mode": "resynchronizing", "tainted": True}, Level.BAD),
    ({"replica_state": "inconsistent"}, Level.BAD),
    ({"gate": {"outcome": "shut"}}, Level.BAD),
    ({"unwritable": {"bytes": 4096}}, Level.BAD),
    ({"unreadable": {"bytes": 4096}, "replica_state": "consistent"}, Level.BAD),
    ({"unreadable": {"bytes": 0}, "epochs": {"problem": None}}, Level.GOOD),
    ({"mode": "epochs", "epochs": {"problem": "it was written to"}}, Level.BAD),
    ({"persist_problem": "no space left"}, Level.BAD),
    ({"running": False, "mode": "stopped", "replica_state": "outdated"}, Level.STOPPED),
    ({"running": False, "tainted": True}, Level.BAD),
    ({"handover": {"words": "nobody is known to have taken its place"}}, Level.BAD),
    ({"handover": None, "divergence": None}, Level.GOOD),
    ({"running": None}, Level.UNKNOWN),
    ({"mode": None}, Level.UNKNOWN),
]
OF_A_SECONDARY: Rows = [
    ({}, Level.GOOD),
    ({"replica_state": "consistent", "primary": {"behind_bytes": 0}, "silent_seconds": 0.5}, Level.GOOD),
    ({"replica_state": "consistent", "primary": {"behind_bytes": 0}, "silent_seconds": 2.1}, Level.BEHIND),
    ({"replica_state": "consistent", "primary": {"behind_bytes": 0}, "silent_seconds": None}, Level.BEHIND),
    ({"replica_state": "consistent", "primary": {"behind_bytes": 4096}, "silent_seconds": 0.5}, Level.BEHIND),
    ({"replica_state": "consistent", "primary": {"behind_bytes": None}, "silent_seconds": 0.5}, Level.BEHIND),
    ({"replica_state": "consistent"}, Level.BEHIND),
    ({"replica_state": "outdated", "primary": {"behind_bytes": 0}}, Level.BEHIND),
    ({"replica_state": None}, Level.BEHIND),
    ({"target_problem": "cannot be written"}, Level.BAD),
    ({"connected": False}, Level.BAD),
    ({"mode": "restarting", "connected": False}, Level.BAD),
    ({"divergence": {"words": "it alone has writes"}}, Level.BAD),
]


def seen(age_seconds: float = 0.2, silence: str = "", wire: float | None = None, **changes: Any) -> Sight:
    return sight_of(Asked({**WELL, **changes}, age_seconds, silence, wire), "0" * 16, "here", "data", NOW)


def test_a_replica_that_follows_is_good_and_its_line_is_that_of_the_status() -> None:
    sight = seen()
    assert (sight.level, sight.words, sight.stale) == (Level.GOOD, "up to date; normal for 60 min 0 s", False)
    assert (sight.device, sight.queue["used"], sight.log["size"], sight.problem) == ("/dev/vdb", 1, 20, "")
    replica = sight_of(Asked(REPLICA, 0.0), "1" * 16, "here", "copy", NOW)
    assert (replica.level, replica.device, replica.log["size"]) == (Level.GOOD, "/dev/vdc", 5)


@pytest.mark.parametrize(("changes", "level"), OF_A_PRIMARY)
def test_the_level_is_the_worst_that_the_status_tells(changes: dict[str, Any], level: Level) -> None:
    assert seen(**changes).level is level


@pytest.mark.parametrize(("changes", "level"), OF_A_SECONDARY)
def test_a_secondary_that_follows_is_good_when_it_lacks_nothing(changes: dict[str, Any], level: Level) -> None:
    assert sight_of(Asked({**REPLICA, **changes}, 0.0), "1" * 16, "here", "copy", NOW).level is level


@pytest.mark.parametrize("replica_state", ["up-to-date", "consistent", "inconsistent"])
@pytest.mark.parametrize("running", [True, False, None])
def test_an_old_status_is_never_good_and_is_called_stale(running: bool | None, replica_state: str) -> None:
    old = seen(STALE_S + 1, "the controller gave no answer within 5 s", running=running, replica_state=replica_state)
    assert old.stale and old.level not in (Level.GOOD, Level.BEHIND)
    assert old.forecast.words == "" and old.write_rate_bytes is None, "what is past is no rate of now"
    if running:
        assert old.words.startswith("STALE: the controller gave no answer within 5 s; 6.0 s ago: ")
        assert old.problem == "the controller gave no answer within 5 s"


def test_a_volume_without_a_controller_says_why() -> None:
    stopped = seen(90.0, running=False, mode="stopped", problem="no controller is running; writes are still tracked")
    assert stopped.stale and stopped.words == stopped.problem == "no controller is running; writes are still tracked"
    assert seen(running=False).words == "no controller is running"


def test_a_volume_that_never_answered_is_unknown() -> None:
    sight = sight_of(Asked({}, 3.0, "its state cannot be read"), "0" * 16, "here", "x", NOW)
    assert (sight.level, sight.words, sight.stale, sight.role) == (
        Level.UNKNOWN, "its state cannot be read", True, "unknown",
    )  # fmt: skip
    assert sight_of(Asked({}, 0.0), "0" * 16, "here", "x", NOW).words == "nothing is known of it yet"


def test_text_of_others_is_one_line_in_it() -> None:
    sight = seen(source="/dev/\x1b[2Jx", connection_problem="a\nb", mode="unsynchronized", connected=False)
    assert sight.device == "/dev/\\x1b[2Jx" and sight.problem == "a\\x0ab"


def test_progress_that_went_back_says_why_while_the_status_is_of_now() -> None:
    for age_seconds, told in ((0.2, "back from 50 %: it has begun anew"), (STALE_S + 1, "")):
        asked = Asked(WELL, age_seconds, "", None, "back from 50 %: it has begun anew")
        assert sight_of(asked, "0" * 16, "here", "data", NOW).progress_back == told


def test_each_secondary_has_its_own_entry() -> None:
    sight = seen(secondaries=[{"secondary": "a:1", "mode": "normal", "queue": 1}, {"secondary": "b:1"}])
    assert [one["secondary"] for one in sight.secondaries] == ["a:1", "b:1"]
    assert sight.secondaries[0]["mode"] == "normal" and sight.secondaries[1]["mode"] is None


def test_a_sight_is_one_object_of_json_with_every_key() -> None:
    told = seen(wire=5.0).to_json()
    assert told["level"] == "good" and told["forecast"] == {"words": "in sync", "seconds": 0.0, "converges": True}
    assert (
        told["wire_rate_bytes"] == 5.0 and told["status"]["mode"] == "normal" and told["unacknowledged_bytes"] is None
    )


def test_each_secondary_has_a_level_of_its_own() -> None:
    follows = {"secondary": "a:1", "mode": "normal", "replica_state": "up-to-date", "connected": True}
    copies = {"secondary": "b:1", "mode": "resynchronizing", "replica_state": "outdated", "connected": True}
    cut_off = {"secondary": "c:1", "mode": "unsynchronized", "replica_state": "outdated", "connected": False}
    every = [follows, copies, cut_off]
    assert [one["level"] for one in seen(secondaries=every).secondaries] == ["good", "behind", "bad"]
    assert [one["level"] for one in seen(running=False, secondaries=[follows]).secondaries] == ["stopped"]
    assert [one["level"] for one in seen(STALE_S + 1, secondaries=[follows]).secondaries] == ["unknown"]
    assert [one["level"] for one in seen(secondaries=[{"secondary": "d:1"}]).secondaries] == ["unknown"]


def test_a_sight_that_nobody_renews_grows_old() -> None:
    later = aged(seen(), STALE_S + 1, "it was not asked since", NOW)
    assert seen().level is Level.GOOD and later.level is Level.UNKNOWN and later.stale
    assert later.words.startswith("STALE: it was not asked since; 6.2 s ago: ") and later.id == seen().id
    assert aged(seen(), 1.0, "", NOW).level is Level.GOOD


def test_lists_in_lists_without_end_are_no_status() -> None:
    deep: Any = {}
    for _ in range(LEVELS_MAX):
        deep = [deep] if len(str(deep)) % 2 else {"a": deep}
    assert is_shallow(WELL) and is_shallow(deep)
    assert not is_shallow({"a": [deep]})
    for _ in range(100_000):
        deep = [deep]
    assert not is_shallow(deep), "without recursion"

"""The answer to monitoring: never better than the truth, in a format that no text of others breaks."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.plugin import LINE_BYTES_MAX, Limits, PluginState, judged, plugin_line, unknown_line, worst
from pydbt.core.seen.sight import Level
from pydbt.core.seen.view import View
from tests.core.seen.statuses import primary, secondary, secondary_keys
from tests.core.seen.test_sight import OF_A_PRIMARY, OF_A_SECONDARY, REPLICA, WELL

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
LIMITS = Limits(60.0, 600.0)
AGO_100_S = "2026-01-01T11:58:20Z"


def state_of(status: dict[str, Any], running: bool = True) -> PluginState:
    return judged("vda3", View({**status, "running": running}), NOW, LIMITS).state


@pytest.mark.parametrize(
    ("changed", "running", "state"),
    [
        ({}, True, PluginState.OK),
        ({"lag_seconds": 60.0, "replica_state": "consistent"}, True, PluginState.OK),
        ({"lag_seconds": 60.1, "replica_state": "consistent"}, True, PluginState.WARNING),
        ({"lag_seconds": 601.0, "replica_state": "outdated"}, True, PluginState.CRITICAL),
        ({"lag_seconds": None, "replica_state": "inconsistent"}, True, PluginState.WARNING),
        ({"lag_seconds": None, "replica_state": "outdated", "mode": "paused"}, True, PluginState.UNKNOWN),
        ({"gate": {"outcome": "shut"}}, True, PluginState.CRITICAL),
        ({"lag_seconds": 1.0, "replica_state": "inconsistent"}, True, PluginState.WARNING),
        ({"refused": "split-brain", "lag_seconds": None}, True, PluginState.CRITICAL),
        ({"last_in_sync": "2026-01-01T11:59:59Z"}, False, PluginState.WARNING),
        ({"last_in_sync": "2026-01-01T11:00:00Z"}, False, PluginState.CRITICAL),
        ({"last_in_sync": None}, False, PluginState.UNKNOWN),
        ({"last_in_sync": "yesterday"}, False, PluginState.UNKNOWN),
        ({"last_in_sync": "2026-01-01T12:00:00.5Z"}, False, PluginState.WARNING),
        ({"last_in_sync": "2026-01-01T12:30:00Z"}, False, PluginState.UNKNOWN),
        ({"last_in_sync": "0001-01-01T00:00:00+14:00"}, False, PluginState.UNKNOWN),
    ],
)
def test_the_age_decides_for_a_primary_and_no_controller_is_never_ok(
    changed: dict[str, Any], running: bool, state: PluginState
) -> None:
    assert state_of(primary(secondary_keys(**changed)), running) is state


@pytest.mark.parametrize(
    ("changed", "running", "state"),
    [
        ({}, True, PluginState.OK),
        ({"connected": False}, True, PluginState.WARNING),
        ({"replica_state": "consistent"}, True, PluginState.UNKNOWN),
        ({"connected": False, "primary": {"as_of": AGO_100_S}}, True, PluginState.WARNING),
        ({"primary": {"as_of": AGO_100_S}}, False, PluginState.WARNING),
        ({"replica_state": "outdated", "primary": {"as_of": "2026-01-01T11:00:00Z"}}, True, PluginState.CRITICAL),
    ],
)
def test_a_replica_is_as_old_as_the_moment_of_its_image(
    changed: dict[str, Any], running: bool, state: PluginState
) -> None:
    assert state_of(secondary(**changed), running) is state


@pytest.mark.parametrize(
    ("status", "level"),
    [
        *[({**WELL, **changes}, level) for changes, level in OF_A_PRIMARY],
        *[({**REPLICA, **changes}, level) for changes, level in OF_A_SECONDARY],
    ],
)
def test_nothing_that_the_page_calls_otherwise_than_good_or_behind_is_ok(status: dict[str, Any], level: Level) -> None:
    state = judged("vda3", View(status), NOW, LIMITS).state
    assert (state is not PluginState.OK) or level in (Level.GOOD, Level.BEHIND)
    if level is Level.BAD:
        assert state in (PluginState.WARNING, PluginState.CRITICAL), (
            "a person has to look, whether its age is known or not"
        )
    elif level is Level.GOOD and status.get("replica_state") == "up-to-date":
        assert state is PluginState.OK


def test_a_warning_says_what_is_bad_although_the_age_is_not() -> None:
    for changes, words in (
        ({"connected": None}, "not connected: up to date; normal"),
        ({"connected": False, "connection_problem": "no route"}, "up to date; normal; not connected: no route"),
        ({"persist_problem": "no space left"}, "up to date; normal; the map cannot be saved: no space left"),
        ({"replica_state": "inconsistent"}, "the replica cannot be used: "),
    ):
        status = View({**WELL, "mode_since": None, "lag_seconds": 0.1, **changes})
        assert judged("vda3", status, NOW, LIMITS).words.startswith(words)


def age_of_image(running: bool, saved_at: str | None = None, **primary_of_it: Any) -> float | None:
    status = View({**secondary(connected=False, primary=primary_of_it), "running": running, "saved_at": saved_at})
    return judged("vdb", status, NOW, LIMITS).age_s


def test_a_primary_whose_clock_is_ahead_makes_no_replica_younger() -> None:
    """It told a second ago, of 5 s before, by a clock that is an hour ahead; or that and a minute, in a status of before."""
    ahead = {"as_of": "2026-01-01T12:59:54Z", "told": "2026-01-01T12:59:59Z", "behind_bytes": 0}
    assert age_of_image(True, **ahead, heard_seconds=1.0) == 6.0
    assert age_of_image(True, **ahead, heard_seconds=700.0) == 705.0
    assert age_of_image(False, "2026-01-01T11:59:00Z", **ahead, heard_seconds=1.0) == 66.0
    assert age_of_image(False, None, **ahead, heard_seconds=1.0) is None
    assert age_of_image(True, **ahead, heard_seconds=None) is None, "nobody knows how long ago that was"
    assert age_of_image(True, as_of=ahead["as_of"], told="", heard_seconds=1.0) is None
    assert age_of_image(True, **{**ahead, "behind_bytes": None}, heard_seconds=0.1) is None, (
        "it has told nothing since it is back"
    )


def test_a_primary_whose_clock_was_set_back_makes_no_replica_younger() -> None:
    """Its clock was an hour ahead when the image was made. Set right, it tells of half an hour ago: 90 minutes."""
    told = {"as_of": "2026-01-01T12:29:59Z", "told": "2026-01-01T11:59:59Z", "behind_bytes": 0, "heard_seconds": 1.0}
    assert age_of_image(True, **told) is None
    assert age_of_image(True, **{**told, "as_of": told["told"]}) == 1.0


def test_nothing_that_was_saved_by_a_clock_of_the_future_is_young() -> None:
    """The clock of this machine was set back after the end of its controller: when that was is not known any more."""
    told = {"as_of": AGO_100_S, "told": AGO_100_S, "behind_bytes": 0, "heard_seconds": 1.0}
    assert age_of_image(False, "2026-01-01T12:30:00Z", **told) == 100.0, "its image's own moment tells enough"
    assert age_of_image(False, "2026-01-01T12:30:00Z", **{**told, "as_of": "2026-01-01T12:29:00Z"}) is None


def test_a_frame_that_was_long_on_its_way_makes_no_replica_younger() -> None:
    assert (
        age_of_image(True, as_of="2026-01-01T11:58:20Z", told="2026-01-01T11:58:21Z", heard_seconds=0.1, behind_bytes=0)
        == 100.0
    )


def test_an_unknown_state_of_a_replica_is_not_ok() -> None:
    assert state_of(primary(secondary_keys(replica_state="excellent"))) is PluginState.WARNING
    assert state_of({}) is PluginState.UNKNOWN
    assert state_of({}, running=False) is PluginState.UNKNOWN


def test_the_line_has_words_and_performance_data() -> None:
    one = judged("/dev/vda3", View({**primary(), "running": True, "size_bytes": 4096}), NOW, LIMITS)
    line = plugin_line([one], LIMITS)
    assert line.startswith("PYDBT OK - /dev/vda3: up to date; normal; last in sync 0.0 s ago | ")
    assert line.endswith("| age=0.0s;60;600;0; out_of_sync=0B;;;0;4096")
    unknown = judged("b", View({"running": True}), NOW, LIMITS)
    several = plugin_line([one, unknown], LIMITS)
    assert several.startswith("PYDBT UNKNOWN - 1 of 2 are not as they should be: b: unknown: ")
    assert "'/dev/vda3 age'=0.0s;60;600;0; " in several and several.endswith(
        "'b age'=U;60;600;0; 'b out_of_sync'=U;;;0;"
    )
    assert plugin_line([one, one], LIMITS).startswith("PYDBT OK - 2 volumes and replicas are in sync | ")


def test_critical_comes_before_warning_and_warning_before_unknown() -> None:
    assert worst(list(PluginState)) is PluginState.CRITICAL
    assert worst([PluginState.UNKNOWN, PluginState.WARNING, PluginState.OK]) is PluginState.WARNING
    assert worst([PluginState.OK, PluginState.UNKNOWN]) is PluginState.UNKNOWN
    assert worst([]) is PluginState.UNKNOWN


@pytest.mark.parametrize("count", [2, 9, 40, 400])
@pytest.mark.parametrize("reason", ["no route to host", "the disk ä is full; " * 300])
def test_many_bad_volumes_fit_what_is_read_of_a_line_and_what_is_left_out_is_counted(count: int, reason: str) -> None:
    cut_off: dict[str, Any] = {"mode": "unsynchronized", "connected": False, "connection_problem": reason}
    status = {**primary(secondary_keys(**cut_off, lag_seconds=700.0)), "running": True}
    late = [judged(f"/dev/mapper/vg-data{number}", View(status), NOW, LIMITS) for number in range(count)]
    refused = judged("/dev/worst", View({**status, "refused": "split-brain"}), NOW, LIMITS)
    good = judged("/dev/good", View({**primary(), "running": True}), NOW, LIMITS)
    line = plugin_line([good, *late, refused], LIMITS, "as a member")
    assert len(line.encode()) <= LINE_BYTES_MAX
    words, _, figures = line.partition(" | ")
    assert words.startswith(f"PYDBT CRITICAL - {count + 1} of {count + 2} are not as they should be: ")
    assert words.endswith("(as a member)")
    more, left_out = re.search(r"; and (\d+) more", words), re.search(r"performance data of (\d+) left out", words)
    assert words.count(": critical: ") + (int(more[1]) if more else 0) == count + 1
    assert figures.count("age'=") + (int(left_out[1]) if left_out else 0) == count + 2
    assert (
        len(ITEM.findall(figures)) == 2 * figures.count("age'=")
        and "".join(m[0] for m in ITEM.finditer(figures)) == figures
    )
    if reason == "no route to host" and count != 40:
        assert (more is None) == (left_out is None) == (count < 40), "nothing is left out that has room"


def test_the_least_bad_volumes_are_left_out() -> None:
    status = View({**primary(secondary_keys(mode="unsynchronized", connected=False)), "running": True})
    late = [judged(f"/dev/mapper/vg-data{number}", status, NOW, LIMITS) for number in range(60)]
    refused = judged("/dev/worst", View({**status.values, "refused": "split-brain"}), NOW, LIMITS)
    line = plugin_line([*late, refused], LIMITS)
    assert "/dev/worst: critical" in line and "'/dev/worst age'" in line and "/dev/mapper/vg-data59" not in line


# One item of performance data: label, value with its unit, and four numbers or nothing.
ITEM = re.compile(r"(?:'(?:[^'=|\n]|'')+'|[^'=|\s]+)=(?:U|-?[0-9.]+(?:s|B)?);[0-9.]*;[0-9.]*;[0-9.]*;[0-9]*(?: |$)")


@given(st.text(), st.text(), st.booleans())
def test_no_name_and_no_reason_breaks_the_format(name: str, reason: str, several: bool) -> None:
    status = View(
        {**primary(secondary_keys(connection_problem=reason, mode="paused")), "running": False, "problem": reason}
    )
    shown = View({"name": name}).text("name") or ""  # as it reaches the command: one line
    line = plugin_line([judged(shown, status, NOW, LIMITS)] * (2 if several else 1), LIMITS)
    words, bar, figures = line.partition("|")
    assert bar and "|" not in figures and "\n" not in line and len(words) < 4096
    position = 0
    for _ in range(4 if several else 2):
        item = ITEM.match(figures.lstrip(), position)
        assert item is not None, figures
        position = item.end()
    assert position == len(figures.lstrip())


def test_a_check_that_could_not_be_made_is_unknown() -> None:
    assert unknown_line("no | such") == "PYDBT UNKNOWN - no ! such"

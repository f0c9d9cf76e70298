"""The screen of ``controller top``: a level has a word and a shape, an old status shows no figure."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.sight import Level
from pydbt.core.seen.terminal import (
    TABLE_COLUMNS,
    bar_of,
    by_name,
    cells_of,
    columns_for,
    details_of,
    shape_of,
    summary_words,
    worst_first,
)
from pydbt.core.seen.view import View

SIGHT: dict[str, Any] = {
    "id": "0", "machine": "alpha", "role": "primary", "name": "data", "device": "/dev/vdb", "level": "good",
    "words": "up to date", "problem": "", "stale": False, "age_seconds": 0.1, "mode": "normal", "out_of_sync_bytes": 8192,
    "unacknowledged_bytes": 8192, "lag_seconds": 0.2, "write_rate_bytes": 1024, "wire_rate_bytes": 2048,
    "last_in_sync": "2026-01-02T03:04:05Z", "progress": {}, "forecast": {"words": "in sync"},
    "queue": {"size": 100, "used": 25}, "log": {"size": 100, "used": 0},
}  # fmt: skip


def seen(**changes: Any) -> View:
    return View({**SIGHT, **changes})


def words(sight: View, width: int = 80) -> str:
    return "\n".join(line.words for line in details_of(sight, width, plain=False))


def test_each_level_has_a_shape_of_its_own_with_and_without_unicode() -> None:
    for plain in (False, True):
        assert len({shape_of(level, plain=plain) for level in Level}) == len(Level)
    assert all(shape_of(level, plain=True).isascii() for level in Level)


def test_a_line_has_a_cell_for_each_column_and_fewer_columns_on_a_narrow_screen() -> None:
    cells = cells_of(seen(), plain=False)
    assert len(cells) == len(TABLE_COLUMNS) and [cell.words for cell in cells][:2] == ["● good", "data"]
    assert [cell.words for cell in cells][4:] == ["8.0 KiB", "8.0 KiB", "0.2 s", "1.0 KiB", "2.0 KiB"]
    for width in (80, 92, 103, 120):
        shown = [TABLE_COLUMNS[place] for place in columns_for(width)]
        assert sum(max(column.width, column.least) for column in shown) + len(shown) - 1 <= width
    assert len(columns_for(200)) == len(TABLE_COLUMNS)


def test_a_figure_that_nobody_knows_is_unknown_and_not_0() -> None:
    unknown = cells_of(seen(out_of_sync_bytes=None, unacknowledged_bytes=None, lag_seconds=None), plain=True)
    assert [cell.words for cell in unknown][4:7] == ["unknown"] * 3
    assert cells_of(View({}), plain=True)[0].words == "? unknown"
    assert "lag unknown" in words(seen(lag_seconds=None)) and "verified unknown" in words(seen())


def test_the_shortage_of_a_replica_stands_in_the_line_of_its_primary_alone() -> None:
    replica = seen(role="secondary", out_of_sync_bytes=None, unacknowledged_bytes=None, lag_seconds=None)
    assert [cell.words for cell in cells_of(replica, plain=True)][4:7] == ["-"] * 3


def test_an_old_status_shows_none_of_its_figures() -> None:
    old = seen(
        stale=True, level="unknown", age_seconds=42.0, words="STALE: 42 s ago", secondaries=[{"secondary": "h:1"}]
    )
    assert [cell.words for cell in cells_of(old, plain=True)][3:7] == ["STALE 42 s", "unknown", "unknown", "unknown"]
    text = words(old)
    assert "last known 42 s ago" in text and "last in sync 2026" in text and "lag" not in text and "h:1" not in text
    assert cells_of(seen(stale=True, level="stopped"), plain=True)[3].words == "stopped"


def test_a_copy_shows_how_far_it_is_and_is_full_only_at_its_end() -> None:
    copying = seen(mode="resynchronizing", progress={"done_bytes": 1 << 20, "total_bytes": 4 << 20})
    assert cells_of(copying, plain=True)[3].words == "copying 25 %"
    assert "25 %, 1.0 MiB of 4.0 MiB" in words(copying) and "forecast: in sync" in words(copying)


def test_a_bar_that_is_shorter_than_before_says_why() -> None:
    shorter = {"done_bytes": 1 << 20, "total_bytes": 4 << 20}
    told = seen(mode="resynchronizing", progress=shorter, progress_back="back from 50 %: 2.0 MiB more is to be done")
    assert "25 %, 1.0 MiB of 4.0 MiB; back from 50 %: 2.0 MiB more is to be done" in words(told)


@given(st.integers(-5, 1 << 70), st.integers(1, 1 << 70), st.integers(1, 80))
def test_a_bar_has_its_width_and_is_full_only_when_everything_is_done(done: int, total: int, cells: int) -> None:
    bar = bar_of(done, total, cells, plain=True)
    assert len(bar) == cells and (set(bar) == {"#"}) == (done >= total)


def test_out_of_sync_is_the_figure_of_the_status_and_what_is_on_its_way_stands_beside_it() -> None:
    sight = seen(out_of_sync_bytes=9 << 20, unacknowledged_bytes=4 << 20)
    assert [cell.words for cell in cells_of(sight, plain=True)][4:6] == ["9.0 MiB", "4.0 MiB"]
    assert "out of sync 9.0 MiB, of it unacknowledged 4.0 MiB" in words(sight)


def test_the_worst_is_first_and_equals_are_by_name() -> None:
    sights = [
        seen(name=name, level=level) for name, level in (("b", "good"), ("a", "good"), ("d", "stopped"), ("c", "bad"))
    ]
    sights.append(seen(name="e", level="of a later version"))
    assert [one.text("name") for one in worst_first(sights)] == ["c", "e", "d", "a", "b"]
    assert [one.text("name") for one in by_name(sights)] == ["a", "b", "c", "d", "e"]


def test_the_summary_counts_and_names_what_is_not_reached() -> None:
    here = View({"name": "alpha", "reachable": True, "volumes": [SIGHT, {**SIGHT, "level": "bad"}]})
    away = View({"name": "beta", "reachable": False, "problem": "no route", "volumes": []})
    assert summary_words([here, away]) == "2 volumes: 1 bad, 1 good; beta is not reached: no route"
    assert summary_words([View({"name": "alpha", "reachable": True})]) == "no volume is known"


def test_each_secondary_has_a_line_and_their_number_is_bounded() -> None:
    many = [
        {"secondary": f"h:{number}", "connected": number != 3, "connection_problem": "no route"} for number in range(30)
    ]
    lines = details_of(seen(secondaries=many), 80, plain=False)
    assert "to h:0: connected" in lines[-17].words and "and 14 more" in lines[-1].words
    assert lines[-14].style == "bad" and "to h:3: no route" in lines[-14].words


def test_a_replica_shows_its_journal_and_no_lag() -> None:
    text = words(seen(role="secondary", log={"size": 100, "used": 50}))
    assert "journal 50 % of 100 B" in text and "lag" not in text


def test_names_of_any_length_leave_room_for_what_else_is_to_be_seen() -> None:
    long = "\x1b[2J" + "x" * 4096 + "end"
    secondaries = [
        {"secondary": long, "connected": False, "connection_problem": long, "mode": long, "replica_state": long}
    ]
    names = dict.fromkeys(
        ("name", "device", "machine", "role", "words", "problem", "last_in_sync", "last_verified"), long
    )
    lines = details_of(seen(**names, forecast={"words": long}, secondaries=secondaries), 80, plain=True)
    assert max(len(line.words) for line in lines) < 800 and all(line.words.isprintable() for line in lines)
    assert lines[0].words.startswith("\\x1b[2Jxxx") and "end: " in lines[0].words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*SIGHT, "secondaries"]), JSON), st.integers(1, 300), st.booleans())
def test_any_answer_of_a_machine_makes_printable_lines(sight: dict[str, Any], width: int, plain: bool) -> None:
    for line in (*details_of(View(sight), width, plain=plain), *cells_of(View(sight), plain=plain)):
        assert line.words.isprintable() or not line.words

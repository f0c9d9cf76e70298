"""A history lives in a bounded file, comes back whole but for what a crash has torn, and is never better than the truth."""

from __future__ import annotations

import json
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.seen.history import (
    COLUMNS,
    EVENT_BYTES,
    EVENT_SLOTS,
    FILE_BYTES,
    HISTORY_EVENT,
    HISTORY_ROW,
    TEXT_BYTES_MAX,
    TIERS,
    EntryKind,
    HistoryEntry,
    entries_of,
    event_write,
    history_header,
    history_rows_of,
    is_of_this_version,
    row_bytes,
    row_offset,
)
from pydbt.core.seen.history_rows import (
    SHOWN_EVENTS,
    Gathering,
    Rates,
    figures_of,
    history_answer,
)

NOW = 1_800_000_000
NOTHING = np.full(len(COLUMNS), np.nan)


class Disk:
    """A file of a history."""

    def __init__(self) -> None:
        self.data = bytearray(FILE_BYTES)
        self.put([(0, history_header())])

    def put(self, writes: list[tuple[int, bytes]]) -> None:
        for place, content in writes:
            assert place + len(content) <= FILE_BYTES
            self.data[place : place + len(content)] = content

    def looks(self, *looks: tuple[float, float], gathering: Gathering | None = None) -> Gathering:
        """Of (moment, bytes out of sync)."""
        gathering = gathering or Gathering(bytes(self.data))
        for moment, value in looks:
            self.put(gathering.add(moment, figures(value)))
        self.put(gathering.writes())
        return gathering

    def answer(self, first: float, until: float, points: int = 5000, now: float = NOW) -> dict:
        rows = [history_rows_of(bytes(self.data), tier) for tier in range(len(TIERS))]
        return history_answer(rows, entries_of(bytes(self.data)), first, until, now, points)


def figures(value: float) -> np.ndarray:
    made = NOTHING.copy()
    made[0] = value
    return made


def plain(answer: dict) -> list[tuple[int, object]]:
    assert answer["columns"] in (["unix", "out_of_sync_bytes"], ["unix"])
    return [(row[0], row[1] if len(row) > 1 else None) for row in answer["rows"]]


def test_a_recorded_figure_comes_back_with_its_least_and_its_most() -> None:
    disk = Disk()
    disk.looks((NOW - 20, 5), (NOW - 15, 1), (NOW - 10, 7), (NOW - 1, 0))
    answer = disk.answer(NOW - 100, NOW)
    assert plain(answer) == [(NOW - 20, 5), (NOW - 10, 7)]
    assert [row[1] for row in answer["least"]] == [1, 0]


def test_a_figure_that_one_look_did_not_know_has_no_worst() -> None:
    disk = Disk()
    disk.looks((NOW - 20, 5), (NOW - 15, math.nan), (NOW - 10, 7))
    answer = disk.answer(NOW - 100, NOW)
    assert plain(answer) == [(NOW - 20, None), (NOW - 10, 7)] and answer["least"][0][1] == 5


def test_a_restart_goes_on_with_the_rows_of_the_file() -> None:
    disk = Disk()
    disk.looks((NOW - 600, 9))
    disk.looks((NOW - 595, 3))
    assert plain(disk.answer(NOW - 700, NOW)) == [(NOW - 600, 9)]
    for tier in range(len(TIERS)):
        (row,) = history_rows_of(bytes(disk.data), tier)
        assert (row["looks"], row["least"][0], row["most"][0]) == (2, 3, 9)


def test_a_kill_costs_the_row_under_way_and_no_other() -> None:
    disk, gathering = Disk(), Gathering()
    for moment in range(NOW - 100, NOW - 62, 5):
        disk.put(gathering.add(moment, figures(1)))
    assert [moment for moment, _ in plain(disk.answer(NOW - 200, NOW))] == [NOW - 100, NOW - 90, NOW - 80]


def test_older_rows_are_coarser_and_a_week_fits_into_the_file() -> None:
    disk, gathering = Disk(), Gathering()
    for moment in range(NOW - 9 * 86400, NOW, 20):
        disk.put(gathering.add(moment, figures(moment % 1000)))
    disk.put(gathering.writes())
    answer = disk.answer(0, NOW, points=5_000)
    moments = [row[0] for row in answer["rows"]]
    assert len(answer["rows"]) <= 5000 and moments == sorted(moments)
    week = TIERS[2].step_s * TIERS[2].rows
    assert NOW - week <= moments[0] <= NOW - week + 2 * TIERS[2].step_s
    for age, step in ((3600, 10), (2 * 86400, 60), (5 * 86400, 600)):
        part = disk.answer(NOW - age, NOW - age + 3000)["rows"]
        assert [row[0] % step for row in part] == [0] * len(part)
        assert len(part) == pytest.approx(3000 / max(step, 20), abs=2)


def test_a_gap_is_shown_as_a_gap_and_a_row_more_or_less_is_none() -> None:
    disk = Disk()
    disk.looks(*((NOW - 300 + at, 1) for at in (0, 10, 30, 40, 200, 210)))
    assert plain(disk.answer(NOW - 400, NOW)) == [
        (NOW - 300, 1), (NOW - 290, 1), (NOW - 270, 1), (NOW - 260, 1), (NOW - 250, None), (NOW - 100, 1), (NOW - 90, 1),
    ]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 100)), min_size=1, max_size=60),
    st.integers(1, 80),
    st.tuples(st.integers(-100, 4100), st.integers(1, 4200)),
)
def test_thinning_keeps_the_worst_and_the_best_within_the_points(
    looks: list[tuple[int, int]], points: int, span: tuple[int, int]
) -> None:
    disk = Disk()
    looks.sort()
    disk.looks(*((NOW - 4200 + at, value) for at, value in looks))
    first, until = NOW - 4200 + span[0], NOW - 4200 + span[0] + span[1]
    every, few = disk.answer(first, until), disk.answer(first, until, points=points)
    assert len(few["rows"]) <= points and len(few["least"]) == len(few["rows"])
    known = [value for _, value in plain(every) if value is not None]
    assert max(known, default=None) == max((value for _, value in plain(few) if value is not None), default=None)  # type: ignore[type-var]
    mine, theirs = (
        [row[1] for row in answer["least"] if len(row) > 1 and row[1] is not None] for answer in (every, few)
    )
    assert min(mine, default=None) == min(theirs, default=None)
    for moment, _ in plain(few):
        assert first - TIERS[0].step_s < moment <= until + span[1]


def test_rows_that_a_whole_round_of_the_ring_did_not_write_again_are_of_an_earlier_time() -> None:
    disk = Disk()
    disk.looks((NOW - TIERS[0].step_s * TIERS[0].rows - 5, 1))
    rows = disk.answer(0, NOW)["rows"]
    assert [row[0] % 60 for row in rows] == [0], "the row of a minute is there, and that of 10 s is not"
    assert not disk.answer(0, NOW, now=NOW + 10 * 86400)["rows"]


# --- events -------------------------------------------------------------------------------------------------------
def entry(number: int, kind: EntryKind = EntryKind.EVENT, moment: float = NOW, **values: object) -> HistoryEntry:
    return HistoryEntry(kind, number, moment, values)


def test_events_and_restarts_come_back_in_their_order_the_newest_of_too_many() -> None:
    disk = Disk()
    disk.put([event_write(entry(number, words=f"{number}", moment=NOW - 10)) for number in range(1, EVENT_SLOTS + 4)])
    disk.put([event_write(entry(EVENT_SLOTS + 4, EntryKind.RESTART, moment=NOW - 5))])
    found = entries_of(bytes(disk.data))
    assert [one.number for one in found] == list(range(5, EVENT_SLOTS + 5))
    answer = disk.answer(NOW - 60, NOW)
    assert answer["restarts"] == [NOW - 5] and len(answer["events"]) == SHOWN_EVENTS
    assert (
        answer["events"][-1] == {"words": f"{EVENT_SLOTS + 3}"}
        and answer["events_left_out"] == EVENT_SLOTS - 1 - SHOWN_EVENTS
    )
    assert disk.answer(NOW - 60, NOW - 30)["events"] == []


def test_an_event_that_is_too_long_loses_its_figures_and_then_the_end_of_its_words() -> None:
    _, kept = event_write(entry(1, name="x", words="short", figures={"a": "y" * 600}))
    assert len(kept) == EVENT_BYTES
    disk = Disk()
    disk.put([event_write(entry(1, name="x", words="short", figures={"a": "y" * 600}))])
    disk.put([event_write(entry(2, name="x", words="\u00e9" * 600, figures={}))])
    disk.put([event_write(entry(3, name="x" * 600, words="short", figures={}))])
    first, second, third = (one.values for one in entries_of(bytes(disk.data)))
    assert first == {"name": "x", "words": "short", "figures": {}} and third == {}
    assert second["words"].startswith("\u00e9" * 20) and second["words"].endswith("...")


@pytest.mark.parametrize("harm", ["torn", "elsewhere", "kind", "no object", "no text", "no moment"])
def test_a_slot_that_is_no_event_is_left_out(harm: str) -> None:
    disk = Disk()
    place, body = event_write(entry(7, words="w"))
    disk.put([(place, body), event_write(entry(8, words="kept"))])
    if harm == "torn":
        disk.data[place + 40] ^= 1
    elif harm == "elsewhere":
        disk.put([(place, body[:8] + b"\x01" + body[9:])])
        disk.put([(place + 4 * EVENT_BYTES, body)])
    else:
        head, text = body[: HISTORY_EVENT.size], body[HISTORY_EVENT.size :]
        head = head[:4] + b"\x09" + head[5:] if harm == "kind" else head
        head = head[:16] + struct.pack("<d", math.nan) if harm == "no moment" else head
        text = {"no object": b"[" + b" " * 11 + b"1]", "no text": b"\xff" * 14}.get(harm, text[:14]).ljust(
            TEXT_BYTES_MAX, b" "
        )
        rest = (head + text)[4:]
        disk.put([(place, struct.pack("<I", zlib.crc32(rest)) + rest)])
    assert [one.values for one in entries_of(bytes(disk.data))] == [{"words": "kept"}]


# --- any bytes ----------------------------------------------------------------------------------------------------
def whole_file() -> Disk:
    disk = Disk()
    disk.looks(*((NOW - 500 + at, at) for at in range(0, 500, 10)))
    disk.put([event_write(entry(number, words="w")) for number in range(1, 9)])
    return disk


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_torn_row_is_left_out_and_no_other(data: st.DataObject) -> None:
    disk = whole_file()
    before = {row.tobytes() for row in history_rows_of(bytes(disk.data), 0)}
    torn = data.draw(st.sets(st.integers(0, 49), min_size=1, max_size=8))
    for row in torn:
        place = row_offset(0, NOW - 500 + 10 * row) + data.draw(st.integers(0, HISTORY_ROW.itemsize - 1))
        disk.data[place] ^= data.draw(st.integers(1, 255))
    after = {row.tobytes() for row in history_rows_of(bytes(disk.data), 0)}
    assert after <= before and len(after) == len(before) - len(torn)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, FILE_BYTES), st.binary(max_size=3000), st.integers(0, FILE_BYTES))
def test_any_bytes_are_read_without_an_exception(length: int, rubbish: bytes, place: int) -> None:
    disk = whole_file()
    disk.data[place : place + len(rubbish)] = rubbish
    data = bytes(disk.data[:length])
    rows = [history_rows_of(data, tier) for tier in range(len(TIERS))]
    answer = history_answer(rows, entries_of(data), 0, NOW, NOW, 100)
    json.dumps(answer, allow_nan=False)
    Gathering(data).add(NOW, figures(1))


def test_a_row_of_other_numbers_with_a_right_checksum_is_told_as_unknown() -> None:
    disk = Disk()
    odd = np.array([math.inf, -math.inf, 1e300] + [0.25] * (len(COLUMNS) - 3))
    disk.put([(row_offset(0, NOW - 10), row_bytes(NOW - 10, 1, odd, odd))])
    (row,) = disk.answer(NOW - 60, NOW)["rows"]
    assert row[1:5] == [None, None, None, 0.25]


def test_the_header_is_of_one_version() -> None:
    assert is_of_this_version(history_header() + b"rest")
    other = bytearray(history_header())
    other[8] += 1
    assert not is_of_this_version(bytes(other)) and not is_of_this_version(b"") and not is_of_this_version(b"PDBHIST\0")


# --- figures ------------------------------------------------------------------------------------------------------
def test_the_figures_of_a_status_are_those_that_it_knows() -> None:
    wire = Rates()
    status = {
        "out_of_sync_bytes": 4096, "lag_seconds": None, "sent_bytes": 1000, "log": {"used": 64}, "queue": "odd",
        "replica_state": "outdated", "connected": False, "write_rate_bytes": True,
    }  # fmt: skip
    named = dict(zip(COLUMNS, figures_of(status, 10.0, wire).tolist(), strict=True))
    known = {name: value for name, value in named.items() if not math.isnan(value)}
    assert known == {"out_of_sync_bytes": 4096, "log_used_bytes": 64, "replica_state": 2, "disconnected": 1}
    later = figures_of({**status, "sent_bytes": 3000, "connected": True}, 14.0, wire)
    assert later[COLUMNS.index("wire_rate_bytes")] == 500 and later[COLUMNS.index("disconnected")] == 0
    assert math.isnan(figures_of({"sent_bytes": 10}, 15.0, wire)[COLUMNS.index("wire_rate_bytes")]), "another run"
    replica = dict(
        zip(COLUMNS, figures_of({"received_bytes": 5, "journal": {"used": 7}}, 1.0, Rates()).tolist(), strict=True)
    )
    assert replica["journal_used_bytes"] == 7 and math.isnan(replica["wire_rate_bytes"])

"""Answers of a controller as lines; of another version, or damaged, they are left out."""

from __future__ import annotations

from typing import Any

import pytest

from pydbt.core.printable import printable
from pydbt.core.seen.top_answers import (
    ATTACHING_WORDS,
    EVENTS_SHOWN,
    Section,
    events_request,
    section_lines,
    with_new_events,
)


def lines(section: Section, answer: Any, problem: str = "") -> list[str]:
    return [line.words for line in section_lines(section, answer, problem)]


def test_the_newest_event_is_first_and_their_number_is_bounded() -> None:
    events = [{"moment": f"t{number}", "name": "in_sync", "words": "x"} for number in range(30)]
    shown = lines(Section.EVENTS, {"events": events})
    assert shown[:2] == ["newest events", "  t29  in_sync: x"] and len(shown) == 1 + EVENTS_SHOWN


def test_the_busiest_writer_is_first_and_an_unknown_rate_is_called_unknown() -> None:
    slow = {"name": "cron", "process": 3, "written_rate_bytes": 1024, "dirtied_rate_bytes": 0, "group": "cron.service"}
    fast = {"name": "dd", "written_rate_bytes": 1 << 20}
    shown = lines(
        Section.WRITERS, {"processes": [slow, fast], "files": [{"kind": "file", "name": "/a", "written_rate_bytes": 5}]}
    )
    assert shown[1:] == [
        "  dd: written 1.0 MiB/s, dirtied unknown/s",
        "  cron (3): written 1.0 KiB/s, dirtied 0 B/s, cron.service",
        "  file /a: written 5 B/s, dirtied unknown/s",
    ]


def test_rows_that_have_more_than_was_captured_are_called_a_fault() -> None:
    rows = {"processes": [{"name": "dd"}], "files": []}
    assert "4.0 KiB more than was captured" in lines(Section.WRITERS, {**rows, "excess_bytes": 4096})[1]
    assert not any("captured" in line for line in lines(Section.WRITERS, {**rows, "excess_bytes": 0}))


@pytest.mark.parametrize("section", [Section.WRITERS, Section.IO])
def test_programs_that_are_being_attached_or_cannot_be_are_not_called_none(section: Section) -> None:
    assert lines(section, {"starting": True, "problem": ""})[1:] == [f"  {ATTACHING_WORDS}"]
    assert lines(section, {"starting": False, "problem": "no BTF here"})[1:] == ["  no BTF here"]
    assert lines(section, {"starting": False, "problem": "", "now": {}})[1:] == ["  none"]


def test_a_row_that_is_no_file_is_not_called_one() -> None:
    rows = [
        {"kind": "file", "name": "/a", "written_rate_bytes": 9},
        {"kind": "journal", "name": "the file system's journal"},
    ]
    shown = lines(Section.WRITERS, {"files": rows})[1:]
    assert [line.partition(":")[0] for line in shown] == ["  file /a", "  the file system's journal"]


HOSTILE = ("\x1b[2J\x1b]0;title\x07", "a\nb\r\tc", "<b onclick=x>", "\u202egnp.exe", "x" * 4096, "half \ud800")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_others_have_chosen_are_one_short_printable_line(name: str) -> None:
    row = {"name": name, "group": name, "process": 7, "written_rate_bytes": 5, "dirtied_rate_bytes": 5}
    told = {"processes": [row] * 9, "files": [row] * 9}
    events = {"events": [{"moment": name, "name": name, "words": name}]}
    for shown in (
        lines(Section.WRITERS, told),
        lines(Section.WRITERS, {"problem": name}),
        lines(Section.EVENTS, events),
        lines(Section.IO, None, printable(name)),
    ):
        for line in shown[1:]:
            assert line.isprintable() and len(line) <= 5000
            line.encode()
    assert all(len(line) <= 300 for line in lines(Section.WRITERS, told))


def test_operations_that_there_were_have_rates_and_latencies() -> None:
    latency = {"p50": 90_000, "p99": 2_500_000, "max": 3_000_000_000}
    now = {"write": {"per_second": 1500.0, "bytes_per_second": 6 << 20, "latency_ns": {"total": latency}}, "read": {}}
    (_, line) = lines(Section.IO, {"now": now})
    assert line == "  write   1,500 per second, 6.0 MiB/s, half 90 µs, 99 % 2.5 ms, at most 3.0 s"
    assert "half unknown" in lines(Section.IO, {"now": {"write": {"per_second": 1}}})[1]


def test_figures_of_a_sample_are_told_as_such() -> None:
    now = {"write": {"per_second": 1500.0}}
    assert (
        lines(Section.IO, {"now": now, "timed_every": 8})[-1]
        == "  the time of one I/O in 8 is taken, and all are counted"
    )
    assert len(lines(Section.IO, {"now": now, "timed_every": 1})) == 2
    row = {"name": "dd", "written_rate_bytes": 5}
    assert "in samples" in lines(Section.WRITERS, {"processes": [row], "sampled": True})[-1]
    assert "in samples" not in lines(Section.WRITERS, {"processes": [row], "sampled": False})[-1]


def test_events_are_asked_for_once_each_and_anew_after_a_new_start_of_the_controller() -> None:
    first = {"events": [{"number": 1}, {"number": 2}], "next": 2, "run": "a"}
    assert events_request(None)["since"] == 0
    known = with_new_events(None, first)
    assert events_request(known)["since"] == 2
    known = with_new_events(known, {"events": [{"number": 3}], "next": 3, "run": "a"})
    assert [event["number"] for event in known["events"]] == [1, 2, 3] and events_request(known)["since"] == 3
    known = with_new_events(known, {"events": [], "next": 0, "run": "b"})
    assert known["events"] == [] and events_request(known)["since"] == 0
    known = with_new_events(known, {"events": [{"number": 1}] * 30, "next": 1, "run": "b"})
    assert len(known["events"]) == EVENTS_SHOWN


@pytest.mark.parametrize("section", list(Section))
def test_a_section_without_an_answer_says_that_it_asks_or_why_there_is_none(section: Section) -> None:
    assert lines(section, None)[1] == "  asking ..." and lines(section, None, "no route")[1] == "  no route"
    for answer in ({}, {"events": 7, "processes": "x", "now": []}, {"events": ["x"], "processes": [None]}):
        assert all(line.isprintable() for line in lines(section, answer))


def test_hostile_names_of_processes_files_and_groups_are_escaped_and_cut() -> None:
    hostile = "\x1b[2J<b>\n" + "x" * 4096
    row = {"name": hostile, "process": 7, "group": hostile, "written_rate_bytes": 1}
    event = {"moment": hostile, "name": hostile, "words": hostile}
    for section, answer in (
        (Section.WRITERS, {"processes": [row], "files": [row]}),
        (Section.EVENTS, {"events": [event]}),
    ):
        for line in lines(section, answer):
            assert line.isprintable() and len(line) < 700

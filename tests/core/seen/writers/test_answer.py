"""Names of processes, files and control groups are of others: no text of the answer is more than one printable line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.writers.answer import SHOWN_ROWS, TEXT_MAX, shown_name, views
from pydbt.core.seen.writers.reading import Amount, File, Kind, Names, RowKey, Writer, WriterReading
from pydbt.core.seen.writers.sums import WriterSums

FILE = File(8 << 20 | 1, 12, 7)
HOSTILE = (
    b"<script>alert(1)</script>",
    b"\x1b[2J\x1b]0;title\x07",
    b"a\nb\r\tc",
    b"\xff\xfe\x80",
    "\u202egnp.exe".encode(),
    b"x" * 4096,
    b"\xed\xa0\x80",
    b"",
)


def texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in texts_of(part)]


def answer_of(writer: Writer, names: Names, kind: Kind = Kind.DIRECT, file: File | None = FILE) -> dict[str, Any]:
    sums = WriterSums()
    sums.take(WriterReading({RowKey(kind, 1, file): Amount(9, 10)}, {1: writer}, 10), 1.0, out_of_normal=False)
    return views(sums, names)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_of_processes_files_and_groups_reach_nobody(name: bytes) -> None:
    answer = answer_of(Writer(1, 2, 3, 0, False, name[:16]), Names({3: b"/" + name}, {FILE: b"/" + name}))
    for text in texts_of(answer):
        assert text.isprintable() and len(text) <= TEXT_MAX + 200
        text.encode()  # no half of a surrogate pair
    assert json.loads(json.dumps(answer)) == answer


@given(st.binary(max_size=6000))
def test_any_bytes_become_one_short_printable_line(name: bytes) -> None:
    text = shown_name(name)
    assert text.isprintable() and len(text) <= TEXT_MAX
    text.encode()


def test_the_middle_of_a_long_name_is_left_out_and_its_end_stays() -> None:
    text = shown_name(b"/a" + b"b" * 4000 + b"/end.log")
    assert text.startswith("/abb") and text.endswith("/end.log") and "…" in text


def test_a_thread_of_the_kernel_is_in_brackets_and_a_name_ends_at_its_zero() -> None:
    answer = answer_of(Writer(1, 2, 3, 0, True, b"loop0\0rest"), Names())
    assert answer["processes"][0]["name"] == "[loop0]"


def test_a_file_without_a_path_is_named_by_its_inode_and_a_group_without_one_by_its_number() -> None:
    answer = answer_of(Writer(1, 2, 3, 0, False, b"dd"), Names())
    assert (answer["files"][0]["name"], answer["files"][0]["path"]) == ("inode 12", None)
    assert answer["files"][0]["device"] == "8:1"
    assert answer["groups"][0]["name"] == "control group 3"
    assert answer["processes"][0]["group"] == "control group 3"


def test_the_root_of_the_control_groups_has_its_name_where_nobody_has_mounted_them() -> None:
    answer = answer_of(Writer(1, 2, 1, 0, False, b"dd"), Names())
    assert (answer["groups"][0]["name"], answer["groups"][0]["path"]) == ("the root control group", "/")
    assert answer_of(Writer(1, 2, 1, 0, False, b"dd"), Names({1: b"/"}))["groups"] == answer["groups"]


def test_a_user_has_a_name_where_this_machine_knows_one() -> None:
    names = Names(users={1000: b"ann\x1b[2J"})
    known, unknown = (answer_of(Writer(1, 2, 3, user, False, b"dd"), names)["processes"][0] for user in (1000, 1001))
    assert (known["user"], known["user_name"]) == (1000, "ann\\x1b[2J")
    assert (unknown["user"], unknown["user_name"]) == (1001, None)


def test_a_block_device_and_no_file_at_all_are_told_apart() -> None:
    dd = Writer(1, 2, 3, 0, False, b"dd")
    assert answer_of(dd, Names(), Kind.BUFFERED, File(8 << 20, 0, 0))["files"][0]["name"] == "the block device 8:0"
    assert answer_of(dd, Names(), Kind.DIRECT, None)["files"][0]["kind"] == "no_file"


def test_beyond_the_rows_that_are_shown_the_others_are_one() -> None:
    rows = {RowKey(Kind.DIRECT, number, FILE): Amount(0, 1) for number in range(1, SHOWN_ROWS + 20)}
    writers = {number: Writer(number, 1, number, 0, False, b"dd") for number in range(1, SHOWN_ROWS + 20)}
    sums = WriterSums()
    sums.take(WriterReading(rows, writers, len(rows)), 1.0, out_of_normal=False)
    answer = views(sums, Names())
    assert [len(answer[view]) for view in ("processes", "groups", "files")] == [SHOWN_ROWS + 1, SHOWN_ROWS + 1, 1]
    assert answer["processes"][-1] == {
        "kind": "others",
        "name": "all others",
        "dirtied_bytes": 0,
        "written_bytes": 19,
        "dirtied_rate_bytes": 0,
        "written_rate_bytes": 19,
        "out_of_normal_bytes": 0,
    }


def test_a_process_whose_name_was_forgotten_is_unknown_by_name_and_keeps_its_number() -> None:
    sums = WriterSums()
    sums.take(
        WriterReading({RowKey(Kind.DIRECT, 1, FILE): Amount(0, 1)}, {1: Writer(7, 1, 1, 0, False, b"dd")}, 1),
        1.0,
        out_of_normal=False,
    )
    sums._processes.clear()
    row = views(sums, Names())["processes"][0]
    assert (row["name"], row["process"]) == ("unknown", 7)

"""Records of I/Os: what they say of the submitter and the file, and what passes a filter."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.seen.io_filter import IoFilter
from pydbt.core.seen.io_meaning import (
    FileId,
    IoFlag,
    content_words,
    file_of,
    flag_words,
    known_ns,
    offset_bytes,
    submitter_of,
    thread_name,
)
from pydbt.core.seen.io_record import IO_RECORD
from pydbt.core.seen.latency import UNKNOWN_NS
from tests.core.seen.records import DISCARD, FLUSH, LOOP0, READ, WRITE, record, records

PROGRAM = (Path(__file__).resolve().parents[3] / "bpf" / "block_io.bpf.c").read_text()
_SIZES = {"u64": 8, "u32": 4, "u16": 2, "u8": 1}


def test_a_record_is_laid_out_as_in_the_program() -> None:
    struct = re.search(r"struct pydbt_io_record \{(.*?)\n\};", PROGRAM, re.DOTALL)
    assert struct is not None
    members = re.findall(r"^\t(u64|u32|u16|u8|char) (\w+)", struct[1], re.MULTILINE)
    renamed = [(kind, "operation" if name == "class" else name) for kind, name in members]
    assert tuple(name for _, name in renamed) == IO_RECORD.names
    at = 0
    for kind, name in renamed:
        size = 16 if kind == "char" else _SIZES[kind]
        field, offset = IO_RECORD.fields[name][:2]  # type: ignore[index]
        assert (field.itemsize, offset) == (size, at), name
        at += size
    assert at == IO_RECORD.itemsize and at % 8 == 0


def test_the_flags_are_those_of_the_program() -> None:
    found = {name: int(value) for name, value in re.findall(r"^#define FLAG_(\w+) (\d+)", PROGRAM, re.MULTILINE)}
    assert found == {str(flag.name): flag.value for flag in IoFlag}


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, "fio"),
        ({"flags": IoFlag.NO_SUBMITTER}, "unknown"),
        ({"name": b"kworker/u8:1", "flags": IoFlag.KERNEL, "inode": 12}, "kworker/u8:1 (writeback)"),
        ({"name": b"kworker/u8:1", "flags": IoFlag.KERNEL | IoFlag.DEVICE_CACHE}, "kworker/u8:1 (writeback)"),
        ({"name": b"kworker/u8:1", "flags": IoFlag.KERNEL}, "kworker/u8:1 (kernel)"),
        ({"name": b"kworker/u8:1", "flags": IoFlag.KERNEL, "inode": 12, "operation": READ}, "kworker/u8:1 (kernel)"),
        ({"name": b"jbd2/vda-8", "flags": IoFlag.KERNEL | IoFlag.DEVICE_CACHE}, "jbd2/vda-8 (journal)"),
        ({"name": b"jbd2/fake"}, "jbd2/fake"),
        ({"name": b""}, "(no name)"),
    ],
)
def test_a_submitter_is_named_as_far_as_it_is_known(values: dict[str, object], words: str) -> None:
    assert submitter_of(record(**values)[0]).words == words


@pytest.mark.parametrize(
    "raw, name",
    [(b"[red]x[/]", "[red]x[/]"), (b"\x1b[2J\n", "\\x1b[2J\\x0a"), (b"\xff\xfe", "\\xff\\xfe"), (b"a\0\x1b[0m", "a")],
)
def test_a_name_that_a_process_has_chosen_moves_no_cursor(raw: bytes, name: str) -> None:
    assert thread_name(raw) == name and name.isprintable()


def test_a_file_is_known_by_file_system_inode_and_generation() -> None:
    found = file_of(record(inode=13, generation=7, file_system=LOOP0 | 3)[0])
    assert found == FileId(7, 3, 13, 7)
    assert file_of(record()[0]) is None


@pytest.mark.parametrize(
    "values, words",
    [
        ({}, "unknown"),
        ({"flags": IoFlag.META}, "metadata"),
        ({"flags": IoFlag.DEVICE_CACHE}, "metadata"),
        ({"flags": IoFlag.DIRECT}, "direct"),
        ({"bytes": 0, "operation": FLUSH}, ""),
    ],
)
def test_without_a_file_it_is_metadata_direct_or_unknown_and_never_guessed(
    values: dict[str, object], words: str
) -> None:
    assert content_words(record(**values)[0]) == words


def test_a_flush_has_no_offset_and_an_unknown_time_is_none() -> None:
    flush = record(operation=FLUSH, bytes=0, queue_ns=UNKNOWN_NS)[0]
    assert offset_bytes(flush) is None and known_ns(flush["queue_ns"]) is None
    assert offset_bytes(record(sector=3)[0]) == 1536 and known_ns(record()[0]["queue_ns"]) == 1000


def test_flags_in_words() -> None:
    assert flag_words(record(flags=IoFlag.FUA | IoFlag.SYNC | IoFlag.ERROR)[0]) == ["fua", "sync"]


ALL = records(
    record(operation=READ, process=1, name=b"cat"),
    record(operation=WRITE, process=2, name=b"a-name-of-more-"),
    record(operation=FLUSH, process=2, bytes=0, total_ns=9_999_999),
    record(operation=DISCARD, process=3, total_ns=UNKNOWN_NS, name=b"fstrim"),
    record(operation=WRITE, process=0, name=b"", flags=IoFlag.NO_SUBMITTER),
)


@pytest.mark.parametrize(
    "operations, processes, least_ns, passed",
    [
        ([], [], 0, [0, 1, 2, 3, 4]),
        (["write"], [], 0, [1, 4]),
        (["read", "discard"], [], 0, [0, 3]),
        ([], ["cat"], 0, [0]),
        ([], ["2"], 0, [1, 2]),
        ([], ["cat", "3"], 0, [0, 3]),
        ([], ["a-name-of-more-than-fifteen"], 0, [1]),
        ([], ["0"], 0, []),
        ([], ["99999999999999"], 0, []),
        ([], [], 10_001, [2]),
        (["flush"], ["fio"], 1, [2]),
    ],
)
def test_a_filter_lets_through_what_was_asked_for(
    operations: list[str], processes: list[str], least_ns: int, passed: list[int]
) -> None:
    wanted = IoFilter.of(operations, processes, least_ns)
    assert (wanted.chosen(ALL) == ALL[passed]).all() and len(wanted.chosen(ALL)) == len(passed)


def test_a_filter_is_told_in_a_recording() -> None:
    told = IoFilter.of(["read"], ["cat", "\udcff"], 5).to_json()
    assert told == {"operations": ["read"], "processes": ["cat", "\\xff"], "least_ns": 5}


def test_an_empty_array_passes() -> None:
    assert len(IoFilter.of(["read"], ["x"], 5).chosen(np.zeros(0, IO_RECORD))) == 0

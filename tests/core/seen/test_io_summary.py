"""Sums over records, their words, and fio's log."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen import io_summary
from pydbt.core.seen.io_log import fio_log, log_entries
from pydbt.core.seen.io_meaning import FileId, IoFlag, Submitter
from pydbt.core.seen.io_record import IO_RECORD
from pydbt.core.seen.io_summary import OTHERS, IoSummary
from pydbt.core.seen.io_words import (
    latency_words,
    line_of,
    moment,
    object_of,
    summary_lines,
    summary_object,
    whole_ns,
)
from pydbt.core.seen.latency import UNKNOWN_NS
from tests.core.seen.records import DISCARD, FLUSH, LOOP0, READ, WRITE, record, records

MANY = st.lists(
    st.builds(
        record,
        operation=st.sampled_from([READ, WRITE, FLUSH, DISCARD]),
        bytes=st.integers(0, 64).map(lambda sectors: sectors * 512),
        process=st.integers(0, 3),
        inode=st.integers(0, 2),
        name=st.sampled_from([b"a", b"b", b"\x1b"]),
        flags=st.sampled_from([0, IoFlag.KERNEL, IoFlag.NO_SUBMITTER, IoFlag.ERROR | IoFlag.SEQUENTIAL]),
        total_ns=st.integers(0, 1 << 40) | st.just(UNKNOWN_NS),
    ),
    min_size=1,
    max_size=40,
)


@given(MANY)
def test_rows_sum_to_what_was_recorded(many: list[np.ndarray]) -> None:
    summary = IoSummary()
    for part in (records(*many[: len(many) // 2], np.zeros(0, IO_RECORD)), records(*many[len(many) // 2 :])):
        summary.add(part)
    every = records(*many)
    assert summary.count == len(many)
    for sums in (summary.operations.values(), summary.by_submitter.values()):
        assert sum(one.count for one in sums) == len(many)
        assert sum(one.bytes for one in sums) == every["bytes"].sum()
    with_file = every[every["inode"] != 0]
    assert sum(one.count for one in summary.by_file.values()) == len(with_file)
    assert (
        sum(int(one.latency.sum()) for one in summary.by_submitter.values()) == (every["total_ns"] != UNKNOWN_NS).sum()
    )
    assert all(line.isprintable() for line in summary_lines(summary, 1.0, 0, lambda file: None))


def test_submitters_are_told_apart_by_process_and_by_what_a_thread_of_the_kernel_does() -> None:
    worker = {"name": b"kworker/u8:1", "process": 9, "flags": IoFlag.KERNEL}
    summary = IoSummary()
    summary.add(
        records(
            record(),
            record(),
            record(process=200),
            record(**worker, inode=5),
            record(**worker),
            record(flags=IoFlag.NO_SUBMITTER, name=b"left over"),
        )
    )
    counts = {who: one.count for who, one in summary.by_submitter.items()}
    assert counts == {
        Submitter("fio", 100, ""): 2,
        Submitter("fio", 200, ""): 1,
        Submitter("kworker/u8:1", 9, "writeback"): 1,
        Submitter("kworker/u8:1", 9, "kernel"): 1,
        Submitter("", 0, ""): 1,
    }


def test_more_processes_than_are_kept_are_one_row(monkeypatch: object) -> None:
    from pytest import MonkeyPatch

    with MonkeyPatch.context() as patch:
        patch.setattr(io_summary, "GROUPS_MAX", 2)
        summary = IoSummary()
        summary.add(records(*(record(process=number, inode=number) for number in range(1, 6))))
    assert summary.by_submitter[OTHERS].count == 3 and sum(one.count for one in summary.by_submitter.values()) == 5
    assert len(summary.by_file) == 2


def test_the_busiest_come_first() -> None:
    summary = IoSummary()
    summary.add(records(record(), record(), record(process=7, bytes=1 << 20, inode=3, file_system=LOOP0)))
    assert [who.process for who, _ in summary.busiest(5)] == [7, 100]
    assert [file for file, _ in summary.busiest_files(5)] == [FileId(7, 0, 3, 0)]


def test_a_summary_in_words_and_as_an_object() -> None:
    summary = IoSummary()
    summary.add(
        records(
            *(record(flags=IoFlag.SEQUENTIAL) for _ in range(3)),
            record(operation=READ, bytes=65536, flags=IoFlag.ERROR, inode=3),
            record(operation=FLUSH, bytes=0, queue_ns=UNKNOWN_NS, device_ns=UNKNOWN_NS, total_ns=2_000_000),
        )
    )
    words = "\n".join(summary_lines(summary, 2.0, 7, lambda file: "/srv/a\x1b"))
    assert words.startswith("5 I/Os in 2.00 s; 7 more were LOST")
    assert "write: 12.0 KiB, 100 % sequential; sizes: 4.0 KiB 100 %" in words
    assert "read: 64.0 KiB, 0 % sequential, 1 FAILED" in words
    assert "/srv/a\\x1b" in words and "fio 100" in words
    rows = [line.split() for line in words.splitlines() if line.startswith("flush")]
    assert [row[:3] for row in rows] == [["flush", "total", "1"]], "no row for a time that nobody knows"
    told = json.loads(json.dumps(summary_object(summary, 2.0, 7, lambda file: None)))
    assert told["lost"] == 7 and told["operations"]["read"]["errors"] == 1
    assert told["by_file"] == [{"file": None, "inode": 3, "count": 1, "bytes": 65536}]
    assert told["by_process"][0]["name"] == "fio" and told["by_process"][0]["process"] == 100


def test_a_summary_of_no_io_is_one_line() -> None:
    assert list(summary_lines(IoSummary(), 1.0, 0, lambda file: None)) == ["0 I/Os in 1.00 s"]


def test_a_line_and_an_object_of_an_io() -> None:
    one = record(inode=12, flags=IoFlag.ERROR | IoFlag.SYNC, sector=16, time_ns=5_000)[0]
    line = line_of(one, 1_000_000_000, lambda file: "/srv/data/[b]x")
    assert line.split() == [
        "00:00:01.000005", "fio", "100", "write", "8192", "4.0", "KiB", "10", "us", "/srv/data/[b]x", "FAILED",
    ]  # fmt: skip
    assert "inode 12 (no name is known)" in line_of(one, 0, lambda file: None)
    assert "unknown (direct I/O)" in line_of(record(flags=IoFlag.DIRECT)[0], 0, lambda file: None)
    told = object_of(one, 1_000_000_000, lambda file: None)
    assert told == {
        "moment": "1970-01-01T00:00:01.000005Z", "operation": "write", "offset_bytes": 8192, "length_bytes": 4096,
        "process": 100, "thread": 101, "name": "fio", "kind": None, "queue_ns": 1000, "device_ns": 9000, "total_ns": 10000,
        "file": None, "inode": 12, "content": "file", "flags": ["sync"], "failed": True,
    }  # fmt: skip
    nobody = object_of(record(flags=IoFlag.NO_SUBMITTER, process=0, thread=0)[0], 0, lambda file: None)
    assert (nobody["process"], nobody["name"], nobody["content"]) == (None, None, "unknown")


def test_where_the_whole_time_is_unknown_the_devices_part_is_shown() -> None:
    assert whole_ns(record(total_ns=UNKNOWN_NS)[0]) == 9000
    assert whole_ns(record(total_ns=UNKNOWN_NS, device_ns=UNKNOWN_NS)[0]) is None


def test_latencies_in_words() -> None:
    shown = [latency_words(ns) for ns in (None, 0, 999, 1_000, 12_340, 123_400, 1_500_000, 2_000_000_000, 999_600)]
    assert shown == ["unknown", "0 ns", "999 ns", "1 us", "12.3 us", "123 us", "1.5 ms", "2 s", "1000 us"]


def test_a_moment_that_no_calendar_has() -> None:
    assert moment(1 << 100).startswith("1970-01-01T00:00:00")


def test_the_log_of_fio_has_the_order_of_submission_and_its_pauses() -> None:
    some = records(
        record(time_ns=1_010_000, sector=8),
        record(time_ns=1_500_000, sector=0, total_ns=500_000, operation=READ),
        record(time_ns=2_000_000, bytes=0, sector=0, operation=FLUSH, total_ns=UNKNOWN_NS, device_ns=UNKNOWN_NS),
        record(time_ns=2_050_000, operation=DISCARD, sector=2048, bytes=1 << 20, total_ns=UNKNOWN_NS, device_ns=40_000),
    )
    assert list(fio_log(log_entries(some), "/dev/vdb")) == [
        "fio version 2 iolog\n",
        "/dev/vdb add\n",
        "/dev/vdb open\n",
        "/dev/vdb write 4096 4096\n",
        "/dev/vdb read 0 4096\n",
        "/dev/vdb wait 1000 0\n",
        "/dev/vdb sync 0 0\n",
        "/dev/vdb trim 1048576 1048576\n",
        "/dev/vdb close\n",
    ]


def test_the_log_of_nothing_is_a_log() -> None:
    assert len(list(fio_log(log_entries(np.zeros(0, IO_RECORD)), "/dev/vdb"))) == 4

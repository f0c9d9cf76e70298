"""A writer to the stream neither waits nor fails, whatever happens to its readers; missing lines are told."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pydbt.posix.background_stream import BackgroundStream

WAIT_S = 20.0


def missing(count: int) -> str:
    return f"<{count} missing>\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(end)


def fill(descriptor: int) -> int:
    """Until a write would wait; how many bytes that took."""
    os.set_blocking(descriptor, False)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(descriptor, b"x" * 4096)
    os.set_blocking(descriptor, True)
    return size


def read_exactly(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data


def test_text_goes_out_in_its_order(pipe: tuple[int, int]) -> None:
    stream = BackgroundStream(pipe[1], missing)
    for number in range(100):
        print(f"line {number} é", file=stream)
    assert stream.drain(WAIT_S)
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert lines == [f"line {number} é" for number in range(100)]
    assert stream.dropped_lines == 0


def test_nobody_waits_for_a_pipe_that_nobody_reads_and_what_is_missing_is_told_later(pipe: tuple[int, int]) -> None:
    junk = fill(pipe[1])
    stream = BackgroundStream(pipe[1], missing, queue_bytes=100)
    for number in range(50):
        stream.write(f"line {number:04d}\n")  # 10 bytes
    assert not stream.drain(0.0)
    assert stream.dropped_lines == 40
    read_exactly(pipe[0], junk)
    assert stream.drain(WAIT_S)
    stream.write("last\n")
    assert stream.drain(WAIT_S)
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert lines == [*(f"line {number:04d}" for number in range(10)), "<40 missing>", "last"]


def test_many_threads_write_whole_lines(pipe: tuple[int, int]) -> None:
    stream = BackgroundStream(pipe[1], missing)
    threads = [
        threading.Thread(target=lambda word=word: [stream.write(f"{word * 20}\n") for _ in range(50)])
        for word in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.drain(WAIT_S)
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert sorted(lines) == sorted(word * 20 for word in "abcd" for _ in range(50))


def test_a_disk_that_is_full_costs_lines_and_nothing_else() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        stream = BackgroundStream(descriptor, missing)
        for _ in range(5):
            stream.write("a line\n")
        assert stream.drain(WAIT_S)
        assert stream.dropped_lines == 5
    finally:
        os.close(descriptor)


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    stream = BackgroundStream(pipe[1], missing)
    os.close(pipe[0])
    stream.write("a line\n")
    assert stream.drain(WAIT_S)
    assert stream.dropped_lines == 1


def test_a_line_that_was_cut_off_is_ended_before_the_next_one(pipe: tuple[int, int], monkeypatch) -> None:
    right, writes = os.write, []

    def full_in_the_middle(descriptor: int, data: memoryview) -> int:
        writes.append(len(data))
        if len(writes) == 1:
            return right(descriptor, data[:3])
        if len(writes) == 2:
            raise OSError(28, "No space left on device")
        return right(descriptor, data)

    monkeypatch.setattr(os, "write", full_in_the_middle)
    stream = BackgroundStream(pipe[1], missing)
    stream.write("first line\n")
    assert stream.drain(WAIT_S)
    stream.write("second line\n")
    assert stream.drain(WAIT_S)
    assert os.read(pipe[0], 65536).decode() == "fir\n<1 missing>\nsecond line\n"


def test_a_descriptor_that_does_not_wait_is_waited_for(pipe: tuple[int, int]) -> None:
    junk = fill(pipe[1])
    os.set_blocking(pipe[1], False)
    stream = BackgroundStream(pipe[1], missing)
    stream.write("a line\n")
    read_exactly(pipe[0], junk)
    assert stream.drain(WAIT_S)
    assert os.read(pipe[0], 65536) == b"a line\n" and stream.dropped_lines == 0


def test_a_process_ends_although_its_last_lines_cannot_go_out(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    program = (
        "import sys, logging; from pydbt.cli import responsive\n"
        "responsive.LAST_LINES_S = 0.1; responsive.write_in_background(); print('line', file=sys.stderr)\n"
        "responsive.finish_writing(); sys.exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", program], stderr=pipe[1], timeout=60)
    assert done.returncode == 7

"""What has any size is read with as much memory as there is content, and never beyond what is allowed."""

from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.posix.reading import read_at_most


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(0, 400), st.integers(1, 50))
def test_all_of_it_is_read_or_it_is_too_large(content: bytes, most: int, expected: int, at_once: int) -> None:
    file = io.BytesIO(content)
    found = read_at_most(lambda count: file.read(min(count, at_once)), most, expected)
    assert found == (content if len(content) <= most else None)


def test_a_small_file_takes_little_memory_however_large_the_limit_is() -> None:
    tracemalloc.start()
    try:
        assert read_at_most(io.BufferedReader(io.BytesIO(b"words")).read, 8 << 40, 5) == b"words"
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_of_what_has_no_end_no_more_than_a_piece_too_much_is_read() -> None:
    asked: list[int] = []

    def read(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    assert read_at_most(read, 3 << 20) is None
    assert sum(asked) == (3 << 20) + 1


@pytest.mark.parametrize("grown", [0, 1, 3 << 20])
def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(grown: int) -> None:
    content = bytes(1000) + b"x" * grown
    assert read_at_most(io.BytesIO(content).read, 8 << 20, 1000) == content

"""The bitmaps are counted part by part as a naive count has it, also where whole groups are set, and never after their end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.errors import StateError
from pydbt.kernel import bitmaps as bitmaps_module
from pydbt.kernel.bitmaps import Bitmaps
from pydbt.kernel.pins import MapLayout
from pydbt.kernel.record import GROUP_BLOCKS, GROUP_WORDS

GROUPS = 3
WORDS = GROUPS * GROUP_WORDS
BLOCKS = WORDS * 64 - 100
LAYOUT = MapLayout(WORDS, 1, WORDS + GROUP_WORDS)


@pytest.fixture
def opened() -> Iterator[tuple[int, Bitmaps]]:
    """Bitmaps of three groups in memory: the file, and the reader."""
    descriptor = os.memfd_create("bits")
    os.ftruncate(descriptor, 2 * LAYOUT.map_words * 8)
    made = Bitmaps(descriptor, LAYOUT)
    yield descriptor, made
    os.close(descriptor)


def put(descriptor: int, index: int, blocks: set[int], groups: set[int]) -> None:
    bits = np.zeros(LAYOUT.map_words * 64, np.uint8)
    bits[list(blocks)] = 1
    bits[[WORDS * 64 + group for group in groups]] = 1
    os.pwrite(descriptor, np.packbits(bits, bitorder="little").tobytes(), index * LAYOUT.map_words * 8)


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, BLOCKS - 1), max_size=30),
    st.sets(st.integers(0, GROUPS - 1)),
    st.lists(st.integers(0, BLOCKS), min_size=2, max_size=8, unique=True).map(sorted),
    st.sampled_from([64, 1 << 23]),
)
def test_each_range_has_as_many_bits_as_a_naive_count_finds(
    blocks: set[int], groups: set[int], edges: list[int], step: int
) -> None:
    descriptor = os.memfd_create("bits")
    os.ftruncate(descriptor, 2 * LAYOUT.map_words * 8)
    put(descriptor, 1, blocks, groups)
    naive = np.zeros(WORDS * 64, bool)
    naive[list(blocks)] = True
    for group in groups:
        naive[group * GROUP_BLOCKS : (group + 1) * GROUP_BLOCKS] = True
    made = Bitmaps(descriptor, LAYOUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitmaps_module, "_COUNT_STEP_BITS", step)
        counted = made.counts(1, np.array(edges)).tolist()
    assert counted == [int(naive[low:high].sum()) for low, high in pairwise(edges)]
    assert not made.counts(0, np.array(edges)).any()
    made.close()
    os.close(descriptor)


def test_a_count_after_the_end_is_refused_and_touches_no_memory(opened: tuple[int, Bitmaps]) -> None:
    _, bitmaps = opened
    bitmaps.close()
    with pytest.raises(StateError, match="ending"):
        bitmaps.counts(0, np.array([0, 64]))


def test_the_end_waits_for_a_count_under_way(opened: tuple[int, Bitmaps], monkeypatch: pytest.MonkeyPatch) -> None:
    _, bitmaps = opened
    counting, go_on, order = threading.Event(), threading.Event(), []

    def held(bits: object, low: int, high: int) -> int:
        counting.set()
        assert go_on.wait(20)
        order.append("counted")
        return 0

    monkeypatch.setattr(bitmaps_module, "_count_range", held)
    asker = threading.Thread(target=bitmaps.counts, args=(0, np.array([0, 64])))
    asker.start()
    assert counting.wait(20)

    def end() -> None:
        bitmaps.close()
        order.append("closed")

    ender = threading.Thread(target=end)
    ender.start()
    go_on.set()
    asker.join(20)
    ender.join(20)
    assert order == ["counted", "closed"]

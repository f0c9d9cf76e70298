"""A secondary tells which blocks it got last, the latest first, each once, and keeps no more of that than it may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.sector_table import ExtentKind, SectorTable
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.recent import RECENT_WRITES, Recall, Recent
from pydbt.core.protocol.unit_rows import MAX_DIGESTS
from pydbt.core.secondary import events as e
from pydbt.core.secondary import recent_writes
from pydbt.core.secondary.recent_writes import LONGEST_UNITS, RecentWrites
from pydbt.core.units import GIB
from tests.core.secondary.test_brain import HELLO, Play, blocks, stream
from tests.core.secondary.test_kept_aside import sent

SIZE = 1 << 30


def units_of(recent: RecentWrites, limit_bytes: int = GIB) -> list[int]:
    told = recent.told(Recall(limit_bytes), SIZE)
    assert told.unit_bytes == 4096
    return told.units.blocks().tolist()


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 999), st.integers(1, 40)), max_size=4), max_size=12), st.integers(0, 60)
)
def test_the_latest_come_first_and_each_of_them_once(frames: list[list[tuple[int, int]]], most: int) -> None:
    recent = RecentWrites()
    expected: list[int] = []
    for frame in frames:
        recent.written(SectorTable.of([row[0] for row in frame], [row[1] for row in frame]))
        for sector, sectors in frame:
            units = list(range(sector // 8, (sector + sectors - 1) // 8 + 1))
            expected = units + [unit for unit in expected if unit not in units]
    assert units_of(recent) == expected
    assert units_of(recent, most * 4096) == expected[:most]


def test_runs_are_told_as_runs() -> None:
    recent = RecentWrites()
    recent.written(SectorTable.of([80], [80]))
    recent.written(SectorTable.of([0, 96], [16, 8]))
    told = recent.told(Recall(GIB), SIZE).units
    assert list(zip(told.firsts.tolist(), told.counts.tolist(), strict=True)) == [(12, 1), (0, 2), (10, 2), (13, 7)]


def test_discards_are_left_out_and_long_zeros_hide_nothing_that_was_written_before() -> None:
    recent = RecentWrites()
    recent.written(SectorTable.of([8], [8]))
    recent.written(SectorTable.of([16], [8], [ExtentKind.DISCARD]))
    recent.written(SectorTable.of([80], [0xFFFF_FFFF], [ExtentKind.ZERO]))
    told = units_of(recent)
    assert told[0] == 10 and told[-1] == 1 and len(told) == LONGEST_UNITS + 1


def test_the_oldest_of_too_many_recent_writes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_writes, "MAX_RECENT_EXTENTS", 5)
    recent = RecentWrites()
    for number in range(6):
        recent.written(SectorTable.of([number * 16, number * 16 + 8], [8, 8]))
    assert units_of(recent) == [11, 10, 9, 8], "whole frames"


def test_an_answer_is_one_that_a_frame_can_carry() -> None:
    recent = RecentWrites()
    firsts = np.arange(60_000, dtype=np.int64) * 80
    for _ in range(3):
        recent.written(SectorTable.of(firsts, 80))  # 600,000 units
    told = recent.told(Recall(1 << 60), 1 << 42)
    assert told.units.total() <= MAX_DIGESTS // 10 * 10 and told.units.blocks()[0] == firsts[-1] // 8
    assert len(recent._tables) == 1


def test_the_blocks_received_last_are_told_to_a_primary_that_asks() -> None:
    play = Play(hello=replace(HELLO, epoch=HELLO.epoch))
    assert RECENT_WRITES in play.welcome.features
    assert sent(play.frame(Recall(GIB))) == [Recent(RecentWrites().told(Recall(GIB), SIZE).units, 4096)], "nothing yet"
    play.frame(stream(11, 12))
    play.frame(stream(11, 12))
    assert sent(play.frame(Recall(GIB)))[0].units.blocks().tolist() == [0]
    play(e.RoomMeasured(1 << 40))
    again = Play(hello=HELLO)
    again.brain.watch.recent = play.brain.watch.recent
    assert sent(again.frame(Recall(GIB)))[0].units.blocks().tolist() == [0], "it lives longer than a brain"


def test_blocks_of_a_resynchronization_are_no_recent_writes() -> None:
    play = Play()
    play(e.RoomMeasured(1 << 40))
    play.frame(f.Begin(1, 7, 0))
    play.frame(blocks(1))
    assert not sent(play.frame(Recall(GIB)))[0].units.total()

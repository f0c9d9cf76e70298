"""Writes past the journal: durable after a sync that came later, and synced when that is worth its cost."""

from __future__ import annotations

import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol import frames as f
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.direct_writes import DirectWrite, DirectWrites

SIZE = 1 << 20


def direct_write(ticket: int, payload_bytes: int = 4096) -> DirectWrite:
    table = SectorTable.of([0], [payload_bytes // 512])
    return DirectWrite(ticket, f.Blocks(ticket, table, (bytes(payload_bytes),)), 1)


def test_direct_writes_are_durable_after_a_later_sync_and_not_before() -> None:
    writes = DirectWrites(SecondaryConfig(SIZE))
    for ticket in (1, 2, 4):
        writes.add(direct_write(ticket))
    writes.written(2)
    assert writes.under_way and not writes.none_left
    assert [write.ticket for write in writes.made_durable(2)] == [1]
    writes.written(4)
    assert [write.ticket for write in writes.made_durable(5)] == [2, 4]
    assert writes.none_left


def test_little_waits_for_its_time_and_much_does_not() -> None:
    config = SecondaryConfig(SIZE, sync_bytes=16384, sync_seconds=0.1)
    writes = DirectWrites(config)
    assert not writes.wants_sync(0.0) and writes.deadline() is None
    writes.add(direct_write(1, 2048))
    writes.written(1)
    assert writes.wants_sync(0.0), "the first one at once"
    writes.synced(1.0)
    assert not writes.wants_sync(1.05) and writes.deadline() == pytest.approx(1.1)
    assert writes.wants_sync(1.11)
    writes.add(direct_write(2, 8192))
    writes.written(2)
    assert writes.wants_sync(1.05), "a quarter of much, and nothing under way"
    writes.add(direct_write(3))
    assert not writes.wants_sync(5.0), "more is coming, and it is not much"

"""Tables of extents: zero runs become ZERO extents, neighbours merge, the last writer wins; the content never changes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.apply_plan import WIDE_ZERO_SECTORS, ZEROS, plan, sources_of
from pydbt.core.blocks.sector_table import (
    ExtentKind,
    SectorTable,
)

SECTORS = 64


@st.composite
def writes(draw: st.DrawFn, neighbours: bool = False) -> tuple[SectorTable, bytes]:
    """A table within a small volume and its payload; sectors of payload are often zero."""
    rows, payload, at = [], b"", 0
    for _ in range(draw(st.integers(0, 12))):
        sector = at if neighbours and draw(st.booleans()) else draw(st.integers(0, SECTORS - 12))
        count = draw(st.integers(1, 10))
        kind = draw(st.sampled_from([1, 1, 1, 2, 3]))
        rows.append((sector, count, kind))
        at = min(sector + count, SECTORS - 12)
        if kind == ExtentKind.DATA:
            payload += b"".join(bytes([value]) * 512 for value in draw(st.lists(st.sampled_from([0, 0, 1, 2]),
                                                                               min_size=count, max_size=count)))  # fmt: skip
    return SectorTable.of([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]), payload


def applied(table: SectorTable, payload: bytes) -> bytes:
    """What a volume of 0xee holds after a table, done one extent at a time."""
    volume, at = bytearray(b"\xee" * (SECTORS * 512)), 0
    for sector, sectors, kind in zip(table.first_sectors, table.lengths_sectors, table.kinds, strict=True):
        begin, length = int(sector) * 512, int(sectors) * 512
        if kind == ExtentKind.DATA:
            volume[begin : begin + length] = payload[at : at + length]
            at += length
        else:
            volume[begin : begin + length] = bytes(length)
    assert at == len(payload)
    return bytes(volume)


@given(writes(neighbours=True), st.sampled_from([512, 1024, 4096]))
def test_splitting_zero_runs_changes_no_content(write, granule):
    table, payload = write
    split, pieces = table.split_zeros(payload, granule)
    rest = b"".join(pieces)
    split.check()
    assert split.payload_bytes == len(rest)
    assert applied(split, rest) == applied(table, payload)


def test_zero_blocks_of_neighbouring_writes_become_one_extent():
    table = SectorTable.of([0, 8, 16], [8, 8, 8])
    split, pieces = table.split_zeros(b"x" * 4096 + bytes(8192), 4096)
    assert split.kinds.tolist() == [1, 2]
    assert split.lengths_sectors.tolist() == [8, 16]
    assert [len(piece) for piece in pieces] == [4096]


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 6))
def test_a_run_of_zeros_stays_in_the_payload_only_if_it_is_shorter_than_a_granule(zero, granule_sectors):
    payload = b"".join(bytes(512) if is_zero else b"x" * 512 for is_zero in zero)
    split, pieces = SectorTable.of([0], [len(zero)]).split_zeros(payload, granule_sectors * 512)
    longest = max(map(len, "".join(".0"[is_zero] for is_zero in zero).split(".")))
    assert (ExtentKind.ZERO in split.kinds) == (longest >= granule_sectors)
    assert all(bytes(granule_sectors * 512) not in bytes(piece) for piece in pieces)


def test_sequences_of_a_stream_keep_their_own_extents():
    table = SectorTable.of([0, 8], [8, 8], 1, [0, 1])
    split, _ = table.split_zeros(bytes(8192), 4096)
    assert split.sequence_deltas.tolist() == [0, 1]


def test_payload_without_zeros_comes_back_as_it_is():
    payload = b"x" * 4096
    _, pieces = SectorTable.of([0], [8]).split_zeros(payload, 4096)
    assert len(pieces) == 1 and pieces[0].obj is payload


@given(writes(neighbours=True))
def test_merging_changes_no_content(write):
    table, payload = write
    merged = table.merge_adjacent()
    assert applied(merged, payload) == applied(table, payload)
    same = (merged.kinds[1:] == merged.kinds[:-1]) & (
        merged.first_sectors[:-1] + merged.lengths_sectors[:-1] == merged.first_sectors[1:]
    )
    assert not same.any()


@given(writes(neighbours=True))
def test_planned_writes_leave_what_writes_in_order_would(write):
    table, payload = write
    volume = bytearray(b"\xee" * (SECTORS * 512))
    for runs in plan(table, sources_of(table, 7)):
        assert (runs.sectors[1:] >= runs.sectors[:-1] + runs.lengths_sectors[:-1]).all(), "disjoint and ascending"
        for sector, count, source in zip(runs.sectors, runs.lengths_sectors, runs.sources, strict=True):
            data = bytes(count * 512) if source == ZEROS else (b"#" * 7 + payload)[source : source + count * 512]
            volume[sector * 512 : (sector + count) * 512] = data
    assert bytes(volume) == applied(table, payload)


def test_wide_zero_extents_keep_their_place_between_writes_and_cost_no_memory():
    wide = 1 << 31
    assert wide > WIDE_ZERO_SECTORS
    table = SectorTable.of([5, 0, 5], [1, wide, 1], [1, 3, 1])
    steps = list(plan(table, sources_of(table, 0)))
    assert [(r.sectors.tolist(), r.lengths_sectors.tolist(), r.sources.tolist()) for r in steps] == [
        ([5], [1], [0]),
        ([0], [wide], [ZEROS]),
        ([5], [1], [512]),
    ]


@pytest.mark.parametrize("row", [(0, 0, 1, 0), (0, 1, 0, 0), (0, 1, 4, 0), (1 << 60, 1, 1, 0), (0, 1, 1, 1)])
def test_an_illegal_row_is_refused(row):
    table = SectorTable.from_bytes(struct.pack("<QIBBH", *row, 0))
    with pytest.raises(ValueError, match="extent"):
        table.check()


def test_sums_do_not_overflow():
    table = SectorTable.of([0, 0], [0xFFFFFFFF, 0xFFFFFFFF])
    assert table.payload_bytes == 2 * 0xFFFFFFFF * 512
    assert table.end_sector == 0xFFFFFFFF
    assert SectorTable.of([], []).end_sector == 0

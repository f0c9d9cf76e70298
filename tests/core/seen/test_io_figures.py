"""Counts of the programs become rates, heat maps and a decision how many I/Os are timed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.seen.io_figures import (
    CELLS,
    FEW_PER_S,
    FIGURES,
    MANY_PER_S,
    SAMPLED_EVERY,
    SIZES,
    IoSecond,
    cell_shift,
    difference,
    every_for,
    latency_heat,
    offset_heat,
    operations_report,
    summed,
)
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.latency import counts_of

PROGRAM = (Path(__file__).resolve().parents[3] / "bpf" / "block_io.bpf.c").read_text()


def figures(**of_writes: object) -> np.ndarray:
    found = np.zeros(len(OPERATIONS), FIGURES)
    for name, value in of_writes.items():
        found[1][name] = value
    return found


def test_the_figures_are_laid_out_as_in_the_program() -> None:
    struct = re.search(r"struct pydbt_io_figures \{(.*?)\n\};", PROGRAM, re.DOTALL)
    assert struct is not None
    names = re.findall(r"^\tu64 (\w+)", struct[1], re.MULTILINE)
    assert tuple(names) == FIGURES.names
    for name, value in (("CELLS", CELLS), ("SIZES", SIZES)):
        assert f"#define {name} {value}" in PROGRAM
    assert "enum { QUEUE, DEVICE, TOTAL, PARTS };" in PROGRAM and PARTS == ("queue", "device", "total")
    assert "enum { CLASS_READ, CLASS_WRITE, CLASS_FLUSH, CLASS_DISCARD, CLASSES };" in PROGRAM


@given(st.integers(1, 1 << 40))
def test_a_device_has_at_most_as_many_cells_as_there_are_and_more_than_half_of_them(sectors: int) -> None:
    cells = -(-sectors >> cell_shift(sectors))
    used = -(-sectors // (1 << cell_shift(sectors)))
    assert cells <= CELLS and used <= CELLS
    assert used > CELLS // 2 or cell_shift(sectors) == 0


def test_an_interval_is_the_difference_of_two_readings_and_intervals_add_up() -> None:
    sizes = np.zeros(SIZES, np.uint64)
    sizes[3] = 6
    first, second = figures(count=4, bytes=16384), figures(count=10, bytes=40960, sizes=sizes)
    between = difference(second, first)
    assert between[1]["count"] == 6 and between[1]["bytes"] == 24576 and between[1]["sizes"][3] == 6
    assert (summed([first, between]) == second).all()


def test_rates_sizes_and_percentiles_of_an_interval() -> None:
    sizes = np.zeros(SIZES, np.uint64)
    sizes[3], sizes[11] = 99, 1
    latency = np.zeros((len(PARTS), 256), np.uint64)
    latency[1] = counts_of(np.full(100, 50_000, np.uint64))
    report = operations_report(figures(count=100, bytes=1 << 20, sequential=60, sizes=sizes, latency=latency), 2.0)
    write = report["write"]
    assert write["per_second"] == 50 and write["bytes_per_second"] == 1 << 19
    assert (write["sequential"], write["random"]) == (60, 40)
    assert write["sizes"] == [[4096, 99], [1 << 20, 1]]
    assert write["timed"] == 100
    assert write["latency_ns"]["queue"]["p50"] is None, "a queue time that nobody measured is unknown, not 0"
    assert 45_000 < write["latency_ns"]["device"]["p99"] < 55_000
    assert report["read"]["per_second"] == 0


def test_no_interval_has_no_rate() -> None:
    assert operations_report(figures(count=5, bytes=5), 0.0)["write"]["per_second"] == 0


def test_the_heat_map_of_latencies_has_a_column_per_interval_and_loses_no_io() -> None:
    latency = np.zeros((len(PARTS), 256), np.uint64)
    latency[PARTS.index("total")] = counts_of(np.array([100, 300, 10_000, 5_000_000, 1 << 50], np.uint64))
    heat = latency_heat([IoSecond(1.0, 1.0, figures()), IoSecond(2.0, 1.0, figures(latency=latency))])
    columns = heat["columns"]["write"]
    assert [sum(column) for column in columns] == [0, 5]
    assert len(columns[1]) == len(heat["edges_ns"])
    rows = [heat["edges_ns"][at] for at, number in enumerate(columns[1]) if number]
    assert rows == [0, 256, 8192, 4194304, 1 << 39]
    assert heat["columns"]["read"] == []


def test_the_heat_map_of_offsets_covers_the_device_and_no_more() -> None:
    sectors = 1000 * 2048
    cells = np.zeros(CELLS, np.uint64)
    cells[0], cells[124] = 8, 16
    heat = offset_heat([IoSecond(1.0, 1.0, figures(bytes=24 * 512, cells=cells))], sectors)
    (column,) = heat["columns"]["write"]
    assert heat["cells"] * heat["cell_bytes"] >= sectors * 512 > (heat["cells"] - 1) * heat["cell_bytes"]
    assert column[0] == 4096 and column[124] == 8192 and sum(column) == 24 * 512
    assert heat["columns"]["discard"] == []


@pytest.mark.parametrize(
    "per_second, before, every",
    [
        (0, 1, 1),
        (MANY_PER_S, 1, 1),
        (MANY_PER_S + 1, 1, SAMPLED_EVERY),
        (FEW_PER_S + 1, SAMPLED_EVERY, SAMPLED_EVERY),
        (FEW_PER_S + 1, 1, 1),
        (FEW_PER_S, SAMPLED_EVERY, 1),
    ],
)
def test_under_load_one_io_in_eight_is_timed(per_second: float, before: int, every: int) -> None:
    assert every_for(per_second, before) == every

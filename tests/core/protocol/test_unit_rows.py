"""Runs of units as rows: encoded runs come back, and a row that counts no units is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.blocks.runs import Runs
from pydbt.core.protocol.frames import Want
from pydbt.core.protocol.unit_rows import MAX_DIGESTS, decode_units, encode_units


@given(st.lists(st.tuples(st.integers(0, 1 << 54), st.integers(0, (1 << 32) - 1)), max_size=9))
def test_rows_come_back_as_the_runs_they_were(rows: list[tuple[int, int]]) -> None:
    runs = Runs(np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.int64))
    again = decode_units(encode_units(runs))
    assert again.firsts.tolist() == runs.firsts.tolist() and again.counts.tolist() == runs.counts.tolist()


@pytest.mark.parametrize(
    "row", [(0, 1, 2, 0, 0), (0, 1, 0, 0, 0), (0, 1, 1, 1, 0), (0, 1, 1, 0, 1), ((1 << 54) + 1, 1, 1, 0, 0),
            ((1 << 64) - 1, 1, 1, 0, 0)],
)  # fmt: skip
def test_a_row_that_can_be_no_run_is_refused(row: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="run of units"):
        decode_units(struct.pack("<QIBBH", *row))


@pytest.mark.parametrize(
    "runs",
    [Runs(np.array([0]), np.array([0])), Runs(np.array([0]), np.array([MAX_DIGESTS + 1])),
     Runs(np.array([-1]), np.array([1])), Runs(np.array([(1 << 54) + 1]), np.array([1])),
     Runs(np.arange(MAX_DIGESTS + 1), np.ones(MAX_DIGESTS + 1, np.int64))],
)  # fmt: skip
def test_runs_that_no_frame_may_carry_are_refused(runs: Runs) -> None:
    with pytest.raises(ValueError, match=r"runs?|units"):
        Want(1, runs)

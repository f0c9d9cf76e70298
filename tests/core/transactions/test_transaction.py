"""What a transaction names is kept in the order in which it was named, and in bounded memory."""

from __future__ import annotations

import numpy as np

from pydbt.core.transactions.transaction import RunsOfTransaction, runs_of_blocks

MOST_RUNS = 32_768


def test_many_small_parts_stay_in_their_order() -> None:
    runs = RunsOfTransaction()
    for number in range(600):
        runs.add(runs_of_blocks(np.array([number], np.int64), 4096))
    assert runs.whole
    assert runs.together().tolist() == [[number * 4096, 4096] for number in range(600)]


def test_what_is_named_beyond_the_bound_is_left_out_and_that_is_told() -> None:
    runs = RunsOfTransaction()
    numbers = np.arange(MOST_RUNS + 10, dtype=np.int64)
    runs.add(runs_of_blocks(numbers[:5], 1024))
    assert runs.whole
    runs.add(runs_of_blocks(numbers[5:], 1024))
    runs.add(runs_of_blocks(numbers, 1024))
    assert not runs.whole
    assert runs.together()[:, 0].tolist() == (numbers[:MOST_RUNS] * 1024).tolist()


def test_a_number_that_no_volume_can_have_names_nothing() -> None:
    assert runs_of_blocks(np.array([-1, 3, 1 << 60], np.int64), 1024).tolist() == [[3072, 1024]]
    assert not len(RunsOfTransaction().together())

"""The blocks that a transaction names are kept in their order, and in bounded memory."""

from __future__ import annotations

import numpy as np

from pydbt.core.transactions.transaction import RunsOfTransaction, runs_of_blocks

MOST_RUNS = 32_768


def test_many_small_parts_stay_in_their_order() -> None:
    runs = RunsOfTransaction()
    for number in range(600):
        runs.add_blocks([number], 4096)
    assert runs.whole
    assert runs.together().tolist() == [[number * 4096, 4096] for number in range(600)]


def test_runs_beyond_the_bound_are_left_out_and_the_list_is_not_called_whole() -> None:
    runs = RunsOfTransaction()
    numbers = list(range(MOST_RUNS + 10))
    runs.add_blocks(numbers[:5], 1024)
    assert runs.whole
    runs.add_blocks(numbers[5:], 1024)
    runs.add_blocks(numbers, 1024)
    assert not runs.whole and runs.count == MOST_RUNS
    assert runs.together()[:, 0].tolist() == [number * 1024 for number in numbers[:MOST_RUNS]]


def test_runs_of_every_length_are_kept_up_to_the_same_bound() -> None:
    runs = RunsOfTransaction()
    for number in range(MOST_RUNS):
        runs.add_run(number * 512, 512)
    assert runs.whole and runs.count == MOST_RUNS
    runs.add_run(0, 4096)
    assert not runs.whole
    assert runs.together().tolist() == [[number * 512, 512] for number in range(MOST_RUNS)]


def test_a_number_that_no_volume_can_have_names_nothing() -> None:
    assert runs_of_blocks([-1, 3, 1 << 60], 1024).tolist() == [[3072, 1024]]
    assert not len(RunsOfTransaction().together())


def test_runs_that_are_added_together_have_the_bound_of_all_others() -> None:
    runs = RunsOfTransaction()
    many = np.stack((np.arange(32_000) * 4096, np.full(32_000, 4096)), axis=1)
    runs.add_run(5, 512)
    runs.add_runs(many)
    assert runs.whole and runs.count == 32_001 and runs.kept() is runs
    runs.add_runs(many)
    assert not runs.whole and runs.count == len(runs.together()) == 32_768
    assert runs.together()[:2].tolist() == [[5, 512], [0, 4096]]

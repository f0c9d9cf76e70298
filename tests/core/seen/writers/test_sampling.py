"""Under load some pages are looked at, and with less of it all of them again: without a time in which nothing is known."""

from __future__ import annotations

from pydbt.core.seen.writers.sampling import (
    FEW_LOOKS_PER_S,
    MANY_LOOKS_PER_S,
    SAMPLED_CHUNKS,
    WRITTEN_OUT_S,
    ChunkSample,
    Sampling,
)

SOME = ChunkSample(SAMPLED_CHUNKS, SAMPLED_CHUNKS)
BETWEEN = (MANY_LOOKS_PER_S + FEW_LOOKS_PER_S) / 2


def test_without_load_every_page_is_looked_at() -> None:
    sampling = Sampling()
    for second in range(100):
        sample = sampling.look(MANY_LOOKS_PER_S, second)
        assert sample == ChunkSample() and not sample.is_partial


def test_under_load_one_chunk_in_some_is_and_it_does_not_flicker() -> None:
    sampling = Sampling()
    assert sampling.look(MANY_LOOKS_PER_S + 1, 0) == SOME and SOME.is_partial
    assert sampling.look(BETWEEN, 1) == SOME


def test_after_the_load_all_are_remembered_at_once_and_looked_up_when_the_others_are_written_out() -> None:
    sampling = Sampling()
    sampling.look(MANY_LOOKS_PER_S + 1, 0)
    assert sampling.look(FEW_LOOKS_PER_S - 1, 10) == ChunkSample(1, SAMPLED_CHUNKS)
    assert sampling.look(BETWEEN, 9 + WRITTEN_OUT_S) == ChunkSample(1, SAMPLED_CHUNKS)
    assert sampling.look(BETWEEN, 10 + WRITTEN_OUT_S) == ChunkSample()


def test_every_page_that_is_looked_up_was_remembered() -> None:
    sampling = Sampling()
    for second, rate in enumerate([0, 99_999, 0, 99_999, BETWEEN, 0, 0, 99_999] * 20):
        sample = sampling.look(rate, second)
        assert sample.looked_up_every % sample.remembered_every == 0


def test_the_number_is_a_power_of_two() -> None:
    assert SAMPLED_CHUNKS & SAMPLED_CHUNKS - 1 == 0

"""Unsettled blocks: read again, or written anew, before they count as settled."""

from __future__ import annotations

import numpy as np

from pydbt.core.tracking.unsettled import DIFFERS_SINCE_EVER, Unsettled


def test_a_block_touched_while_it_is_read_is_read_again():
    unsettled = Unsettled()
    unsettled.add(np.array([4, 5]), sequence=3, now=0.0)
    assert not len(unsettled.take_due(0.5, lambda b: np.zeros(len(b), bool), hurry=False))
    due = unsettled.take_due(1.0, lambda b: np.zeros(len(b), bool), hurry=False)
    unsettled.begin(1, due)
    unsettled.touch(np.array([5]))
    assert not len(unsettled.finish(1, differing=np.array([5]), now=1.0))
    assert unsettled.blocks().tolist() == [5]


def test_a_settled_block_counts_as_unsettled_until_its_content_is_durable_on_the_secondary():
    unsettled = Unsettled()
    unsettled.add(np.array([4, 5]), sequence=3, now=0.0)
    unsettled.begin(1, np.array([4, 5]))
    assert unsettled.finish(1, differing=np.array([4]), now=1.0).tolist() == [4]
    unsettled.sent(np.array([4]), sequence=9)
    unsettled.durable_through(8)
    assert unsettled.oldest_sequence() == 3 and unsettled.blocks().tolist() == [4]
    unsettled.durable_through(9)
    assert not len(unsettled)


def test_a_block_with_a_write_in_flight_is_not_read_for_settling():
    unsettled = Unsettled()
    unsettled.add(np.array([4]), sequence=1, now=0.0)
    assert not len(unsettled.take_due(9.0, lambda b: np.ones(len(b), bool), hurry=True))


def test_a_block_written_anew_is_settled_once_that_is_durable():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.rewritten(block, np.array([5]))
    unsettled.durable_through(4)
    assert unsettled.oldest_sequence() == 3 and unsettled.next_due() is None
    unsettled.durable_through(5)
    assert not len(unsettled)


def test_a_block_unsettled_after_it_was_written_anew_is_so_since_then_only():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.rewritten(block, np.array([5]))
    unsettled.add(block, sequence=6, now=0.0)
    unsettled.rewritten(block, np.array([7]))  # one at a time, or none would ever be durable
    assert unsettled.oldest_sequence() == 3
    unsettled.durable_through(5)
    assert unsettled.oldest_sequence() == 6 and unsettled.next_due() is not None
    unsettled.durable_through(9)
    assert unsettled.oldest_sequence() == 6, "the second one had not been counted on"


def test_a_difference_found_by_a_comparison_is_not_settled_by_what_was_written_before_it():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.rewritten(block, np.array([5]))
    unsettled.add(block, sequence=DIFFERS_SINCE_EVER, now=0.0)
    unsettled.durable_through(9)
    assert unsettled.oldest_sequence() == DIFFERS_SINCE_EVER


def test_a_block_that_is_settled_while_it_is_read_is_not_read_again():
    block, unsettled = np.array([4]), Unsettled()
    unsettled.add(block, sequence=3, now=0.0)
    unsettled.begin(1, block)
    unsettled.touch(block)
    unsettled.rewritten(block, np.array([5]))
    assert not len(unsettled.finish(1, differing=block, now=1.0)) and unsettled.next_due() is None
    unsettled.durable_through(5)
    assert not len(unsettled)

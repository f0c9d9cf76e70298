"""Waiting: what comes soon is seen soon, and looking takes no more than a part of the time"""

from __future__ import annotations

import pytest

from tests.lab.patience import StepFailed, pause_s, wait_until


def test_the_first_looks_follow_each_other_closely_and_the_later_ones_do_not():
    assert pause_s(0.0, 0.0) == pause_s(0.1, 0.0) == 0.005
    assert pause_s(0.5, 0.0) == 0.025
    assert pause_s(60.0, 0.0) == 0.15


def test_a_look_that_takes_long_takes_a_fifth_of_the_time_at_most():
    assert pause_s(0.0, 0.05) == pause_s(60.0, 0.05) == 0.2
    assert pause_s(60.0, 30.0) == 0.25, "but what it waits for is seen soon all the same"


def test_what_does_not_come_in_time_is_a_failure_that_names_it():
    looks = []
    with pytest.raises(StepFailed, match="the moon"):
        wait_until(lambda: looks.append(1), "the moon", timeout_s=0.02)
    assert looks

"""A command that waits tells for what, soon and then now and then."""

from __future__ import annotations

import threading
from queue import Queue

from pydbt.cli.tracing.waiting import told_while_waiting
from tests.lab.patience import PATIENCE_S


def test_the_reason_of_a_wait_is_told_again_and_again_and_not_after_the_end() -> None:
    told: Queue[str] = Queue()
    with told_while_waiting("waiting for the disk", told.put, first_s=0.01, again_s=0.01):
        assert [told.get(timeout=PATIENCE_S) for _ in range(3)] == ["waiting for the disk"] * 3
    assert "told-while-waiting" not in {thread.name for thread in threading.enumerate()}, "it goes on after the end"


def test_a_wait_that_is_soon_over_is_not_told() -> None:
    told: Queue[str] = Queue()
    with told_while_waiting("waiting", told.put, first_s=PATIENCE_S):
        pass
    assert told.empty()

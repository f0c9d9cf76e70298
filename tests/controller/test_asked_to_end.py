"""A process that goes from one role to the next is ended by a signal at any moment."""

from __future__ import annotations

import signal
import threading

from pydbt.controller.secondary.asked_to_end import end_by_signals


def test_a_signal_that_comes_between_two_roles_ends_the_second() -> None:
    ended: list[str] = []
    end_by_signals(lambda: ended.append("first"), first=True)
    assert not ended
    signal.raise_signal(signal.SIGTERM)  # its loop is over, and it looks at nothing any more
    assert ended == ["first"]
    end_by_signals(lambda: ended.append("second"))
    assert ended == ["first", "second"]
    signal.raise_signal(signal.SIGINT)
    assert ended == ["first", "second", "second"]


def test_a_process_that_begins_was_asked_by_nobody() -> None:
    ended: list[str] = []
    end_by_signals(lambda: ended.append("first"), first=True)
    signal.raise_signal(signal.SIGTERM)
    end_by_signals(lambda: ended.append("another process"), first=True)
    assert ended == ["first"]


def test_a_thread_leaves_the_signals_to_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: end_by_signals(lambda: None))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before

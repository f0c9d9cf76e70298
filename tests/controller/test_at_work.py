"""A command that takes long says what it is at; one that is over at once says nothing."""

from __future__ import annotations

import logging
import threading

import pytest

from pydbt.controller import at_work
from pydbt.controller.at_work import doing
from tests.lab.patience import until


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(at_work, "FIRST_LINE_S", 0.01)
    monkeypatch.setattr(at_work, "NEXT_LINE_S", 0.01)
    caplog.set_level(logging.INFO)
    return caplog


def messages(told: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in told.records]


def test_the_innermost_words_are_told_again_and_again_until_it_is_over(told: pytest.LogCaptureFixture) -> None:
    with doing("the whole"):
        until(lambda: messages(told).count("the whole") >= 2, "twice")
        with doing(lambda: "a part"):
            until(lambda: messages(told).count("a part") >= 2, "twice")
    until(lambda: not any(thread.name == "at-work" for thread in threading.enumerate()), "the thread ends")
    count = len(messages(told))
    with doing(""):
        assert not at_work._doing[-1]()
    assert len(messages(told)) == count, "nothing is told once it is over"


def test_work_that_is_over_at_once_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(KeyError), doing("it"):
        raise KeyError
    assert not caplog.records and not at_work._doing


def test_a_machine_without_room_for_a_thread_still_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    with doing("it"):
        done = True
    assert done and not at_work._doing

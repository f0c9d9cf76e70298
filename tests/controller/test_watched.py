"""A collector that works while somebody looks begins with a question, and ends by itself; its failure is a sentence."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pydbt.controller.primary import watched
from pydbt.controller.primary.watched import WATCHED_S, WhileWatched
from pydbt.core.errors import MachineError
from tests.lab.patience import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Numbers:
    """A collector: its report is how many turns it had."""

    def __init__(self) -> None:
        self.turns, self.closed = 0, threading.Event()

    def turn(self) -> None:
        self.turns += 1

    def report(self) -> dict[str, Any]:
        return {"turns": self.turns}

    def close(self) -> None:
        self.closed.set()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_INTERVAL_S", 0.001)


def test_nothing_begins_before_the_first_question() -> None:
    begun: list[Numbers] = []
    watching = WhileWatched("numbers", lambda: begun.append(Numbers()) or begun[-1])  # type: ignore[func-returns-value]
    assert not begun
    assert watching.answer() == {"problem": "", "starting": True}
    wait_until(lambda: "turns" in watching.answer(), "a report")
    assert len(begun) == 1 and not begun[0].closed.is_set()
    watching.close()
    assert begun[0].closed.is_set()


def test_a_failed_start_is_tried_again_seldom_and_sooner_when_somebody_asks() -> None:
    begun: list[float] = []
    clock = Clock()

    def begin() -> Numbers:
        begun.append(clock.now)
        raise MachineError("this kernel has no BTF")

    watching = WhileWatched("numbers", begin, clock)
    watching.keep()
    wait_until(lambda: watching.last() == {"problem": "this kernel has no BTF", "running": False}, "it has failed")
    for _ in range(3):
        clock.now += 100
        watching.keep()
        assert not watching.last()["running"]
    watching.answer()
    wait_until(lambda: len(begun) == 2 and not watching.last()["running"], "who asks makes it try again")
    clock.now += 601
    watching.keep()
    wait_until(lambda: len(begun) == 3, "it is tried again")
    watching.close()


def test_the_collection_ends_some_time_after_the_last_question_and_begins_again_with_the_next() -> None:
    begun: list[Numbers] = []
    clock = Clock()

    def begin() -> Numbers:
        begun.append(Numbers())
        return begun[-1]

    watching = WhileWatched("numbers", begin, clock)
    watching.answer()
    wait_until(lambda: begun and begun[0].turns > 2, "it runs")
    clock.now += WATCHED_S - 1
    assert not begun[0].closed.is_set()
    watching.answer()
    clock.now += WATCHED_S - 1
    assert not begun[0].closed.is_set(), "the second question has kept it"
    clock.now += 1
    assert begun[0].closed.wait(30)
    wait_until(lambda: watching.answer()["starting"], "the next question begins anew, without old figures")
    wait_until(lambda: len(begun) == 2, "a second one")
    watching.close()


def test_a_start_that_fails_is_a_problem_and_is_not_tried_every_second() -> None:
    tried: list[int] = []
    clock = Clock()

    def begin() -> Numbers:
        tried.append(1)
        raise MachineError("no headers are installed")

    watching = WhileWatched("numbers", begin, clock)
    watching.answer()
    wait_until(lambda: watching.answer()["problem"] == "no headers are installed", "the problem")
    assert watching.answer() == {"problem": "no headers are installed", "starting": False}
    clock.now += 29
    watching.answer()
    assert len(tried) == 1
    clock.now += 1
    watching.answer()
    wait_until(lambda: len(tried) == 2, "another try")
    watching.close()


def test_a_failure_on_the_way_takes_the_old_figures_away() -> None:
    class Fails(Numbers):
        def turn(self) -> None:
            super().turn()
            if self.turns == 3:
                raise ValueError("a mistake")

    one = Fails()
    watching = WhileWatched("numbers", lambda: one)
    watching.answer()
    assert one.closed.wait(30)
    wait_until(lambda: watching.answer()["problem"], "the problem")
    assert "turns" not in watching.answer() and "ValueError" in watching.answer()["problem"]
    watching.close()


def test_after_the_end_of_its_volume_nothing_begins() -> None:
    begun: list[Numbers] = []
    watching = WhileWatched("numbers", lambda: begun.append(Numbers()) or begun[-1])  # type: ignore[func-returns-value]
    watching.close()
    assert watching.answer() == {"problem": "", "starting": True}
    assert not begun


def test_a_collector_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a look at a file system whose disk does not answer."""
    monkeypatch.setattr(watched, "_END_S", 0.01)
    hangs, answers = threading.Event(), threading.Event()

    class Hangs(Numbers):
        def turn(self) -> None:
            hangs.set()
            answers.wait()

    one = Hangs()
    watching = WhileWatched("numbers", lambda: one)
    watching.answer()
    assert hangs.wait(30)
    watching.close()
    assert "numbers does not end within 0.01 s, and is left behind" in caplog.text and not one.closed.is_set()
    answers.set()
    assert one.closed.wait(30)

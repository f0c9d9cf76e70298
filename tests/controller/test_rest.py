"""A volume that nobody writes to sleeps: records, the inbox and deadlines wake it, and nothing that comes is slept through."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from pydbt.controller.primary import loop as module
from pydbt.controller.primary import rest as rest_module
from pydbt.controller.primary.inbox import Inbox, Wake
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.rest import Rest
from pydbt.controller.requests import Request
from pydbt.core.errors import DeviceError

LONG_S = 600.0


class Bell:
    """The kernel's, as an eventfd."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.asked = 0
        self.waiting = False

    def ask(self) -> None:
        self.asked, self.waiting = self.asked + 1, True

    def quiet(self) -> None:
        self.waiting = False

    def ring(self) -> None:
        if self.waiting:
            os.eventfd_write(self.fd, 1)


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    os.close(made.fd)


@pytest.fixture
def rest(bell: Bell) -> Iterator[Rest]:
    made = Rest(bell)
    yield made
    made.close()


def test_work_that_is_there_already_is_not_slept_on(rest: Rest, bell: Bell) -> None:
    order: list[bool] = []
    rest.wait(LONG_S, lambda: not order.append(bell.waiting))  # type: ignore[func-returns-value]
    assert order == [True], "it is looked for after the bell was asked for"
    assert not bell.waiting


def test_the_kernel_s_bell_ends_the_sleep(rest: Rest, bell: Bell) -> None:
    threading.Timer(0.05, bell.ring).start()
    rest.wait(LONG_S, lambda: False)


def test_something_in_the_inbox_ends_the_sleep_and_does_not_end_the_next_one(rest: Rest) -> None:
    inbox = Inbox()
    inbox.ring = rest.ring
    threading.Timer(0.05, lambda: inbox.post(Wake())).start()
    rest.wait(LONG_S, lambda: not inbox.empty)
    assert inbox.take(0.0) == Wake()
    inbox.post(Wake())
    rest.wait(LONG_S, lambda: not inbox.empty)
    inbox.take(0.0)
    before = time.monotonic()
    rest.wait(0.05, lambda: not inbox.empty)
    assert time.monotonic() - before >= 0.05


def test_a_record_ends_the_moment_in_which_more_of_the_inbox_is_waited_for(
    rest: Rest, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "TOGETHER_S", LONG_S)
    threading.Timer(0.05, rest.ring).start()
    threading.Timer(0.2, bell.ring).start()
    rest.wait(LONG_S, lambda: False)


def test_a_message_right_behind_the_first_is_there_when_the_sleeper_wakes(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "TOGETHER_S", 1.0)
    inbox = Inbox()
    inbox.ring = rest.ring
    for after_s in (0.05, 0.1):
        threading.Timer(after_s, lambda: inbox.post(Wake())).start()
    rest.wait(LONG_S, lambda: not inbox.empty)
    assert (inbox.take(0.0), inbox.take(0.0)) == (Wake(), Wake())


@pytest.fixture
def resting(loop: PrimaryLoop, rest: Rest) -> PrimaryLoop:
    """A loop in sync that sleeps when nothing goes on."""
    loop.rest, loop.volume.inbox.ring, loop.volume.sleeps = rest, rest.ring, True
    for _ in range(50):
        loop.turn(0.0)
        for brain in loop.volume.brains:
            brain.state.in_flight.trust()
    return loop


def test_a_loop_with_nothing_to_do_sleeps_until_the_next_deadline(resting: PrimaryLoop) -> None:
    until = resting._calm_until()
    assert time.monotonic() < until <= time.monotonic() + module.CHECK_INTERVAL_S + module.LATE_S


def test_a_loop_with_something_to_do_does_not_sleep(resting: PrimaryLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(resting.volume), "is_sending", True)
    assert resting._calm_until() < 0
    resting.rest = None
    monkeypatch.undo()
    assert resting._calm_until() < 0, "where nothing would wake it"


def test_a_write_a_command_and_the_end_are_heard_by_a_loop_that_sleeps(resting: PrimaryLoop, bell: Bell) -> None:
    capture = resting.volume.capture
    done = threading.Event()

    def happen() -> None:
        while not bell.asked:
            time.sleep(0.001)
        status = Request("status", threading.Event())
        resting.volume.inbox.post(status)
        assert status.done.wait(60)
        capture.write(4)
        bell.ring()
        while resting.volume.brains[0].state.sequence < 1:
            time.sleep(0.001)
        done.set()
        resting.stop()

    thread = threading.Thread(target=happen)
    thread.start()
    resting.run()
    thread.join(60)
    assert done.is_set() and bell.asked


def test_a_volume_at_rest_is_looked_at_seldom_and_when_somebody_asks(
    resting: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    monkeypatch.setattr(resting, "check_all", looks.append)
    now = time.monotonic()
    resting._checked_at, resting._saves = now, (now - module.SAVE_STATUS_INTERVAL_S, now)
    resting.check(now + 0.001)
    assert not looks
    resting.check(now + module.RESTING_CHECK_S)
    assert len(looks) == 1
    resting.volume.written_at = now - 1
    resting.check(now + 2)
    assert len(looks) == 2, "something was written since the last but one look at what lies below"
    resting._checked_at = now - module.CHECK_INTERVAL_S
    resting._heed(Request("status", threading.Event()))
    assert len(looks) == 3


def test_a_question_at_rest_finds_that_the_source_is_gone(
    resting: PrimaryLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> None:
        raise DeviceError("the disk is gone")

    monkeypatch.setattr(resting.volume.reader, "check", check)
    resting._checked_at -= module.CHECK_INTERVAL_S
    resting._heed(Request("status", threading.Event()))
    assert isinstance(resting.fatal, DeviceError)

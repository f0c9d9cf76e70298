"""Settings of all tests, and the end of what they have registered."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

# An example has no time of its own: a busy machine would fail it. A test that hangs is ended by pytest's own timeout.
settings.register_profile("pydbt", deadline=None)
settings.load_profile("pydbt")


@pytest.fixture(autouse=True)
def no_entry_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Controllers that a test started are registered no longer when it is over."""
    if "tmp_path" not in request.fixturenames:
        yield
        return
    folder = request.getfixturevalue("tmp_path")
    yield
    from tests.lab.entries import forget_below  # only here: tests of decisions do without the product's other rooms

    forget_below(folder)


@pytest.fixture(autouse=True)
def signals_are_heard_as_before() -> Iterator[None]:
    """A part of the program that runs in the process of its test takes Ctrl-C for itself; the next test, and a lane, need it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def commands_are_forked() -> Iterator[None]:
    """From a process that has loaded the program: a start of Python for each costs the most of many tests."""
    from tests.lab.loaded import loaded_once

    with loaded_once():
        yield


@pytest.fixture(autouse=True, scope="session")
def no_entry_is_left_at_the_end(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor are those with a folder that several tests share."""
    yield
    from tests.lab.entries import forget_below

    forget_below(tmp_path_factory.getbasetemp())

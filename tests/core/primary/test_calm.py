"""A brain with nothing going on names the next moment at which something is due, and none that lies in the past."""

from __future__ import annotations

from math import inf

from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import Mode
from tests.core.primary.test_brain import Shell, in_sync


def test_in_sync_with_no_writer_the_next_heartbeat_is_what_comes() -> None:
    shell = in_sync()
    assert shell.brain.calm_until() == shell.brain.link.deadline() > shell.now


def test_a_brain_with_work_in_progress_is_never_calm() -> None:
    shell = in_sync()
    shell.brain.state.in_flight.certain = False
    assert shell.brain.calm_until() == -inf
    shell.brain.state.in_flight.trust()
    shell.write(3, completed=False)
    assert shell.brain.calm_until() == -inf, "a write is in flight"
    starting = Shell()
    starting.answers = False
    starting.connect()
    starting.tick(0.1)
    assert starting.brain.resync is not None and starting.brain.calm_until() == -inf


def test_without_a_secondary_the_next_attempt_or_map_is_what_comes() -> None:
    shell = in_sync()
    shell.feed(ev.Disconnected("cut"))
    assert shell.brain.mode is Mode.UNSYNCHRONIZED
    assert shell.now < shell.brain.calm_until() <= shell.brain.link.deadline()


def test_paused_nobody_is_connected_to_and_the_map_alone_is_due() -> None:
    shell = in_sync()
    shell.feed(ev.PauseAsked())
    shell.tick(60.0)
    assert shell.brain.calm_until() > shell.now > shell.brain.link.deadline()

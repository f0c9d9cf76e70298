"""When the memory of direct writes is watched, and what is told when it is not."""

from __future__ import annotations

import pytest

from pydbt.core.tracking.memory_watch import MEMORY_WATCHES, MemoryWatch


@pytest.mark.parametrize("somebody", [False, True])
def test_on_and_off_do_not_depend_on_programs_that_change_their_memory(somebody: bool) -> None:
    on, off = MemoryWatch("on", possible=True), MemoryWatch("off", possible=True)
    assert on.is_on and not off.is_on
    on.look(somebody)
    off.look(somebody)
    assert on.is_on and not off.is_on


def test_auto_watches_until_nobody_was_seen_and_for_good_once_somebody_was() -> None:
    auto = MemoryWatch("auto", possible=True)
    assert auto.is_on, "nobody has looked yet"
    auto.look(False)
    assert not auto.is_on
    auto.look(True)
    auto.look(False)
    assert auto.is_on


@pytest.mark.parametrize("asked", MEMORY_WATCHES)
def test_a_kernel_that_cannot_watch_memory_is_told_of(asked: str) -> None:
    watch = MemoryWatch(asked, possible=False)
    watch.look(True)
    assert not watch.is_on and watch.asks
    assert "this kernel cannot" in watch.guest_notice(True) and "this kernel cannot" in watch.swap_words()


def test_the_operator_of_guests_is_told_when_it_is_off_and_not_else() -> None:
    off, on, auto = (MemoryWatch(asked, possible=True) for asked in ("off", "on", "auto"))
    auto.look(True)
    assert "watch-memory is off" in off.guest_notice(True) and not off.guest_notice(False)
    assert not on.guest_notice(True) and not auto.guest_notice(True)
    assert "read again" in on.swap_words() and "can differ" in off.swap_words()
    assert off.asks and auto.asks and not on.asks


@pytest.mark.parametrize("asked", MEMORY_WATCHES)
def test_where_blocks_are_read_and_no_write_is_copied_nothing_is_to_be_watched(asked: str) -> None:
    watch = MemoryWatch(asked, possible=False, needed=False)
    assert not watch.asks and not watch.guest_notice(True) and "read again" in watch.swap_words()

"""Times out of normal: one line for a brief one, a line in time for a long one, and none is left out of the count."""

from __future__ import annotations

from pydbt.core.primary.excursions import BRIEF_S, Excursions
from pydbt.core.primary.modes import Mode

FULL = "log full: a write's data found no room in the ring"


def lines(told: list[tuple[str, str]]) -> list[str]:
    return [line for level, line in told if level != "debug"]


def left(excursions: Excursions, now: float, reason: str = FULL, by_load: bool = True) -> list[str]:
    return lines(excursions.moved(Mode.NORMAL, Mode.UNSYNCHRONIZED, reason, now, by_load=by_load))


def test_a_brief_excursion_is_told_when_it_is_over_and_in_one_line() -> None:
    here = Excursions()
    assert left(here, 10.0) == [] and here.level == "debug"
    assert lines(here.moved(Mode.UNSYNCHRONIZED, Mode.RESYNCHRONIZING, "available", 10.5, by_load=False)) == []
    assert here.overdue(10.0 + BRIEF_S) == []
    (line,) = lines(here.moved(Mode.RESYNCHRONIZING, Mode.NORMAL, "in sync", 12.0, by_load=False))
    assert line == f"normal again after 2.0 s ({FULL}); once out of normal in this run"
    assert here.count == 1 and here.level == "info"


def test_an_excursion_that_lasts_is_told_while_it_lasts_and_then_as_any_other() -> None:
    here = Excursions()
    left(here, 10.0)
    assert lines(here.overdue(10.1 + BRIEF_S)) == [f"not in sync for 5.1 s: {FULL}"]
    assert here.overdue(60.0) == []
    (line,) = lines(here.moved(Mode.UNSYNCHRONIZED, Mode.RESYNCHRONIZING, "available", 60.0, by_load=False))
    assert line == "unsynchronized -> resynchronizing: available"
    (line,) = lines(here.moved(Mode.RESYNCHRONIZING, Mode.NORMAL, "in sync", 70.0, by_load=False))
    assert line == "resynchronizing -> normal: in sync, after 60.0 s; once out of normal in this run"


def test_the_loss_of_a_connection_is_told_at_once_as_a_warning() -> None:
    here = Excursions()
    told = here.moved(Mode.NORMAL, Mode.UNSYNCHRONIZED, "cut", 0.0, by_load=False)
    assert told == [("warning", "normal -> unsynchronized: cut")]
    paused = Excursions().moved(Mode.NORMAL, Mode.PAUSED, "paused by the operator", 0.0, by_load=False)
    assert [level for level, _ in paused] == ["info"], "it was asked for"
    assert here.overdue(100.0) == []
    here.moved(Mode.RESYNCHRONIZING, Mode.NORMAL, "in sync", 1.0, by_load=False)
    assert left(here, 2.0, "cut", by_load=False) and here.count == 2


def test_a_pause_in_the_middle_of_a_brief_excursion_is_told_with_its_cause() -> None:
    here = Excursions()
    left(here, 10.0)
    told = lines(here.moved(Mode.UNSYNCHRONIZED, Mode.PAUSED, "paused by the operator", 11.0, by_load=False))
    assert told == [f"not in sync for 1.0 s: {FULL}", "unsynchronized -> paused: paused by the operator"]


def test_the_first_copy_is_no_time_out_of_normal() -> None:
    here = Excursions()
    told = lines(here.moved(Mode.INITIAL_SYNC, Mode.NORMAL, "in sync", 1.0, by_load=False))
    assert told == ["initial-sync -> normal: in sync"] and here.count == 0

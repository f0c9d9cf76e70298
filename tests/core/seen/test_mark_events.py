"""A mark is an event when it is held, or may not be, of each secondary; an earlier mark at a start is no news."""

from __future__ import annotations

from typing import Any

from pydbt.core.seen import event_names as names
from pydbt.core.seen.changes import Changes
from pydbt.core.seen.view import View

HELD, LOST = (names.MARK_HELD, "a"), (names.MARK_LOST, "a")


def primary(
    held_by: tuple[str, ...] = (),
    not_held_by: tuple[str, ...] = (),
    number: str = "9",
    perhaps_held_by: tuple[str, ...] = (),
) -> View:
    mark = {
        "name": "a", "number": number, "held_by": list(held_by), "not_held_by": list(not_held_by),
        "perhaps_held_by": list(perhaps_held_by),
    }  # fmt: skip
    secondaries = [{"secondary": name, "mode": "normal", "replica_state": "up-to-date"} for name in ("x:1", "y:1")]
    return View({"role": "primary", "secondaries": secondaries, "marks": [mark]})


def told(changes: Changes, status: View, at: float) -> list[tuple[Any, ...]]:
    wanted = (names.MARK_HELD, names.MARK_LOST)
    return [
        (one.name, one.figures["mark"], one.figures.get("secondary"))
        for one in changes.look(status, at)
        if one.name in wanted
    ]


def test_a_mark_is_told_of_each_secondary_that_holds_it_or_may_not() -> None:
    changes = Changes()
    assert not told(changes, primary(("x:1", "y:1")), 0.0), "those before the start are known"
    assert not told(changes, primary(number="10"), 1.0), "it is on its way"
    assert told(changes, primary(("x:1",), number="10"), 2.0) == [(*HELD, "x:1")]
    assert told(changes, primary(("x:1",), ("y:1",), "10"), 3.0) == [(*LOST, "y:1")]
    assert told(changes, primary(("x:1", "y:1"), number="10"), 4.0) == [(*HELD, "y:1")]
    unknown = primary(("x:1",), number="11", perhaps_held_by=("y:1",))
    assert told(changes, unknown, 5.0) == [(*HELD, "x:1"), (*LOST, "y:1")], "it is unknown, and a person should look"
    assert not told(changes, primary(("x:1",), ("y:1",), "11"), 6.0), "it was told before"


def test_a_secondary_tells_the_marks_that_it_holds() -> None:
    changes = Changes()
    assert not told(changes, View({"role": "secondary", "marks": []}), 0.0)
    status = View({"role": "secondary", "marks": [{"name": "a", "number": "9"}]})
    assert told(changes, status, 1.0) == [(*HELD, None)] and not told(changes, status, 2.0)
    assert not told(changes, View({"role": "secondary", "marks": []}), 3.0)

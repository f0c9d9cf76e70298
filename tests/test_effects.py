"""Every effect that a brain can ask for is carried out in exactly one place, and every event that comes in is taken."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from pydbt.core.primary import events as primary_events
from pydbt.core.primary import mark_events, transaction_events
from pydbt.core.secondary import events as secondary_events

PROJECT = Path(__file__).resolve().parent.parent
PRIMARY = ("pydbt/core/primary", "pydbt/core/volume", "pydbt/controller/primary")
SECONDARY = ("pydbt/core/secondary", "pydbt/controller/secondary")
BOTH = pytest.mark.parametrize("events", [primary_events, secondary_events], ids=["primary", "secondary"])
SIDES = pytest.mark.parametrize(
    ("events", "rooms"), [(primary_events, PRIMARY), (secondary_events, SECONDARY)], ids=["primary", "secondary"]
)

# Match statements that look at an event or effect on its way, or at a part of those that came: it is handled elsewhere too.
ON_THE_WAY = {
    "pydbt/core/volume/fanout.py: Fanout.handle": "gives it to the brains, with what is shared",
    "pydbt/core/volume/fanout.py: Fanout._of_now": "gives a COMMIT the name that the volume has at the end of the event",
    "pydbt/core/volume/fanout.py: Fanout._take": "keeps what the brains share, and passes the rest on",
    "pydbt/core/primary/snapshot_landing.py: SnapshotLanding.told": "the brain gives it these events",
    "pydbt/controller/primary/peer_connection.py: PeerConnection.happened": "what ends a connection; the brain is told of it",
    "pydbt/controller/primary/holder.py: Holder._answer": "the thread to which carrying out gives these effects",
    "pydbt/controller/primary/holder.py: _failure": "the answer of that thread when it failed",
    "pydbt/controller/secondary/service.py: SecondaryService._turn": "lets nothing new begin while the service ends",
    "pydbt/controller/secondary/service.py: SecondaryService._replay": "ends a replay that fails",
    "pydbt/controller/secondary/workers.py: JournalWorker._do": "the thread to which carrying out gives these effects",
    "pydbt/controller/secondary/workers.py: Applier._do": "the thread to which carrying out gives these effects",
}


def classes_of(pattern: ast.pattern) -> Iterator[str]:
    """The last names of the classes that a pattern takes, each alternative of it on its own."""
    match pattern:
        case ast.MatchOr(patterns=patterns):
            for one in patterns:
                yield from classes_of(one)
        case ast.MatchAs(pattern=inner) if inner is not None:
            yield from classes_of(inner)
        case ast.MatchClass(cls=ast.Attribute(attr=name)) | ast.MatchClass(cls=ast.Name(id=name)):
            yield name


def matches_in(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.Match]]:
    """Each match statement, and the function that it is in, after the class of that."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Match):
            yield name, node
        inner = isinstance(node, ast.ClassDef | ast.FunctionDef)
        yield from matches_in(node, f"{name}.{node.name}".lstrip(".") if inner else name)


def handled_in(source: str, wanted: set[str]) -> dict[str, Counter[str]]:
    """How often each class is a case of the match statements of a function, by that function."""
    found: dict[str, Counter[str]] = {}
    for function, statement in matches_in(ast.parse(source)):
        counted = Counter(name for case in statement.cases for name in classes_of(case.pattern) if name in wanted)
        if counted:
            found[function] = found.get(function, Counter()) + counted
    return found


@cache
def handled_by(rooms: tuple[str, ...], wanted: frozenset[str]) -> dict[str, Counter[str]]:
    """As ``handled_in``, over every module of these rooms: ``module: function``."""
    return {
        f"{path.relative_to(PROJECT)}: {function}": counted
        for room in rooms
        for path in sorted((PROJECT / room).rglob("*.py"))
        for function, counted in handled_in(path.read_text(), set(wanted)).items()
    }


def names_in(union: object) -> set[str]:
    return {kind.__name__ for kind in get_args(union)}


def once_each(names: set[str]) -> Counter[str]:
    return Counter(dict.fromkeys(names, 1))


PARTS = {"Effects", "WantedMark", "Unable"}  # of events, effects and answers
TAKEN_BY_THE_FANOUT = {primary_events: names_in(primary_events.BrainEffect) - names_in(primary_events.Effect)}


@BOTH
def test_the_unions_name_every_class_of_the_module(events: ModuleType) -> None:
    modules = (events, mark_events, transaction_events) if events is primary_events else (events,)
    made = {
        name
        for module in modules
        for name, kind in inspect.getmembers(module, is_dataclass)
        if kind.__module__ == module.__name__ and name not in PARTS
    }
    told = getattr(events, "VolumeEvent", events.Event)
    named = names_in(told) | names_in(events.Effect) | TAKEN_BY_THE_FANOUT.get(events, set())
    assert made <= named and all(is_dataclass(getattr(events, name)) for name in named - made)
    assert not names_in(events.Event) & names_in(events.Effect)


def test_an_effect_that_the_fanout_keeps_reaches_no_shell() -> None:
    """One secondary's generations never reach the disk without the others'."""
    kept = TAKEN_BY_THE_FANOUT[primary_events]
    assert kept == {"KeepGenerations", "MarksTold", "MarksLeft"} and not kept & names_in(primary_events.Effect)
    handled = handled_by(PRIMARY, frozenset(kept))
    assert handled == {"pydbt/core/volume/fanout.py: Fanout._take": once_each(kept)}


@SIDES
@pytest.mark.parametrize("union", ["Event", "Effect"])
def test_every_event_and_every_effect_is_handled_in_exactly_one_place(
    events: ModuleType, rooms: tuple[str, ...], union: str
) -> None:
    wanted = names_in(getattr(events, union))
    handled = handled_by(rooms, frozenset(wanted))
    total = sum((counted for place, counted in handled.items() if place not in ON_THE_WAY), Counter[str]())
    assert total == once_each(wanted), {place: counted for place, counted in handled.items() if place not in ON_THE_WAY}


def test_every_place_on_the_way_is_there() -> None:
    found = {
        place
        for events, rooms in ((primary_events, PRIMARY), (secondary_events, SECONDARY))
        for union in (events.Event, events.Effect)
        for place in handled_by(rooms, frozenset(names_in(union)))
    }
    assert not ON_THE_WAY.keys() - found, "these match no event and no effect any more: remove them from ON_THE_WAY"


def test_an_effect_that_no_case_names_or_that_two_statements_name_is_found() -> None:
    source = (
        "def f(effect):\n match effect:\n  case ev.Log():\n   pass\n  case ev.Hold(hold=h) | ev.Log(level=l):\n   pass\n"
        "class A:\n def g(self, effect):\n  match effect:\n   case Log() as log:\n    pass"
    )
    assert handled_in(source, {"Log", "Hold", "Flush"}) == {
        "f": Counter({"Log": 2, "Hold": 1}),
        "A.g": Counter({"Log": 1}),
    }

"""Every effect that a brain can ask for is carried out in exactly one place, and every event that comes in is taken."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from pydbt.controller.primary import effects as primary_effects
from pydbt.core.primary import brain as primary_brain
from pydbt.core.primary import events as primary_events
from pydbt.core.secondary import brain as secondary_brain
from pydbt.core.secondary import events as secondary_events

ROOT = Path(__file__).resolve().parents[2]
SECONDARY = ROOT / "pydbt/controller/secondary"
BOTH = pytest.mark.parametrize("events", [primary_events, secondary_events], ids=["primary", "secondary"])


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


def handled_in(source: str, wanted: set[str]) -> Counter[str]:
    """How often each class is a case of the match statement that takes the most of them."""
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Match)]
    counts = [
        Counter(name for case in statement.cases for name in classes_of(case.pattern) if name in wanted)
        for statement in statements
    ]
    return max(counts, key=len, default=Counter())


def names_in(union: object) -> set[str]:
    return {kind.__name__ for kind in get_args(union)}


def once_each(names: set[str]) -> Counter[str]:
    return Counter(dict.fromkeys(names, 1))


@BOTH
def test_the_unions_name_every_class_of_the_module(events: ModuleType) -> None:
    made = {
        name
        for name, kind in inspect.getmembers(events, is_dataclass)
        if kind.__module__ == events.__name__ and name != "Effects"
    }
    assert names_in(events.Event) | names_in(events.Effect) == made
    assert not names_in(events.Event) & names_in(events.Effect)


def test_every_effect_of_the_primarys_brain_is_carried_out_in_exactly_one_place() -> None:
    wanted = names_in(primary_events.Effect)
    assert handled_in(inspect.getsource(primary_effects), wanted) == once_each(wanted)


def test_every_effect_of_the_secondarys_brain_is_carried_out_in_exactly_one_place() -> None:
    wanted = names_in(secondary_events.Effect)
    counts = (handled_in(path.read_text(), wanted) for path in sorted(SECONDARY.glob("*.py")))
    assert max(counts, key=len) == once_each(wanted)


def test_every_event_is_taken_by_the_primarys_brain_in_exactly_one_place() -> None:
    wanted = names_in(primary_events.Event)
    assert handled_in(inspect.getsource(primary_brain), wanted) == once_each(wanted)


def test_every_event_is_taken_by_the_secondarys_brain_in_exactly_one_place() -> None:
    wanted = names_in(secondary_events.Event)
    assert handled_in(inspect.getsource(secondary_brain), wanted) == once_each(wanted)


def test_an_effect_that_no_case_names_is_found() -> None:
    source = "match effect:\n case ev.Log():\n  pass\n case ev.Hold(hold=h) | ev.Log(level=l):\n  pass"
    assert handled_in(source, {"Log", "Hold", "Flush"}) == Counter({"Log": 2, "Hold": 1})

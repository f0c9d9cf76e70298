"""A report as plain values is what the standard library makes of it"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pydbt.core.values import field_names, values_of


@dataclass(frozen=True, slots=True)
class Part:
    size: int
    words: str | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    part: Part
    parts: tuple[Part, ...]
    numbers: tuple[int, ...]
    more: dict[str, int]
    yes: bool


WHOLE = Whole(Part(1, "one"), (Part(2), Part(3, "")), (4, 5), {"six": 6}, True)


def test_plain_values_are_those_that_asdict_makes():
    assert values_of(WHOLE) == asdict(WHOLE)
    assert list(values_of(WHOLE)) == ["part", "parts", "numbers", "more", "yes"]


def test_only_dataclasses_have_names():
    assert field_names(Part) == ("size", "words")
    assert field_names(dict) == field_names(int) == ()

"""A report as it came over the control socket or out of a file, read field by field.

It may come from another version, or be damaged: a field that is missing, or is of another kind, reads as None. Its texts
are for people, and one line each: what is not printable in them is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydbt.core.printable import printable
from pydbt.core.units import is_figure

# Made once: a scrape of twenty volumes asks some ten thousand times. A dict is found without a look at what a Mapping is.
_OBJECT = (dict, Mapping)
_NUMBER = (int, float)
_LIST = (list, tuple)


class View:
    """One JSON object. Each method reads one field by its name."""

    __slots__ = ("_values",)

    def __init__(self, values: object) -> None:
        self._values: Mapping[str, object] = values if isinstance(values, _OBJECT) else {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def values(self) -> dict[str, object]:
        """All fields."""
        return dict(self._values)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        return printable(value) if isinstance(value, str) else None

    def flag(self, name: str) -> bool | None:
        value = self._values.get(name)
        return value if isinstance(value, bool) else None

    def whole(self, name: str) -> int | None:
        """A whole number of at most 64 bits."""
        value = self._values.get(name)
        return value if isinstance(value, int) and is_figure(value) else None

    def number(self, name: str) -> float | None:
        """A finite number of at most 64 bits."""
        value = self._values.get(name)
        return value if isinstance(value, _NUMBER) and is_figure(value) else None

    def numbers(self, name: str) -> list[float]:
        """A list of finite numbers; empty when anything else is in it."""
        value = self._values.get(name)
        if not isinstance(value, _LIST) or not value or not set(map(type, value)) <= {int, float}:
            return []
        # These pass over NaN, unless it is the first; the sum does not.
        are_bounded = is_figure(min(value)) and is_figure(max(value))
        return list(value) if are_bounded and is_figure(sum(value) / len(value)) else []

    def texts(self, name: str) -> list[str]:
        """A list, each entry as text; empty when there is none."""
        value = self._values.get(name)
        return [printable(str(one)) for one in value] if isinstance(value, _LIST) else []

    def part(self, name: str) -> View:
        """An object inside; empty when there is none."""
        return View(self._values.get(name))

    def parts(self, name: str) -> list[View]:
        """The objects of a list."""
        value = self._values.get(name)
        return [View(one) for one in value] if isinstance(value, _LIST) else []

"""One event of a volume or replica: a change with a name that is promised stable, its moment, and words for people.

The names are in ``event_names``; ``changes`` decides which of them lie between one status and the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydbt.core.printable import printable
from pydbt.core.units import is_figure

Figure = int | float | str | bool | None
"""What an event carries beside its words: sizes in bytes (``..._bytes``), times in seconds (``..._s``), names, or null."""


@dataclass(frozen=True, slots=True)
class Event:
    """``number`` counts the events of one run of a controller, from 1; 0: not counted. ``moment``: RFC 3339, in UTC."""

    number: int
    moment: str
    name: str
    words: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object for people's programs."""
        return {
            "number": self.number,
            "moment": self.moment,
            "name": self.name,
            "words": self.words,
            "figures": dict(self.figures),
        }

    @classmethod
    def from_values(cls, values: object) -> Event | None:
        """Of what came over a socket or out of a file; None when it is no event. Its texts are one line each."""
        if not isinstance(values, Mapping):
            return None
        number, figures = values.get("number"), values.get("figures")
        texts = [values.get(key) for key in ("moment", "name", "words")]
        if isinstance(number, bool) or not isinstance(number, int) or not is_figure(number):
            return None
        if not all(isinstance(text, str) for text in texts):
            return None
        moment, name, words = (printable(str(text)) for text in texts)
        kept = figures if isinstance(figures, Mapping) else {}
        return cls(number, moment, name, words, {str(key): _figure(value) for key, value in kept.items()})


def _figure(value: object) -> Figure:
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, bool):
        return value
    return value if isinstance(value, int | float) and is_figure(value) else None

"""A text of TOML: its tables, every line that is none, and the lines that its keys are in."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from pydbt.core.configured.problems import shown

MAX_FAULTS = 20
"""Of one file. A text with more is another kind of file."""
_PART = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=\s*(.*)")
_HEADER = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_LONG_NUMBER = re.compile(r"[0-9][0-9_]{999}")
_LONG_TEXT = re.compile(r"\"\"\"|'''")


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that is no TOML. ``key`` and ``value`` as far as they can be told from it."""

    line: int
    table: str
    key: str
    value: str
    words: str


@dataclass(frozen=True, slots=True)
class TomlText:
    """``tables`` lack the broken lines. ``whole``: all else could be read; without it ``tables`` tell nothing."""

    tables: dict[str, Any]
    broken: tuple[BrokenLine, ...] = ()
    whole: bool = True
    lines: dict[tuple[str, str], int] = field(default_factory=dict)

    def line_of(self, table: str, key: str = "") -> int:
        """The line of a key of a table, or of the table itself; 0 when it cannot be told from the text."""
        return self.lines.get((table, key)) or self.lines.get((table, ""), 0)


def read_toml(text: str) -> TomlText:
    """Every fault and not only the first: a line ``KEY = VALUE`` that is no TOML is left out, and the rest is read again."""
    lines, places = text.split("\n"), _lines_of_keys(text)  # TOML knows no other end of a line, as U+2028
    broken: list[BrokenLine] = []
    while True:
        try:
            tables = tomllib.loads("\n".join(lines) + "\n")
            return TomlText(tables, (*broken, *_take_null_bytes(tables, places)), True, places)
        except tomllib.TOMLDecodeError as error:
            found = _broken_line(str(error), lines, places)
            broken.append(found)
            if not found.key or len(broken) >= MAX_FAULTS:
                return TomlText({}, tuple(broken), False, places)
            lines[found.line - 1] = ""
        except (ValueError, RecursionError) as error:
            return TomlText({}, (*broken, _beyond_python(error, lines)), False, places)


def _take_null_bytes(tables: dict[str, Any], places: dict[tuple[str, str], int]) -> list[BrokenLine]:
    """Texts of TOML that no path, address or argument of a program can be; they are taken out of the tables."""
    found = []
    for name, table in list(tables.items()):
        where, keys = (name, table) if isinstance(table, dict) else ("", {name: table})
        for key in [key for key, value in keys.items() if _has_null_byte([key, value])]:
            line = places.get((where, key) if where else (key, ""), 0)
            words = "has a null byte in it, which no setting can have"
            found.append(BrokenLine(line, where, key, shown(keys.pop(key)), words))
            if not where:
                del tables[key]
    return found


def _has_null_byte(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_null_byte(one) for pair in value.items() for one in pair)
    return any(map(_has_null_byte, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def _beyond_python(error: Exception, lines: list[str]) -> BrokenLine:
    """TOML perhaps, and nothing that a setting could be: a number of thousands of digits, or brackets in brackets without end."""
    if isinstance(error, RecursionError):
        return BrokenLine(0, "", "", "", "is nested too deep: no setting has brackets within brackets within brackets")
    number = next((number for number, line in enumerate(lines, start=1) if _LONG_NUMBER.search(line)), 0)
    return BrokenLine(number, "", "", "", "has a number that no setting can have: it has thousands of digits")


def _broken_line(message: str, lines: list[str], places: dict[tuple[str, str], int]) -> BrokenLine:
    place = _PLACE.search(message)
    words = f"is not TOML: {_PLACE.sub('', message)}"
    if place is None or place[1] is None:
        return BrokenLine(0, "", "", "", f"{words}, at its end")
    number = int(place[1])
    words = f"{words}, at column {place[2]}: expected KEY = VALUE, with quotes around a text"
    match = _KEY.match(lines[number - 1]) if number <= len(lines) else None
    if match is None or not match[2]:
        return BrokenLine(number, "", "", "", words)
    table = next((table for (table, key), line in places.items() if line == number and key), "")
    return BrokenLine(number, table, _bare(match[1])[-1], match[2].strip(), words)


def _bare(dotted: str) -> list[str]:
    """The parts of a key, without quotes."""
    return [part.strip("\"'") for part in re.findall(_PART, dotted)]


def _lines_of_keys(text: str) -> dict[tuple[str, str], int]:
    """The first line of each key, by table and key; that of a table itself by its name and an empty key."""
    found: dict[tuple[str, str], int] = {}
    inside: list[str] = []
    long_text = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if not long_text:
            if header := _HEADER.match(line):
                inside = _bare(header[1])
                found.setdefault((inside[0], ""), number)
            elif key := _KEY.match(line):
                first, *rest = [*inside, *_bare(key[1])]
                found.setdefault((first, rest[0] if rest else ""), number)
        for mark in _LONG_TEXT.findall(line):
            long_text = mark if not long_text else "" if mark == long_text else long_text
    return found

"""What is wrong in a configuration: one line each, with file, line, key, value and what was expected."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

MAX_NAME_CHARACTERS = 64
"""With ``pydbt-secondary@`` and ``.service`` around it, a unit's name stays far below the 255 bytes of a file's name."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*", re.ASCII)


class Problem(NamedTuple):
    """``line`` 0: the fault is not in one line. ``value`` is written as in the file; empty when there is none."""

    file: str
    line: int
    key: str
    value: str
    words: str

    def __str__(self) -> str:
        where = f"{self.file} line {self.line}" if self.line else self.file
        what = f"{self.key} = {self.value}" if self.value else self.key
        return ": ".join(part for part in (where, what, self.words) if part)


def shown(value: Any) -> str:
    """A value of TOML in one line, nearly as it was written."""
    import json  # only here, because a generator of systemd does without it

    if isinstance(value, str | bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # a date or a time


def why_no_name(word: str) -> str:
    """Why a word cannot name a volume: a file, a unit of systemd and a folder have this name. Empty when it can."""
    if not _NAME.fullmatch(word):
        return (
            "expected a name of lower-case letters, digits, '.', '_' and '-' that begins with a letter or digit, as in "
            "data.toml"
        )
    if len(word) > MAX_NAME_CHARACTERS:
        return f"expected a name of at most {MAX_NAME_CHARACTERS} characters before .toml, and this has {len(word)}"
    return ""


def did_you_mean(word: str, known: list[str]) -> str:
    """``, did you mean 'status'?`` for a word that is nearly one that is known; else nothing."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""

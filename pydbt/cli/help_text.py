"""Help whose lines are broken between words alone: a name such as ``on-unreachable`` stays in one line, and can be copied."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

_WHOLE = "\N{NON-BREAKING HYPHEN}"
_HYPHEN = re.compile(r"(?<=\w)-(?=\w)")


class HelpText(click.HelpFormatter):
    """Hyphens are others while lines are broken."""

    def write_text(self, text: str) -> None:
        super().write_text(_HYPHEN.sub(_WHOLE, text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(name, _HYPHEN.sub(_WHOLE, words)) for name, words in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        return super().getvalue().replace(_WHOLE, "-")

"""The tables of keys in docs/reference/configuration.md, which stand between marks in a text that people write."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from generate.model import Key, hook_keys, table_keys, volume_keys

CONFIGURATION = Path(__file__).resolve().parents[2] / "docs/reference/configuration.md"
_MADE_BY = "made by packaging/generated.py --documents"
_END = "<!-- end -->"


def with_tables(text: str) -> str:
    """The document with its tables made anew. ValueError when a mark is missing."""
    tables = {f"keys of [{role}]": _keys(volume_keys(role)) for role in ("run", "secondary")}
    tables["keys of [hooks]"] = _keys(hook_keys())
    tables["other tables"] = _other_tables()
    for name, rows in tables.items():
        mark = f"<!-- {name}: {_MADE_BY} -->"
        before, found, behind = text.partition(f"{mark}\n")
        _, ended, after = behind.partition(_END)
        if not found or not ended:
            raise ValueError(f"{CONFIGURATION} needs the line {mark!r}, and {_END!r} below it")
        text = "\n".join([f"{before}{mark}", *rows, f"{_END}{after}"])
    return text


def _keys(keys: Iterable[Key]) -> list[str]:
    return ["| key | value | default | meaning |", "|---|---|---|---|", *(_row(key) for key in keys)]


def _other_tables() -> list[str]:
    rows = [f"| `[{table}]` {_row(key)}" for table, keys in table_keys() for key in keys]
    return ["| table | key | value | default | meaning |", "|---|---|---|---|---|", *rows]


def _row(key: Key) -> str:
    default = "required" if key.required else f"`{key.default}`" if key.default else "none"
    cells = (f"`{key.name}`", key.kind, default, key.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

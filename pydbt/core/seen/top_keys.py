"""The keys of ``controller top``, what each does, and what an older picture may still say: decisions without a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydbt.core.seen.sight import Asked, sight_of
from pydbt.core.seen.view import View

KEYS: tuple[tuple[str, str], ...] = (
    ("Up, Down, k, j", "select a volume, or move through the details when they fill the screen"),
    ("Home, End, PgUp, PgDn", "the same in larger steps"),
    ("Enter", "let the details fill the screen, and back"),
    ("e", "show the newest events of the selected volume, or hide them"),
    ("w", "show who writes to it, or hide that; programs are attached while it is shown"),
    ("i", "show its block I/O, or hide that; programs are attached while it is shown"),
    ("s", "the worst first, or by name"),
    ("+, -", "draw more often, or less often"),
    ("Ctrl-L", "draw everything anew"),
    ("?", "show these keys, and back"),
    ("q, Ctrl-C", "end"),
)
INTERVALS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


def next_interval_s(interval_s: float, *, longer: bool) -> float:
    """The next of ``INTERVALS_S``, or the same at the end of them."""
    if longer:
        return next((one for one in INTERVALS_S if one > interval_s), interval_s)
    return next((one for one in reversed(INTERVALS_S) if one < interval_s), interval_s)


def grown_older(machines: Sequence[Mapping[str, Any]], passed_seconds: float, now: datetime) -> list[dict[str, Any]]:
    """Machines as they may be shown this long after they were seen: what nobody has confirmed since is stale, and not good."""
    if passed_seconds <= 0:
        return [dict(machine) for machine in machines]
    return [
        {**machine, "volumes": [_later(one, passed_seconds, now) for one in View(machine).parts("volumes")]}
        for machine in machines
    ]


def _later(sight: View, passed_seconds: float, now: datetime) -> dict[str, Any]:
    age = (sight.number("age_seconds") or 0.0) + passed_seconds
    wire, growth = sight.number("wire_rate_bytes"), sight.number("backlog_growth_bytes")
    asked = Asked(sight.part("status").values, age, "no newer picture came", wire, "", growth)
    identity, machine, name = (sight.text(key) or "" for key in ("id", "machine", "name"))
    return sight_of(asked, identity, machine, name, now).to_json()

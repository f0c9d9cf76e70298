"""What of a sight is news: all that a person who looks at it would call a change, and nothing that the time alone changes."""

from __future__ import annotations

import re

from pydbt.core.seen.sight import Sight
from pydbt.core.seen.view import View

# As ``format_seconds`` writes them.
_DURATION = re.compile(r"\b\d+(?:\.\d+)? (?:s|min|h|d)\b(?: \d+ (?:s|min|h)\b)?")
_OF_A_SIGHT = (
    "id", "name", "device", "level", "stale", "mode", "mode_since", "replica_state", "connected", "lag_bytes",
    "out_of_sync_bytes", "unacknowledged_bytes", "write_rate_bytes", "queue", "log", "progress", "progress_back",
)  # fmt: skip
_OF_A_STATUS = (
    "phase", "waiting_for", "refused", "tainted", "taints", "verify", "unreadable", "unwritable", "persist_problem", "notices",
    "target_problem", "handover", "divergence", "gate", "armed", "marks", "identity", "capture", "losses", "lost_records",
    "writing_out", "write_intent", "generations",
)  # fmt: skip
"""Parts of which nothing moves while a healthy volume is idle."""
_OF_A_SECONDARY = (
    "level", "secondary", "mode", "mode_since", "replica_state", "connected", "lag_bytes", "out_of_sync_bytes",
    "unacknowledged_bytes", "progress",
)  # fmt: skip
_OF_PARTS = (
    ("audit", "verdict"),
    ("cluster", "words"),
    ("role_differs", "words"),
    ("epochs", "problem"),
    ("block_io", "state"),
    ("block_io", "problem"),
)
_WIRE_STEP_BYTES = 1024
"""The heartbeats of an idle volume stay below it, and no two seconds have the same."""


def gist(sight: Sight) -> tuple[object, ...]:
    """Two that have the same gist need not be told one after the other."""
    status = View(sight.status)
    attribution = status.part("attribution")
    return (
        *(getattr(sight, name) for name in _OF_A_SIGHT),
        without_durations(sight.words),
        without_durations(sight.problem),
        without_durations(sight.forecast.words),
        sight.forecast.converges,
        sight.last_verified,
        lag_step(sight.lag_seconds),
        None if sight.wire_rate_bytes is None else sight.wire_rate_bytes // _WIRE_STEP_BYTES,
        [sight.status.get(name) for name in _OF_A_STATUS],
        [status.part(part).text(name) for part, name in _OF_PARTS],
        attribution.text("state"),
        attribution.text("problem"),
        attribution.part("outrun").values,
        [_gist_of_a_secondary(View(one)) for one in sight.secondaries],
    )


def _gist_of_a_secondary(one: View) -> list[object]:
    values = one.values
    problem = without_durations(one.text("connection_problem") or "")
    return [lag_step(one.number("lag_seconds")), problem, *(values.get(name) for name in _OF_A_SECONDARY)]


def without_durations(words: str) -> str:
    """A sentence that says only for how much longer the same is true is the same."""
    return _DURATION.sub("", words)


def lag_step(lag_seconds: float | None) -> int | None:
    """Below a second one step, and another each time that it doubles; None where it is unknown."""
    return None if lag_seconds is None else max(int(lag_seconds), 0).bit_length()

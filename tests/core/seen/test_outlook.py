"""The forecast: when it is in sync, or that it never will be at this rate; nothing where nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from pydbt.core.seen.forecast import Outlook, outlook_of
from pydbt.core.seen.view import View
from pydbt.core.units import MIB

NOTHING = Outlook("", None, None)


def outlook(wire: float | None = None, growth: float | None = None, **report: Any) -> Outlook:
    return outlook_of(View({"role": "primary", "connected": True, **report}), wire, growth)


def copying(wire: float | None = None, written: float | None = None, **progress: Any) -> Outlook:
    told = {"total_bytes": 100 * MIB, "done_bytes": 10 * MIB, **progress}
    return outlook(wire, mode="resynchronizing", progress=told, write_rate_bytes=written)


def test_a_copy_that_comes_to_an_end_says_when() -> None:
    assert copying(eta_seconds=40.0, rate_bytes=MIB) == Outlook("in sync in 40 s", 40.0, True)


def test_a_copy_that_cannot_keep_up_names_both_rates() -> None:
    told = copying(wire=95 * MIB, written=140 * MIB, rate_bytes=90 * MIB)
    assert told == Outlook("will not converge at this rate: writes 140 MiB/s, link 95.0 MiB/s", None, False)
    assert copying(written=140 * MIB, rate_bytes=90 * MIB).words.endswith("link 90.0 MiB/s")


def test_a_copy_that_stands_still_does_not_pretend_to_move() -> None:
    assert copying(still_seconds=61.0, eta_seconds=5.0) == Outlook("standing still for 61 s", None, None)


@pytest.mark.parametrize(
    "progress",
    [{"total_bytes": None}, {"total_bytes": 0}, {"done_bytes": None}, {"rate_bytes": 0.0}, {"rate_bytes": None}],
)
def test_a_copy_at_an_unknown_rate_has_no_forecast(progress: dict[str, Any]) -> None:
    assert copying(written=5.0, **progress) == NOTHING


def test_a_stream_is_in_sync_or_catches_up_or_nobody_knows() -> None:
    assert outlook(mode="normal", replica_state="up-to-date") == Outlook("in sync", 0.0, True)
    behind = {"mode": "normal", "replica_state": "consistent", "lag_bytes": 30 * MIB, "write_rate_bytes": MIB}
    assert outlook(4 * MIB, **behind) == Outlook("in sync in 10 s", 10.0, True)
    assert outlook(MIB, **behind) == NOTHING, "compressed, the stream is smaller than what is written"
    assert outlook(None, **behind) == NOTHING
    tiny = {**behind, "write_rate_bytes": 0.0}
    assert outlook(1e-320, **tiny) == outlook(5e-14, **tiny) == NOTHING, "a time that nobody can count is none"


def test_a_stream_whose_backlog_grows_for_long_says_by_how_much() -> None:
    behind = {"mode": "normal", "replica_state": "consistent", "lag_bytes": 30 * MIB, "write_rate_bytes": 140 * MIB}
    words = "will not converge at this rate: falls behind by 45.0 MiB/s, 140 MiB/s are written"
    for wire in (None, 95 * MIB, 300 * MIB):
        assert outlook(wire, 45 * MIB, **behind) == Outlook(words, None, False), "whatever the wire promises"
    unknown = {**behind, "write_rate_bytes": None, "lag_bytes": None}
    assert outlook(None, MIB, **unknown).words == "will not converge at this rate: falls behind by 1.0 MiB/s"
    assert outlook(None, 0.0, **unknown) == outlook(None, -MIB, **unknown) == NOTHING, "as told by another machine"
    assert outlook(None, MIB, mode="normal", connected=False) == NOTHING
    assert outlook(None, MIB, mode="normal", replica_state="up-to-date").converges is True


@pytest.mark.parametrize("report", [{"mode": "paused"}, {"mode": "normal", "connected": False}, {"role": "secondary"}])
def test_without_a_link_there_is_no_forecast(report: dict[str, Any]) -> None:
    assert outlook(5.0, **{"replica_state": "up-to-date", **report}) == NOTHING

"""What a scrape of ``/metrics`` costs with twenty volumes: from what the dashboard knows to the text."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydbt.core.primary.acknowledgement_latency import LATENCY_BOUNDS_SECONDS
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.io_totals import BOUNDS_SECONDS
from pydbt.core.seen.metric_table import LOSSES, UNSETTLED_CAUSES
from pydbt.core.seen.sight import Asked, sight_of
from pydbt.dashboard.metrics import Exposition
from tests.lab.figures.report import Figure, figure

VOLUMES = 20
BAR_MS = 20.0
_COUNTED = ("written_requests", "discarded_bytes", "stream_requests", "stream_bytes", "compared_bytes", "copied_bytes")


def measure(quick: bool) -> list[Figure]:
    """The processor time from twenty statuses to the text; each has every figure that a status can have."""
    plain = [full_status(number) for number in range(VOLUMES)]
    return [
        _of(f"/metrics of {VOLUMES} volumes", lambda _: plain, quick),
        _of("... and block I/O, each figure another one", lambda look: [
            status | {"block_io": observed_io(VOLUMES * look + number)} for number, status in enumerate(plain)
        ], quick),
    ]  # fmt: skip


def _of(what: str, statuses_at: Callable[[int], list[dict[str, Any]]], quick: bool) -> Figure:
    """``statuses_at``: by the number of the look. The first text, for which all is new, is not in the figure."""
    exposition = Exposition()
    looks = [_scrape(exposition, statuses_at(look)) for look in range(20 if quick else 200)]
    lines = f"{len(looks[-1][1].splitlines()):,} lines"
    return figure("metrics", what, lines, "ms", [took_ms for took_ms, _ in looks[1:]], bar=BAR_MS, at_least=False)


def _scrape(exposition: Exposition, statuses: list[dict[str, Any]]) -> tuple[float, bytes]:
    """Milliseconds of processor time, and the text."""
    began = time.thread_time()
    text = exposition.text_of(
        [{"name": "alpha", "reachable": True, "volumes": [_volume(*one) for one in enumerate(statuses)]}]
    )
    return 1000 * (time.thread_time() - began), text


def _volume(number: int, status: dict[str, Any]) -> dict[str, Any]:
    return sight_of(Asked(status, 0.2), f"{number:016x}", "alpha", f"data{number}", datetime.now(UTC)).to_json()


def full_status(number: int) -> dict[str, Any]:
    """Of a made-up volume, with every figure that a status can have."""
    counts = [number] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    latency = {"bounds_seconds": LATENCY_BOUNDS_SECONDS, "counts": counts, "sum_seconds": 1.5}
    return {
        "running": True, "role": "primary", "source": f"/dev/mapper/vg-data{number}", "size_bytes": 1 << 40,
        "mode": "normal", "replica_state": "up-to-date", "connected": True, "tainted": False, "refused": "",
        "out_of_sync_bytes": 4096, "unacknowledged_bytes": 4096, "lag_bytes": 4096, "lag_seconds": 0.25,
        "last_in_sync": "2026-01-02T03:04:05Z", "written_bytes": 1 << 33, "sent_bytes": 1 << 33, "unsettled_bytes": 0,
        "unreadable": {"bytes": 0}, "unwritable": {"bytes": 0}, "persist_problem": "", "in_flight": {"bytes": 8192},
        "queue": {"size": 1 << 26, "used": 4096}, "log": {"size": 1 << 20, "used": 640, "active_transactions": 7},
        "audit": {"verdict": "agrees", "margin_sectors": 0, "looks": 9}, "losses": dict.fromkeys(LOSSES, 0),
        "verify": {"last": {"ended": "2026-01-02T03:04:05Z", "differing_bytes": 0}},
        "generations": {"current": f"{number:016x}"}, "identity": {"expires": "2036-01-02T03:04:05Z"},
        "statistics": {
            **dict.fromkeys(_COUNTED, number), "unsettled_blocks": dict.fromkeys(UNSETTLED_CAUSES, number),
            "acknowledgement_latency": latency, "resyncs": 1, "log_full": 0, "times_out_of_normal": 1,
        },
        "secondaries": [{"secondary": "10.0.0.2:7790", "connected": True, "lag_seconds": 0.25, "lag_bytes": 4096}],
    }  # fmt: skip


def observed_io(number: int) -> dict[str, Any]:
    """The part ``block_io`` of a made-up status: each operation occurred, each part of its latency is known, no two are equal."""

    def latency(place: int) -> dict[str, Any]:
        counts = [(1 + number * 97 + place * 7919) * (1 + bucket * 131) for bucket in range(len(BOUNDS_SECONDS) + 1)]
        return {"bounds_seconds": BOUNDS_SECONDS, "counts": counts, "sum_seconds": 1.5 + place + number}

    operations = {
        name: {"requests": number, "bytes": number, "errors": 0,
               "latency": {part: latency(len(PARTS) * at + place) for place, part in enumerate(PARTS)}}
        for at, name in enumerate(OPERATIONS)
    }  # fmt: skip
    return {"state": "attached", "operations": operations}

"""What a scrape of ``/metrics`` costs with twenty volumes: from what the dashboard knows to the text."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from pydbt.core.primary.acknowledgement_latency import LATENCY_BOUNDS_SECONDS
from pydbt.core.seen.metric_table import LOSSES, UNSETTLED_CAUSES
from pydbt.core.seen.sight import Asked, sight_of
from pydbt.dashboard.metrics import text_of
from tests.lab.figures.report import Figure, figure

VOLUMES = 20
BAR_MS = 20.0
_COUNTED = ("written_requests", "discarded_bytes", "stream_requests", "stream_bytes", "compared_bytes", "copied_bytes")


def measure(quick: bool) -> list[Figure]:
    """The processor time from twenty statuses to the text; each has every figure that a status can have."""
    statuses = [full_status(number) for number in range(VOLUMES)]
    values = []
    for _ in range(20 if quick else 200):
        began = time.process_time()
        text = text_of(
            [{"name": "alpha", "reachable": True, "volumes": [_volume(*one) for one in enumerate(statuses)]}]
        )
        values.append(1000 * (time.process_time() - began))
    what = f"/metrics of {VOLUMES} volumes"
    return [figure("metrics", what, f"{len(text.splitlines()):,} lines", "ms", values, bar=BAR_MS, at_least=False)]


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

"""What is said of a volume by what is said of each of its secondaries: never more favourable than the worst of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Status = dict[str, Any]

# From the best to the worst.
MODES = ("normal", "epochs", "resynchronizing", "initial-sync", "unsynchronized", "paused")
REPLICA_STATES = ("up-to-date", "consistent", "outdated", "inconsistent")


def together(secondaries: list[Status]) -> Status:
    """The keys of several reports in one; a single one's are its own."""
    if len(secondaries) == 1:
        return dict(secondaries[0])
    worst = max(secondaries, key=lambda one: (MODES.index(one["mode"]), one["lag_bytes"]))
    behind = max(secondaries, key=lambda one: one["sequence"]["submitted"] - one["sequence"]["acknowledged"])
    lags = [one["lag_seconds"] for one in secondaries]
    times = [one["last_in_sync"] for one in secondaries]
    return {
        "secondary": ", ".join(one["secondary"] for one in secondaries),
        "connected": all(one["connected"] for one in secondaries),
        "connection_problem": _named(secondaries, "connection_problem"),
        "mode": worst["mode"],
        "phase": worst["phase"],
        "waiting_for": worst["waiting_for"],
        "replica_state": max((one["replica_state"] for one in secondaries), key=REPLICA_STATES.index),
        "tainted": any(one["tainted"] for one in secondaries),
        "taints": list(dict.fromkeys(reason for one in secondaries for reason in one["taints"])),
        "verify": _verify([one["verify"] for one in secondaries]),
        "write_intent": _write_intent([one["write_intent"] for one in secondaries]),
        "assumed_in_sync": any(one["assumed_in_sync"] for one in secondaries),
        "sequence": dict(behind["sequence"]),
        "out_of_sync_bytes": max(one["out_of_sync_bytes"] for one in secondaries),
        "unsettled_bytes": max(one["unsettled_bytes"] for one in secondaries),
        "lag_bytes": max(one["lag_bytes"] for one in secondaries),
        "lag_seconds": None if None in lags else max(lags),
        "last_in_sync": None if None in times else min(times),
        "sent_bytes": sum(one["sent_bytes"] for one in secondaries),
        "log": dict(max((one["log"] for one in secondaries), key=lambda log: log["used"])),
        "progress": _progress([one["progress"] for one in secondaries]),
        "persist_problem": _named(secondaries, "persist_problem"),
        "generations": worst["generations"],
        "statistics": _added([one["statistics"] for one in secondaries]),
    }


def _named(secondaries: list[Status], key: str) -> str:
    return "; ".join(f"{one['secondary']}: {one[key]}" for one in secondaries if one[key])


def _progress(parts: list[Status]) -> Status:
    etas = [part["eta_seconds"] for part in parts if part["eta_seconds"] is not None]
    return {
        "done_bytes": sum(part["done_bytes"] for part in parts),
        "total_bytes": sum(part["total_bytes"] for part in parts),
        "eta_seconds": max(etas, default=None),
    }


def _verify(reports: list[Status]) -> Status:
    """All that run as one; of those that ended the one that found most, then the latest."""
    running = [report["running"] for report in reports if report["running"]]
    last = [report["last"] for report in reports if report["last"]]
    sums = {key: sum(one[key] for one in running) for key in ("total_bytes", "done_bytes", "differing_bytes")}
    return {
        "running": {"repair": any(one["repair"] for one in running), **sums} if running else None,
        "last": max(last, key=lambda one: (one.get("differing_bytes", 0), one.get("ended", "")), default=None),
    }


def _write_intent(reports: list[Status | None]) -> Status | None:
    """The era that bounds least, and the largest comparison that one bounded."""
    known = [report for report in reports if report]
    if not known:
        return None
    least = min(known, key=lambda report: report["era"] or 0)
    compared = [report["compared"] for report in known if report["compared"]]
    return {**least, "compared": max(compared, key=lambda one: one["bytes"], default=None)}


def _added(parts: Iterable[Status]) -> Status:
    """Counters of all secondaries: sums, but of what was written to the volume, and of times and worst cases, the most."""
    most = {"written_requests", "discarded_bytes", "out_of_sync_max_bytes", "unsynchronized_seconds"}
    total: Status = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, dict):
                total[key] = _added([total.get(key, {}), value])
            else:
                total[key] = max(total.get(key, 0), value) if key in most else total.get(key, 0) + value
    return total

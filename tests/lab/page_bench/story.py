"""A made-up past and present of a volume: its history, its events, and the structures of the method."""

from __future__ import annotations

import math
from typing import Any

from tests.lab.page_bench.world import GIB, MIB, Made, moment, sight, wave

COLUMNS = (
    "lag_seconds", "out_of_sync_bytes", "unacknowledged_bytes", "write_rate_bytes", "wire_rate_bytes", "log_used_bytes",
    "queue_used_bytes", "replica_state", "disconnected",
)  # fmt: skip
DAY = 86400.0
# Before the bench began, in seconds: outages, and starts of the controller.
OUTAGES = ((6.2 * DAY, 5400.0), (3.1 * DAY, 900.0), (0.8 * DAY, 2700.0), (9000.0, 600.0))
RESTARTS = (5.4 * DAY, 2.05 * DAY, 3800.0)
CAPACITY = 262144


def _row(made: Made, at: float, began: float) -> list[float | None]:
    rate = wave(made, at) * (0.55 + 0.45 * math.sin((at % DAY) / DAY * 2 * math.pi - 1.2))
    out = 0.0
    for before, seconds in OUTAGES:
        since = at - (began - before)
        if 0 <= since < seconds:
            out = min(since * made.load * 0.4, 40 * GIB)
        elif seconds <= since < seconds * 1.4:
            out = made.load * 0.4 * seconds * (1 - (since - seconds) / (seconds * 0.4))
    flow = 0.0 if out and any(0 <= at - (began - before) < seconds for before, seconds in OUTAGES) else rate * 1.03
    lag = 0.03 if not out else max(0.1, out / max(made.load, 1))
    return [lag, out + rate * 0.03, rate * 0.03 if flow else 0.0, rate, flow + (out and 60 * MIB if flow else 0),
            min(rate * 0.03, 15 * MIB), min(rate * 0.2, 60 * MIB), 2.0 if out else 0.0, float(out > 0 and not flow)]  # fmt: skip


def history(
    made: Made, start: float, until: float, points: int, now: float, began: float, words: str
) -> dict[str, Any]:
    """The answer to ``history``: rows begin with their moment; while the controller did not run there are none."""
    step = max((until - start) / points, 1.0)
    rows: list[list[float | None]] = []
    at = start
    while at <= min(until, now):
        is_down = any(0 <= at - (began - before) + 900 < 900 for before in RESTARTS[:2])
        if at > began - 7 * DAY and not is_down:
            rows.append([at, *_row(made, at, began)])
        at += step
    return {
        "columns": ["unix", *COLUMNS], "problem": "", "rows": rows,
        "events": [one for one in events(made, now, began, words) if start <= one["unix"] <= until],
        "restarts": [began - before for before in RESTARTS if start <= began - before <= until],
    }  # fmt: skip


def events(made: Made, now: float, began: float, words: str = "") -> list[dict[str, Any]]:
    """Everything that happened so far, the oldest first. ``words`` take the place of one event's words and name."""
    told: list[tuple[float, str, str, dict[str, Any]]] = []
    for before, seconds in OUTAGES:
        at = began - before
        told += [
            (
                at + 3,
                "disconnected",
                "The other machine is not connected any more: no route to 10.0.0.2.",
                {"silent_s": 3.0},
            ),
            (at + 3, "mode-changed", "The mode is unsynchronized.", {"before": "normal", "after": "unsynchronized"}),
            (
                at + 30,
                "out-of-sync",
                "The replica has lacked something for longer than 30 s.",
                {"out_of_sync_bytes": 12 * MIB},
            ),
            (at + seconds, "connected", "The other machine is connected.", {}),
            (at + seconds * 1.4, "in-sync", "The replica has everything again.", {"out_of_sync_s": seconds * 1.4}),
        ]
    told += [
        (began - before, "started", "The controller has begun.", {"mode": "unsynchronized"}) for before in RESTARTS
    ]
    told.append(
        (
            began - 2.2 * DAY,
            "verified",
            "A verification has ended.",
            {"compared_bytes": made.size_bytes, "differing_bytes": 0},
        )
    )
    if words:
        told.append((began - 60, words, words, {words: words}))
    told.sort(key=lambda one: one[0])
    return [
        {"number": number, "moment": moment(at), "unix": at, "name": name, "words": text, "figures": figures}
        for number, (at, name, text, figures) in enumerate(told, 1)
    ]


def method(made: Made, now: float, began: float) -> dict[str, Any]:
    """The answer to ``method``: state machine, transaction log and update lists as they stand."""
    seen = sight(made, now, began)
    mode = seen["mode"]
    is_copying = mode == "resynchronizing"
    position = int((now - began) * 60 + 4_000_000)
    records: list[dict[str, Any]] = []
    lists: list[dict[str, Any]] = []
    if mode == "normal" and made.load:
        for step in range(32):
            transaction = position // 4 + step // 2
            if step % 4 == 3:
                records.append({"position": position + step, "kind": "DONE", "transaction": transaction - 3, "sequence": 0,
                                "first_block": 0, "count": 2, "remaining": 0, "active": False})  # fmt: skip
                continue
            block = (transaction * 7919) % (made.size_bytes // 4096)
            is_named = step % 8 == 6  # a transaction of the file system: its blocks of the file system's own log
            kind, name = ("FILE_SYSTEM", str(transaction // 2)) if is_named else ("WRITE", None)
            records.append({"position": position + step, "kind": kind, "transaction": transaction, "name": name,
                            "sequence": transaction * 3,
                            "first_block": block, "count": 1 + step % 3 * 7, "remaining": 1, "active": step > 11})  # fmt: skip
        lists = [
            {
                "block": one["first_block"],
                "count": 1,
                "more": 0,
                "sequences": [one["sequence"] + 3 * again for again in range(1 + index % 3)],
            }
            for index, one in enumerate(record for record in records if record["active"])
        ][:8]
    why = {
        "normal": "the secondary answers, and the log has room",
        "resynchronizing": "the secondary came back; what differs is compared and copied",
        "unsynchronized": "the secondary does not answer: no route to 10.0.0.7",
    }.get(mode, "a person stopped it")
    return {
        "secondary": "10.0.0.2:7790", "secondaries": ["10.0.0.2:7790"], "mode": mode, "mode_since": seen["mode_since"],
        "why": why,
        "phase": "sweeping" if is_copying else "idle", "phase_since": seen["mode_since"], "waiting_for": "",
        "connection_problem": "", "block_bytes": 4096, "file_system": "ext4",
        "log": {"capacity_slots": CAPACITY, "used_slots": len(records) * 40, "slot_bytes": 64,
                "start": position % CAPACITY, "end": (position + len(records)) % CAPACITY, "more": 0,
                "active_transactions": sum(one["active"] for one in records), "records": records},
        "dirty_map": {"blocks": int(seen["out_of_sync_bytes"] or 0) // 4096}, "pending_map": {"blocks": 0},
        "updates": sum(len(one["sequences"]) for one in lists), "update_lists": lists,
    }  # fmt: skip

"""Twenty made-up volumes on three machines, and how they stand at a moment: the answer of ``/api/overview``."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """A made-up volume. ``standing`` is the name of a scene in ``SCENES``; ``load`` bytes written per second on the average."""

    name: str
    device: str
    machine: str
    size_bytes: int
    standing: str = "good"
    load: float = 4 * MIB
    role: str = "primary"

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.machine}\0{self.name}\0{self.device}".encode(errors="replace")).hexdigest()[:16]


def volumes(names: tuple[str, ...] = ()) -> list[Made]:
    """The worst first. ``names`` are given to further volumes, as hostile ones may be."""
    plain = ("mail", "web", "logs", "media", "builds", "git", "home", "queue", "search", "cache", "wiki", "backup")
    return [
        Made("orders", "/dev/vg0/orders", "alpha", 2 * TIB, "cut-off", 9 * MIB),
        Made("scratch", "/dev/sdf1", "gamma", 512 * GIB, "silent", 0),
        Made("archive", "/dev/mapper/archive", "alpha", 16 * TIB, "resynchronizing", 31 * MIB),
        Made("telemetry", "/dev/nvme1n1", "alpha", 4 * TIB, "will not converge", 140 * MIB),
        Made("old-web", "/dev/vdd", "alpha", 64 * GIB, "stopped", 0),
        Made("postgres", "/dev/vda3", "alpha", 256 * GIB, "good", 24 * MIB),
        Made("ledger", "/dev/vg0/ledger", "alpha", 128 * GIB, "several", 2 * MIB),
        Made("postgres", "/dev/vdb", "beta", 256 * GIB, "replica", 24 * MIB, "secondary"),
        *(
            Made(name, f"/dev/vg1/{name}", ("beta", "alpha")[index % 2], (1 + index) * 37 * GIB, "good", (index % 5) * 1.7 * MIB)
            for index, name in enumerate(plain)
        ),
        *(Made(name, name, "alpha", 8 * GIB, "good", 3 * MIB) for name in names),
    ]  # fmt: skip


def moment(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")


def wave(made: Made, now: float) -> float:
    """Bytes written per second at that moment: uneven, as real load is, and the same for the same moment."""
    seed = int(made.id[:8], 16) % 997
    slow = 1 + 0.45 * math.sin(now / 37 + seed) + 0.25 * math.sin(now / 7.3 + 2 * seed)
    burst = 2.2 if int(now / 11 + seed) % 7 == 0 else 1.0
    return max(made.load * slow * burst, 0.0)


def sight(made: Made, now: float, began: float) -> Answer:
    """As ``pydbt/core/seen/sight.py`` makes it of a status."""
    rate = wave(made, now)
    values: Answer = {
        "id": made.id, "machine": made.machine, "role": made.role, "name": made.name, "device": made.device,
        "level": "good", "words": f"up to date; normal for {int(now - began) // 60 + 63} min", "problem": "", "stale": False,
        "age_seconds": 0.4, "mode": "normal", "mode_since": moment(began - 3800), "replica_state": "up-to-date",
        "connected": True, "lag_seconds": 0.02 + rate / (900 * MIB), "lag_bytes": int(rate * 0.03),
        "out_of_sync_bytes": int(rate * 0.03) // 4096 * 4096, "unacknowledged_bytes": int(rate * 0.03) // 4096 * 4096,
        "last_in_sync": moment(now - 0.4), "last_verified": moment(began - 2.2 * 86400),
        "write_rate_bytes": rate, "wire_rate_bytes": rate * 1.03,
        "queue": {"size": 64 * MIB, "used": int(min(rate * 0.2, 60 * MIB))},
        "log": {"size": 16 * MIB, "used": int(min(rate * 0.03, 15 * MIB)), "start": 0, "end": 0, "active_transactions": 12},
        "progress": {"done_bytes": 0, "total_bytes": 0, "rate_bytes": 0, "eta_seconds": None, "still_seconds": None},
        "forecast": {"words": "in sync", "seconds": 0.0, "converges": True},
        "secondaries": [], "status": {"size_bytes": made.size_bytes, "block_bytes": 4096, "running": True, "role": made.role},
    }  # fmt: skip
    values |= SCENES[made.standing](made, now, began, rate)
    if made.role == "primary" and not values["secondaries"]:
        values["secondaries"] = [_secondary(values)]
    values["status"] |= {key: values[key] for key in ("mode", "replica_state", "log", "queue", "out_of_sync_bytes")}
    return values


def _secondary(values: Answer) -> Answer:
    keys = ("level", "mode", "mode_since", "replica_state", "connected", "lag_seconds", "lag_bytes", "out_of_sync_bytes",
            "unacknowledged_bytes", "last_in_sync", "progress")  # fmt: skip
    return {key: values[key] for key in keys} | {"secondary": "10.0.0.2:7790", "connection_problem": values["problem"]}


def _good(made: Made, now: float, began: float, rate: float) -> Answer:
    return {}


def _cut_off(made: Made, now: float, began: float, rate: float) -> Answer:
    since = began - 754
    out = int(min(rate * (now - since), made.size_bytes / 40)) // 4096 * 4096
    return {
        "level": "bad", "mode": "unsynchronized", "mode_since": moment(since), "replica_state": "outdated", "connected": False,
        "lag_seconds": now - since, "lag_bytes": out, "out_of_sync_bytes": out, "unacknowledged_bytes": 0,
        "last_in_sync": moment(since), "wire_rate_bytes": 0.0, "problem": "no route to 10.0.0.7",
        "words": f"behind by {out / GIB:.1f} GiB; unsynchronized for {int(now - since) // 60} min; "
                 "not connected: no route to 10.0.0.7",
        "forecast": {"words": "", "seconds": None, "converges": None},
    }  # fmt: skip


def _silent(made: Made, now: float, began: float, rate: float) -> Answer:
    age = now - began + 41
    return {
        "level": "unknown", "stale": True, "age_seconds": age, "lag_seconds": None, "lag_bytes": None, "out_of_sync_bytes": None,
        "unacknowledged_bytes": None, "write_rate_bytes": None, "wire_rate_bytes": None,
        "problem": "the controller does not answer",
        "words": f"STALE: the controller does not answer; {age:.0f} s ago: up to date; normal for 3 h 12 min",
        "last_in_sync": moment(began - 41), "last_verified": None, "queue": {}, "log": {},
        "forecast": {"words": "", "seconds": None, "converges": None},
    }  # fmt: skip


def _resynchronizing(made: Made, now: float, began: float, rate: float) -> Answer:
    total = 412 * GIB
    part = min(0.34 + (now - began) / 900, 0.99)
    left = int(total * (1 - part)) // 4096 * 4096
    seconds = (1 - part) * 900
    return {
        "level": "behind", "mode": "resynchronizing", "mode_since": moment(began - 460), "replica_state": "outdated",
        "lag_seconds": now - began + 2212, "lag_bytes": left, "out_of_sync_bytes": left,
        "unacknowledged_bytes": int(rate), "last_in_sync": moment(began - 2212), "wire_rate_bytes": 470 * MIB,
        "progress": {"done_bytes": total - left, "total_bytes": total, "rate_bytes": 470 * MIB, "eta_seconds": seconds,
                     "still_seconds": None},
        "words": f"behind by {left / GIB:.0f} GiB; resynchronizing for {int(now - began + 460) // 60} min; {int(part * 100)} %",
        "forecast": {"words": f"in sync in {int(seconds) // 60} min {int(seconds) % 60} s", "seconds": seconds,
                     "converges": True},
    }  # fmt: skip


def _will_not_converge(made: Made, now: float, began: float, rate: float) -> Answer:
    values = _resynchronizing(made, now, began, rate)
    left = int((now - began) * 45 * MIB + 88 * GIB) // 4096 * 4096
    words = "will not converge at this rate: writes 140 MiB/s, link 95.0 MiB/s"
    values |= {
        "out_of_sync_bytes": left, "lag_bytes": left, "wire_rate_bytes": 95.0 * MIB,
        "progress": {"done_bytes": 310 * GIB, "total_bytes": 310 * GIB + left, "rate_bytes": 95 * MIB, "eta_seconds": None,
                     "still_seconds": None},
        "words": f"behind by {left / GIB:.1f} GiB; resynchronizing for 41 min; no end in sight: as much is written",
        "forecast": {"words": words, "seconds": None, "converges": False},
        "log": {"size": 16 * MIB, "used": 13 * MIB}, "queue": {"size": 64 * MIB, "used": 61 * MIB},
    }  # fmt: skip
    return values


def _stopped(made: Made, now: float, began: float, rate: float) -> Answer:
    return {
        "level": "stopped", "stale": True, "mode": "stopped", "age_seconds": now - began + 90000, "connected": False,
        "replica_state": "consistent", "lag_seconds": None, "lag_bytes": 12 * MIB, "out_of_sync_bytes": 12 * MIB,
        "unacknowledged_bytes": None, "last_in_sync": moment(began - 90000), "write_rate_bytes": None, "wire_rate_bytes": None,
        "words": "no controller is running", "problem": "no controller is running", "queue": {}, "log": {},
        "forecast": {"words": "", "seconds": None, "converges": None},
    }  # fmt: skip


def _several(made: Made, now: float, began: float, rate: float) -> Answer:
    base: Answer = {
        "mode": "normal", "mode_since": moment(began - 3800), "replica_state": "up-to-date", "connected": True,
        "connection_problem": "", "lag_seconds": 0.1, "lag_bytes": int(rate * 0.04), "out_of_sync_bytes": int(rate * 0.04),
        "unacknowledged_bytes": int(rate * 0.04), "last_in_sync": moment(now - 0.5), "progress": {}, "level": "good",
    }  # fmt: skip
    far = base | {
        "secondary": "far.example:7790", "mode": "resynchronizing", "replica_state": "outdated", "lag_seconds": 61.0,
        "out_of_sync_bytes": 310 * MIB, "last_in_sync": moment(began - 61), "level": "behind",
    }  # fmt: skip
    secondaries = [base | {"secondary": "10.0.0.2:7790"}, base | {"secondary": "10.0.0.3:7790"}, far]
    return {
        "level": "behind", "mode": "resynchronizing", "replica_state": "outdated", "secondaries": secondaries,
        "out_of_sync_bytes": 310 * MIB, "lag_seconds": 61.0, "last_in_sync": moment(began - 61),
        "words": "behind by 310 MiB, 1 min 1 s; resynchronizing (1 of 3 secondaries) for 1 min",
        "forecast": {"words": "in sync in 12 s", "seconds": 12.0, "converges": True},
    }  # fmt: skip


def _replica(made: Made, now: float, began: float, rate: float) -> Answer:
    return {
        "mode": "streaming", "words": "up to date; streaming", "lag_bytes": None, "lag_seconds": None, "out_of_sync_bytes": None,
        "unacknowledged_bytes": None, "write_rate_bytes": None, "wire_rate_bytes": rate, "queue": {},
        "log": {"size": 2 * GIB, "used": 70 * MIB}, "forecast": {"words": "", "seconds": None, "converges": None},
    }  # fmt: skip


SCENES = {
    "good": _good,
    "cut-off": _cut_off,
    "silent": _silent,
    "resynchronizing": _resynchronizing,
    "will not converge": _will_not_converge,
    "stopped": _stopped,
    "several": _several,
    "replica": _replica,
}


def overview(made: list[Made], now: float, began: float) -> Answer:
    """As of ``/api/overview``: three machines, one of which answers nothing."""
    machines = []
    for name in ("alpha", "beta", "gamma"):
        is_there = name != "gamma"
        machines.append(
            {
                "name": name,
                "reachable": is_there,
                "problem": "" if is_there else "10.0.0.9:7791: connection refused",
                "heard_seconds": 0.4 if is_there else now - began + 41,
                "volumes": [sight(one, now, began) for one in made if one.machine == name],
            }
        )
    return {"now": now, "version": "0.1.0", "machines": machines}

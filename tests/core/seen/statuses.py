"""Statuses of primaries and secondaries, as a controller tells them, for the tests of what is seen."""

from __future__ import annotations

from typing import Any


def secondary_keys(address: str = "10.0.0.2:7790", **changed: Any) -> dict[str, Any]:
    """What a primary tells of one secondary that has everything."""
    return {
        "secondary": address,
        "connected": True,
        "connection_problem": "",
        "refused": "",
        "mode": "normal",
        "replica_state": "up-to-date",
        "taints": [],
        "unreadable": {"bytes": 0, "places": []},
        "unwritable": {"bytes": 0, "places": []},
        "out_of_sync_bytes": 0,
        "lag_seconds": 0.0,
        "verify": {"running": None, "last": None, "rest": None},
        "progress": {"done_bytes": 0, "total_bytes": 0, "still_seconds": None},
        "persist_problem": "",
        "epochs": None,
        "statistics": {"log_full": 0},
        **changed,
    }


def primary(*secondaries: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The status of a volume; with one secondary that has everything when none is given."""
    several = secondaries or (secondary_keys(),)
    return {**several[0], "role": "primary", "identity": None, "notices": [], "secondaries": list(several), **changed}


def secondary(**changed: Any) -> dict[str, Any]:
    """The status of a replica that follows."""
    return {
        "role": "secondary",
        "mode": "streaming",
        "replica_state": "up-to-date",
        "connected": True,
        "silent_seconds": 0.1,
        "problem": "",
        "target_problem": "",
        "unwritable": {"bytes": 0, "places": []},
        "identity": None,
        **changed,
    }

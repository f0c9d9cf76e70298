"""The status of replication by images."""

from __future__ import annotations

from tests.lab.cluster import Cluster

ADDRESSES = ("--capture", "addresses")


def epochs(both: Cluster) -> dict:
    return (both.status() or {}).get("epochs") or {"number": 0}

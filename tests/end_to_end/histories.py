"""The secondary of writers that number their sectors: what was acknowledged, and what it holds when it is killed."""

from __future__ import annotations

from tests.lab.cluster import Cluster
from tests.lab.sectors import Writer, check


def acknowledged(both: Cluster, everybody: list[Writer], timeout_s: float) -> list[int] | None:
    """What each writer had completed before a wait that came true."""
    completed = [writer.completed for writer in everybody]
    return completed if both.try_wait(timeout_s).code == 0 else None


def kill_and_check(both: Cluster, everybody: list[Writer], known: list[int], number: int) -> None:
    """Kill the secondary under load: what it then holds is a prefix of every history, not before what was acknowledged.

    In the middle of a first copy it says that it is inconsistent, and then holds no moment of the volume.
    """
    both.secondary.kill()
    image = both.snapshot("snapshot")
    print(f"kill {number}: {both.replayed.strip()}; acknowledged {known} of {[w.completed for w in everybody]}")
    if not both.replayed.startswith("inconsistent"):
        check(image, everybody, known)
    else:
        assert not any(known), "it was consistent before"
    both.start_secondary()

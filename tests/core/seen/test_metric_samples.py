"""Each series has one value, their number is bounded, and a value of the past is not told as one of now."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pydbt.core.seen.metric import Buckets
from pydbt.core.seen.metric_samples import ALL_METRICS, SECONDARIES_MAX, VOLUMES_MAX, samples_of

STATUS: dict[str, Any] = {
    "running": True, "role": "primary", "mode": "normal", "replica_state": "up-to-date", "connected": True,
    "out_of_sync_bytes": 4096, "lag_seconds": 0.5, "last_in_sync": "1970-01-01T00:01:40Z", "written_bytes": 10,
    "size_bytes": 1 << 20, "secondaries": [{"secondary": "h:1", "connected": True, "lag_seconds": 0.5}],
    "verify": {"last": {"ended": "1970-01-01T00:00:40Z", "differing_bytes": 0}},
}  # fmt: skip


def seen(name: str = "data", status: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    made = {"id": "0" * 16, "role": "primary", "name": name, "device": "/dev/vdb", "level": "good", "stale": False}
    return {**made, "age_seconds": 0.2, "status": STATUS if status is None else status, **changes}


def values(*volumes: dict[str, Any], **machine: Any) -> dict[str, dict[tuple[str, ...], float | Buckets]]:
    known = {"name": "alpha", "reachable": True, "heard_seconds": 0.1, "volumes": list(volumes), **machine}
    made = {}
    for samples in samples_of([known]):
        assert all(len(labels) == len(samples.metric.all_labels) for labels, _ in samples.values)
        counts = Counter(labels for labels, _ in samples.values)
        assert not [labels for labels, count in counts.items() if count > 1], "Prometheus refuses such a scrape"
        made[samples.metric.name] = dict(samples.values)
    return made


KEY = ("alpha", "primary", "data")


def test_a_volume_that_follows_has_its_figures() -> None:
    made = values(seen())
    assert made["pydbt_up"][KEY] == 1 and made["pydbt_out_of_sync_bytes"][KEY] == 4096
    assert made["pydbt_last_in_sync_timestamp_seconds"][KEY] == 100.0
    assert made["pydbt_replica_state"][(*KEY, "up-to-date")] == 1 and made["pydbt_mode"][(*KEY, "normal")] == 1
    assert made["pydbt_secondary_lag_seconds"][(*KEY, "h:1")] == 0.5
    assert made["pydbt_machine_reachable"] == {("alpha",): 1.0}


@pytest.mark.parametrize(
    ("volume", "machine"),
    [({"stale": True, "level": "unknown"}, {}), ({}, {"reachable": False})],
    ids=["its controller is silent", "its machine is not reached"],
)
def test_an_old_status_tells_only_what_stays_true(volume: dict[str, Any], machine: dict[str, Any]) -> None:
    made = values(seen(**volume), **machine)
    assert made["pydbt_up"][KEY] == 0
    assert made["pydbt_replica_state"][(*KEY, "up-to-date")] == 0
    assert made["pydbt_replica_state"][(*KEY, "unknown")] == made["pydbt_mode"][(*KEY, "unknown")] == 1
    for name in ("pydbt_connected", "pydbt_lag_seconds", "pydbt_out_of_sync_bytes", "pydbt_written_bytes_total"):
        assert not made[name], name
    assert made["pydbt_last_in_sync_timestamp_seconds"][KEY] == 100.0, "alerts on its age go on"
    assert made["pydbt_last_verified_timestamp_seconds"][KEY] == 40.0


def test_a_controller_that_has_ended_is_down_and_its_state_is_the_one_it_wrote() -> None:
    ended = {**STATUS, "running": False, "mode": "stopped", "replica_state": "outdated"}
    made = values(seen(status=ended, level="stopped", stale=True))
    assert made["pydbt_up"][KEY] == 0 and made["pydbt_mode"][(*KEY, "stopped")] == 1
    assert made["pydbt_replica_state"][(*KEY, "outdated")] == 1 and not made["pydbt_out_of_sync_bytes"]


def test_a_synchronization_has_its_progress_and_stands_still_for_0_seconds_while_it_moves() -> None:
    progress = {"done_bytes": 3, "total_bytes": 10, "rate_bytes": 1, "eta_seconds": None, "still_seconds": None}
    made = values(seen(status={**STATUS, "mode": "resynchronizing", "progress": progress}))
    assert made["pydbt_resync_still_seconds"][KEY] == 0 and made["pydbt_resync_size_bytes"][KEY] == 10
    assert not made["pydbt_resync_remaining_seconds"]
    assert not values(seen())["pydbt_resync_still_seconds"]


IO: dict[str, Any] = {
    "state": "attached", "operations": {
        "read": {"requests": 5, "bytes": 20480, "errors": 0, "latency": {
            "total": {"bounds_seconds": [0.001, 0.002], "counts": [2, 2, 1], "sum_seconds": 0.5},
            "device": {"bounds_seconds": [0.001], "counts": "damaged", "sum_seconds": 0.5},
        }},
        "fsync\n": {"requests": 7},
    },
}  # fmt: skip


def test_block_io_has_values_only_while_it_is_observed_and_what_is_damaged_has_none() -> None:
    made = values(seen(status={**STATUS, "block_io": IO}))
    assert made["pydbt_block_io_observed"][KEY] == 1
    assert made["pydbt_block_io_requests_total"] == {(*KEY, "read"): 5.0}, "no name of others is a label"
    latency = made["pydbt_block_io_latency_seconds"]
    assert latency == {(*KEY, "read", "total"): Buckets((0.001, 0.002), (2, 4, 5), 0.5)}
    idle = values(seen(status={**STATUS, "block_io": {"state": "idle", "operations": {}}}))
    assert idle["pydbt_block_io_observed"][KEY] == 0 and not idle["pydbt_block_io_requests_total"]
    assert not values(seen())["pydbt_block_io_observed"], "a controller of an earlier version does not tell"


def test_the_names_of_others_cannot_make_a_series_twice() -> None:
    made = values(seen("data"), seen("data"), seen("data (2)"), seen("x" * 4096), seen("x" * 4095))
    assert len(made["pydbt_up"]) == 5 and ("alpha", "primary", "data (2)") in made["pydbt_up"]


def test_secondaries_with_one_address_cannot_make_a_series_twice() -> None:
    status = {**STATUS, "secondaries": [{"secondary": "h:1", "connected": True}] * 2}
    assert len(values(seen(status=status))["pydbt_secondary_connected"]) == 2


def test_the_number_of_series_is_bounded_and_what_is_left_out_is_counted() -> None:
    status = {**STATUS, "secondaries": [{"secondary": f"h:{number}", "connected": True} for number in range(100)]}
    made = values(*(seen(f"v{number}", status=status) for number in range(VOLUMES_MAX + 7)))
    assert len(made["pydbt_up"]) == VOLUMES_MAX
    assert len(made["pydbt_secondary_connected"]) == VOLUMES_MAX * SECONDARIES_MAX
    assert made["pydbt_left_out"][("alpha",)] == 7 + VOLUMES_MAX * (100 - SECONDARIES_MAX)


def test_a_machine_that_tells_nonsense_has_no_values_but_its_own() -> None:
    made = values(volumes=["x", {"role": 7, "status": "no"}, None], heard_seconds="x")
    assert made["pydbt_machine_reachable"] == {("alpha",): 1.0} and not made["pydbt_machine_heard_seconds"]
    assert set(made["pydbt_up"].values()) == {0.0}


def test_each_metric_is_there_once_also_without_values() -> None:
    names = [samples.metric.name for samples in samples_of([])]
    assert names == [metric.name for metric in ALL_METRICS] and len(set(names)) == len(names)

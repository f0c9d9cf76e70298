"""A real Prometheus scrapes a running pair: each query of Grafana and each alert's expression returns what it should."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, ensure_bpffs, loop_device
from tests.lab.patience import until
from tests.lab.served_dashboard import Machine, serving
from tests.monitoring.grafana import queries
from tests.monitoring.real_prometheus import Prometheus, prometheus

pytestmark = pytest.mark.prometheus

MIB = 1 << 20
SIZE = 64 * MIB
# Panels of what does not go on while a pair is in sync, and was never verified.
EMPTY_IN_SYNC = {"Synchronization", "Time left", "Since the last verification", "Verification"}
PRIMARY = '{role="primary"}'
WRITES = '{role="primary", operation="write"}'


@contextlib.contextmanager
def watched_pair(tmp_path: Path) -> Iterator[tuple[Device, Cluster, Prometheus]]:
    """Both sides on one machine, which has nothing else, as far as its dashboard knows."""
    ensure_bpffs()
    machine = Machine(tmp_path / "machine")
    with (
        loop_device(tmp_path, SIZE) as device,
        cluster(
            machine.folder / "lib", device, primary_options=("--rate-limit", "4M/s", "--block-io", "always")
        ) as both,
    ):
        both.start()
        both.wait()
        token = tmp_path / "token"
        with serving(machine, "--metrics-only", "--token-file", token) as dashboard:
            host, port = dashboard.address
            with prometheus(tmp_path / "prometheus", f"{host}:{port}", token) as found:
                yield device, both, found


def write(device: Device, block: int, blocks: int = 1) -> None:
    words = ("oflag=direct", "conv=notrunc", "status=none", "bs=4096", f"seek={block}", f"count={blocks}")
    subprocess.run(["dd", "if=/dev/urandom", f"of={device.path}", *words], check=True, timeout=60)


def results(found: Prometheus) -> dict[str, list[float]]:
    """Panel -> the values of all of its queries. Prometheus refuses none of them."""
    made: dict[str, list[float]] = {}
    for query in queries():
        made.setdefault(query.panel, []).extend(value for _, value in found.query(query.sent))
    return made


def until_value(found: Prometheus, expression: str, wanted: float) -> None:
    until(lambda: found.value(expression) == wanted, f"{expression} is {wanted}")


def test_every_query_and_alert_on_a_running_pair(tmp_path: Path) -> None:
    with watched_pair(tmp_path) as (device, both, found):
        in_sync(device, both, found)
        resynchronized(device, both, found)
        verified(both, found)
        killed(both, found)


def in_sync(device: Device, both: Cluster, found: Prometheus) -> None:
    until_value(found, 'pydbt_replica_state{role="primary", state="up-to-date"}', 1.0)
    until_value(found, f"pydbt_block_io_observed{PRIMARY}", 1.0)
    before = found.value(f"pydbt_written_bytes_total{PRIMARY}") or 0.0

    def written() -> bool:
        write(device, 100, 8)
        rate, latency = found.value(f"rate(pydbt_written_bytes_total{PRIMARY}[4s])"), median()
        io = found.value(f"rate(pydbt_block_io_requests_total{WRITES}[4s])")
        return bool(rate) and latency is not None and bool(io)

    def median() -> float | None:
        buckets = "sum by (le) (rate(pydbt_acknowledgement_latency_seconds_bucket[4s]))"
        return found.value(f"histogram_quantile(0.5, {buckets})")

    until(written, "writes have a rate, and acknowledgements a latency")
    assert (found.value(f"pydbt_written_bytes_total{PRIMARY}") or 0.0) >= before + 8 * 4096
    status = both.status() or {}
    counted = found.value("pydbt_acknowledgement_latency_seconds_count") or 0.0
    assert 8 <= counted <= sum(status["statistics"]["acknowledgement_latency"]["counts"])
    timed, counted = "pydbt_block_io_latency_seconds_count", "pydbt_block_io_requests_total"
    part = found.value(f'{timed}{{operation="write", part="total"}} / ignoring(part) {counted}{{operation="write"}}')
    assert part == 1.0, "each write is timed at this rate"
    shown = results(found)
    empty = {panel for panel, values in shown.items() if not values}
    assert empty == EMPTY_IN_SYNC, {panel: shown[panel] for panel in empty ^ EMPTY_IN_SYNC}
    assert shown["Not good"] == [0.0] and shown["Controllers that answer"] == [2.0, 2.0]
    assert shown["How each stands"] == [1.0, 1.0] and shown["Oldest replica"][0] < 60
    assert all(0 <= value <= 30 for value in shown["Acknowledgement latency"])
    assert all(0 <= value <= 1 for value in shown["Room in use"]) and set(shown["Tainted or refused"]) == {0.0}
    assert set(shown["Losses by reason"]) == {0.0} and max(shown["Lag"]) < 60
    for alert, expression in found.rules().items():
        assert not found.query(expression) or alert == "PydbtNotAudited", alert
    assert not [alert for alert, state in found.alerts().items() if state == "firing"]


def resynchronized(device: Device, both: Cluster, found: Prometheus) -> None:
    assert both.secondary.terminate() == 0
    write(device, 0, 8192)
    until_value(found, 'pydbt_mode{role="primary", mode="unsynchronized"}', 1.0)
    until_value(found, 'pydbt_up{role="secondary"}', 0.0)
    assert (found.value(f"pydbt_out_of_sync_bytes{PRIMARY}") or 0.0) >= 8 * MIB
    assert found.query(found.rules()["PydbtControllerSilent"])
    both.start_secondary()
    until(lambda: found.value("pydbt_resync_done_bytes > 0") is not None, "a synchronization moves")
    shown = results(found)
    assert all(0 < value < 1 for value in shown["Synchronization"]) and shown["Time left"]
    assert found.value("pydbt_resync_still_seconds") == 0.0
    quiet = {"PydbtReplicaOld", "PydbtReplicaVeryOld", "PydbtNoProgress", "PydbtNeverInSync", "PydbtMapUnsaved"}
    for alert in quiet:
        assert not found.query(found.rules()[alert]), f"{alert}: a synchronization that moves is no alert"
    both.wait()
    until_value(found, 'pydbt_replica_state{role="primary", state="up-to-date"}', 1.0)
    until(lambda: found.value("pydbt_resync_size_bytes") is None, "its progress is gone")
    assert (found.value("pydbt_resyncs_total") or 0.0) >= 2.0


def verified(both: Cluster, found: Prometheus) -> None:
    both.primary.ask("verify")
    until(lambda: found.value("pydbt_last_verified_timestamp_seconds") is not None, "a verification has ended")
    shown = results(found)
    assert 0 <= shown["Since the last verification"][0] < 600
    assert found.value("pydbt_last_verified_differing_bytes") == 0.0


def killed(both: Cluster, found: Prometheus) -> None:
    last = found.value(f"pydbt_last_in_sync_timestamp_seconds{PRIMARY}")
    assert last is not None
    both.primary.kill()
    killed_at = time.monotonic()
    until_value(found, f"pydbt_up{PRIMARY}", 0.0)
    until_value(found, 'pydbt_replica_state{role="primary", state="up-to-date"}', 0.0)
    assert found.value(f"pydbt_lag_seconds{PRIMARY}") is None, "of the past nothing is told as of now"
    # A status that a killed controller had saved is a few seconds older.
    assert (found.value(f"pydbt_last_in_sync_timestamp_seconds{PRIMARY}") or 0.0) >= last - 30
    ((labels, value),) = found.query(found.rules()["PydbtControllerSilent"])
    assert (labels["role"], labels["volume"], value) == ("primary", "primary", 0.0)
    until(
        lambda: found.alerts().get("PydbtControllerSilent primary") == "pending", "the alert waits for its five minutes"
    )
    assert results(found)["Not good"] == [1.0] or results(found)["Not good"] == [2.0]
    age = found.rules()["PydbtReplicaOld"].replace("> 900", "> 1")
    until(lambda: bool(found.query(age)), "the age of the last in-sync grows without a controller")
    since_s = max(int(time.monotonic() - killed_at), 1)  # before it, a synchronization had begun without a known moment
    gaps = f"count_over_time(absent(pydbt_last_in_sync_timestamp_seconds{PRIMARY})[{since_s}s:1s])"
    assert not found.query(gaps), "an alert on its age would begin anew"

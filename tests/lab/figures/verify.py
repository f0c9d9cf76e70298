"""How fast a verification is, against reading the slower side alone, and what its digests weigh on the wire."""

from __future__ import annotations

import time
from typing import Any

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.cluster import cluster
from tests.lab.disks import Device, image, loop_over
from tests.lab.figures.folders import disk_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import run, until, wait_until
from tests.lab.programs import Controller

NAME = "verify"
# Each look at the status is work for the controller that is measured; the time until the last one is part of the figure.
_LOOK_INTERVAL_S = 0.02


def measure(quick: bool) -> list[Figure]:
    """The whole volume, with nothing else going on, against dd of the replica and of the source, direct, in turn."""
    size = (256 if quick else 2048) * MIB
    values: list[float] = []
    shares: list[float] = []
    speeds: list[tuple[float, float]] = []
    with (
        disk_folder(4 * size) as folder,
        loop_over(image(folder / "source.img", size, seed=1), "--direct-io=on") as disk,
        loop_over(image(folder / "target.img", size), "--direct-io=on") as target,
        cluster(folder, disk, plain=True, primary_options=("--whole-device",), target=target.path) as both,
    ):
        both.start()
        source = both.primary
        until(source.is_normal, "the first synchronization is done", 600)
        source.ask("wait")
        both.until_applied()
        for _ in range(2 if quick else 4):
            slower = max(_read_seconds(disk, size), _read_seconds(target, size))
            sent, began = source.status()["sent_bytes"], time.monotonic()
            _verify(source)
            took = time.monotonic() - began
            if source.status()["verify"]["last"]["differing_bytes"]:
                raise MachineError("the verification found blocks that differ")
            values.append(slower / took)
            shares.append((source.status()["sent_bytes"] - sent) / size)
            speeds.append((size / took / 1e6, size / slower / 1e6))
    ours, theirs = speeds[len(speeds) // 2]
    return [
        figure(NAME, "verify : dd of the slower side", f"{ours:,.0f} : {theirs:,.0f} MB/s", "x", values, bar=0.8),
        figure(
            NAME, "digests on the wire : compared", f"{size / MIB:,.0f} MiB", "x", shares, bar=0.006, at_least=False
        ),
    ]


def _verify(source: Controller) -> None:
    """To its end."""
    before: dict[str, Any] | None = source.status()["verify"]["last"]

    def ended() -> bool:
        verification = source.status()["verify"]
        return not verification["running"] and verification["last"] != before

    source.ask("verify")
    wait_until(ended, "the verification is over", 600, _LOOK_INTERVAL_S)


def _read_seconds(device: Device, size_bytes: int) -> float:
    began = time.monotonic()
    run("dd", f"if={device}", "of=/dev/null", "bs=1M", f"count={size_bytes // MIB}", "iflag=direct", "status=none")
    return time.monotonic() - began

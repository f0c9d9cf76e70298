"""How fast a verification is, against reading the slower side alone, and what its digests weigh on the wire."""

from __future__ import annotations

import time

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.figures.controllers import free_port, primary, secondary
from tests.lab.figures.disks import disk_folder, fill, loop_device, run, wait_until
from tests.lab.figures.report import Figure, figure

NAME = "verify"
# Each look at the status is work for the controller that is measured; the time until the last one is part of the figure.
_LOOK_INTERVAL_S = 0.02


def measure(quick: bool) -> list[Figure]:
    """The whole volume, with nothing else going on, against dd of the replica and of the source, direct, in turn."""
    size = (256 if quick else 2048) * MIB
    ratios: list[float] = []
    shares: list[float] = []
    speeds: list[tuple[float, float]] = []
    with disk_folder(4 * size) as folder:
        fill(folder / "source.img", size)
        address = f"127.0.0.1:{free_port()}"
        with (
            loop_device(folder / "source.img", size, direct=True) as disk,
            loop_device(folder / "target.img", size, direct=True) as target,
            secondary(target.path, folder / "secondary", address) as replica,
            primary(disk.path, folder / "primary", address, "--whole-device") as source,
        ):
            wait_until(source.in_sync, "the first synchronization is done", 600)
            source.ask("wait")
            wait_until(lambda: not replica.status()["unapplied_bytes"], "the journal is applied", 120)
            for _ in range(2 if quick else 4):
                slower = max(_read(disk.path, size), _read(target.path, size))
                sent, began = source.status()["sent_bytes"], time.monotonic()
                before = source.status()["verify"]["last"]
                source.ask("verify")
                wait_until(lambda last=before: _ended(source, last), "the verification is over", 600, _LOOK_INTERVAL_S)
                took = time.monotonic() - began
                if source.status()["verify"]["last"]["differing_bytes"]:
                    raise MachineError("the verification found blocks that differ")
                ratios.append(slower / took)
                shares.append((source.status()["sent_bytes"] - sent) / size)
                speeds.append((size / took / 1e6, size / slower / 1e6))
    ours, theirs = speeds[len(speeds) // 2]
    return [
        figure(NAME, "verify : dd of the slower side", f"{ours:,.0f} : {theirs:,.0f} MB/s", "x", ratios, bar=0.8),
        figure(
            NAME, "digests on the wire : compared", f"{size / MIB:,.0f} MiB", "x", shares, bar=0.006, at_least=False
        ),
    ]


def _ended(source, before) -> bool:
    verification = source.status()["verify"]
    return not verification["running"] and verification["last"] != before


def _read(path, size_bytes: int) -> float:
    began = time.monotonic()
    run("dd", f"if={path}", "of=/dev/null", "bs=1M", f"count={size_bytes // MIB}", "iflag=direct", "status=none")
    return time.monotonic() - began

"""A small volume that is in sync, single blocks that are written to it, and the one question to its status."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydbt.core.units import MIB
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device
from tests.lab.patience import run

SIZE = 64 * MIB
BLOCK = 4096


def write(device: Device, block: int, blocks: int = 1) -> None:
    words = ("oflag=direct", "conv=notrunc", "status=none", f"bs={BLOCK}", f"seek={block}", f"count={blocks}")
    run("dd", "if=/dev/urandom", f"of={device.path}", *words)


@contextlib.contextmanager
def in_sync(tmp_path: Path, *options: object, wired: bool = False) -> Iterator[tuple[Device, Cluster]]:
    with (
        loop_device(tmp_path, SIZE) as device,
        cluster(tmp_path / "c", device, wired=wired, primary_options=options) as both,
    ):
        both.start()
        both.wait()
        yield device, both


def is_up_to_date(status: dict | None) -> bool:
    return (status or {}).get("replica_state") == "up-to-date"

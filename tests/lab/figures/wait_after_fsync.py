"""How long a program waits, after its fsync, until its transaction is on the secondary: over the control socket."""

from __future__ import annotations

import os
import time

from pydbt.controller import control
from pydbt.core.units import KIB, MIB
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import image, loop_over, make_filesystem, mounted
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.report import Figure, figure, ratios
from tests.lab.patience import until

NAME = "wait-after-fsync"
_VOLUME_BYTES = 128 * MIB


def measure(quick: bool) -> list[Figure]:
    """Both controllers, and the disks of both, are in memory of this machine: what is left is the time of the way."""
    repetitions = 20 if quick else 200
    synced: list[float] = []
    waited: list[float] = []
    with (
        memory_folder(4 * _VOLUME_BYTES) as folder,
        loop_over(image(folder / "source.img", _VOLUME_BYTES)) as disk,
        cluster(folder / "c", disk, plain=True) as both,
    ):
        make_filesystem(
            "ext4", disk.path, "-b", "4096"
        )  # smaller ones share blocks of the volume, which are compared then
        both.start()
        until(both.primary.is_normal, "the first synchronization is done", 300)
        with mounted(disk, folder / "mnt") as mount:
            descriptor = os.open(mount / "rows", os.O_CREAT | os.O_WRONLY)
            try:
                for number in range(repetitions + 5):
                    began = time.monotonic()
                    os.pwrite(descriptor, os.urandom(4 * KIB), number * 4 * KIB)
                    os.fsync(descriptor)
                    between = time.monotonic()
                    assert _wait(both) or number < 5, "the transaction has no number"
                    synced.append(1000 * (between - began))
                    waited.append(1000 * (time.monotonic() - between))
            finally:
                os.close(descriptor)
    del synced[:5], waited[:5]  # the log is joined in its middle
    measured = "wait --transaction current over the control socket, after an fsync"
    return [
        figure(NAME, "acknowledged by the secondary", measured, "ms", waited, bar=5.0, at_least=False),
        figure(NAME, "... the fsync before it", "one block, with its commit", "ms", synced),
        figure(NAME, "... wait / fsync", "pair by pair", "x", ratios(waited, synced)),
    ]


def _wait(both: Cluster) -> bool:
    """Whether the transaction that was waited for has a name."""
    request = {"command": "wait", "timeout": 30, "any": False, "sync": False, "transaction": "current"}
    return control.call(both.primary_state, request, 60)["transaction"] is not None

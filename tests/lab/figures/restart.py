"""How long a controller that was killed takes until it is in sync again, on programs that never stopped."""

from __future__ import annotations

import os
import time

import numpy as np

from pydbt.core.units import MIB
from tests.lab.cluster import cluster
from tests.lab.disks import image, loop_over
from tests.lab.figures.folders import disk_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import until, wait_until
from tests.lab.raw import write_scattered_blocks

NAME = "restart"
_BLOCK_BYTES = 4096
_WRITTEN_BLOCKS = 500
_LOOK_S = 0.002


def measure(quick: bool) -> list[Figure]:
    """SIGKILL, writes while nobody runs, start; from the start of the process to mode normal (nothing is compiled)."""
    size = (128 if quick else 512) * MIB
    seconds: list[float] = []
    with (
        disk_folder(4 * size) as folder,
        loop_over(image(folder / "source.img", size, seed=1)) as disk,
        cluster(folder, disk, plain=True, primary_options=("--whole-device",)) as both,
    ):
        both.start()
        until(both.primary.is_normal, "the first synchronization is done", 300)
        for turn in range(3 if quick else 7):
            both.primary.ask("wait")
            both.primary.kill()
            blocks = np.random.default_rng(turn).integers(0, size // _BLOCK_BYTES, _WRITTEN_BLOCKS)
            write_scattered_blocks(disk.path, blocks.tolist(), _BLOCK_BYTES, turn)
            os.sync()
            began = time.monotonic()
            both.start_primary()
            wait_until(both.primary.is_normal, "in sync again", 60, _LOOK_S)
            seconds.append(time.monotonic() - began)
    measured = f"{_WRITTEN_BLOCKS} blocks written meanwhile"
    return [figure(NAME, "controller killed, started again, normal", measured, "s", seconds, bar=1.0, at_least=False)]

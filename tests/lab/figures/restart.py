"""How long a controller that was killed takes until it is in sync again, on programs that never stopped."""

from __future__ import annotations

import os
import time

import numpy as np

from pydbt.core.units import MIB
from tests.lab.figures.controllers import Controller, free_port, primary, secondary
from tests.lab.figures.disks import disk_folder, fill, loop_device, wait_until, write_scattered_blocks
from tests.lab.figures.report import Figure, figure

NAME = "restart"
_BLOCK_BYTES = 4096
_WRITTEN_BLOCKS = 500


def measure(quick: bool) -> list[Figure]:
    """SIGKILL, writes while nobody runs, start; from the start of the process to mode normal (nothing is compiled)."""
    size = (128 if quick else 512) * MIB
    seconds: list[float] = []
    with disk_folder(4 * size) as folder:
        fill(folder / "source.img", size)
        address = f"127.0.0.1:{free_port()}"
        state_dir = folder / "primary"
        with (
            loop_device(folder / "source.img", size) as disk,
            secondary(folder / "target.img", folder / "secondary", address, "--create", str(size)),
            primary(disk.path, state_dir, address, "--whole-device") as source,
        ):
            wait_until(source.in_sync, "the first synchronization is done", 300)
            for turn in range(3 if quick else 7):
                source.ask("wait")
                source.process.kill()
                source.process.wait()
                blocks = np.random.default_rng(turn).integers(0, size // _BLOCK_BYTES, _WRITTEN_BLOCKS)
                write_scattered_blocks(disk.path, blocks, _BLOCK_BYTES, turn)
                os.sync()
                began = time.monotonic()
                again = Controller(
                    "primary",
                    ["run", str(disk.path), "--secondary", address, "--state", str(state_dir), "--whole-device"],
                    state_dir,
                )
                wait_until(again.in_sync, "in sync again", 60)
                seconds.append(time.monotonic() - began)
                source.process = again.process
    measured = f"{_WRITTEN_BLOCKS} blocks written meanwhile"
    return [figure(NAME, "controller killed, started again, normal", measured, "s", seconds, bar=1.0, at_least=False)]

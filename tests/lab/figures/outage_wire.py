"""After an outage: bytes that crossed the wire against bytes of the blocks that differed."""

from __future__ import annotations

import numpy as np

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.cluster import cluster
from tests.lab.disks import Device, image, loop_over
from tests.lab.figures.folders import disk_folder
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import run, until
from tests.lab.raw import DirectWriter, write_scattered_blocks

NAME = "outage-wire"
_BLOCK_BYTES = 4096
_OPTIONS = ("--whole-device", "--ack-timeout", "2")


def measure(quick: bool) -> list[Figure]:
    """Cut the link, write, mend it; count on the link itself until the replica is in sync again."""
    rounds = 2 if quick else 3
    size = (128 if quick else 512) * MIB
    values, wire_total, differing_total = [], 0, 0
    with (
        disk_folder(4 * size) as folder,
        loop_over(image(folder / "source.img", size, seed=1)) as disk,
        cluster(folder, disk, wired=True, primary_options=_OPTIONS) as both,
    ):
        both.start()
        source = both.primary
        until(source.is_normal, "the first synchronization is done", 300)
        for turn in range(rounds):
            source.ask("wait")
            both.wire.cut()
            _write(disk, size, turn)
            until(lambda: source.status()["mode"] == "unsynchronized", "the outage is noticed")
            both.until_applied()
            run("sync", "-f", folder)
            differing = both.differing() * _BLOCK_BYTES
            before = both.wire.wire_bytes()
            both.wire.mend()
            until(source.is_normal, "in sync again", 300)
            source.ask("wait")
            wire = both.wire.wire_bytes() - before
            values.append(wire / differing)
            wire_total, differing_total = wire_total + wire, differing_total + differing
        both.until_applied()
        if both.differing():
            raise MachineError("the images differ although the controller calls them in sync")
    measured = f"{wire_total / MIB:.2f} MiB : {differing_total / MIB:.2f} MiB"
    return [figure(NAME, "wire after an outage : blocks that differ", measured, "x", values, bar=1.03, at_least=False)]


def _write(disk: Device, size_bytes: int, seed: int) -> None:
    """Two parts scattered single blocks, some of them twice, and one part a contiguous run."""
    blocks = size_bytes // _BLOCK_BYTES
    generator = np.random.default_rng(seed)
    write_scattered_blocks(disk.path, generator.integers(0, blocks, blocks // 50).tolist(), _BLOCK_BYTES, seed)
    length = size_bytes // 100 // MIB * MIB or MIB
    with DirectWriter(disk.path, length, private=True) as writer:
        data = generator.bytes(length)
        writer.put(int(generator.integers(0, (size_bytes - length) // MIB)) * MIB, data)

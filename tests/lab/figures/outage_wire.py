"""After an outage: bytes that crossed the wire against bytes of the blocks that differed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.figures.controllers import network_link, primary, secondary
from tests.lab.figures.disks import (
    differing_blocks,
    direct_writer,
    disk_folder,
    fill,
    loop_device,
    page_aligned,
    run,
    wait_until,
    write_scattered_blocks,
)
from tests.lab.figures.report import Figure, figure

NAME = "outage-wire"
_BLOCK_BYTES = 4096
_PORT = 7790


def measure(quick: bool) -> list[Figure]:
    """Cut the link, write, mend it; count on the link itself until the replica is in sync again."""
    rounds = 2 if quick else 3
    size = (128 if quick else 512) * MIB
    values, wire_total, differing_total = [], 0, 0
    with disk_folder(4 * size) as folder, network_link() as link:
        fill(folder / "source.img", size)
        target = folder / "target.img"
        address = f"{link.far_address}:{_PORT}"
        with (
            loop_device(folder / "source.img", size) as disk,
            secondary(
                target, folder / "secondary", address, "--insecure", "--create", str(size), namespace=link.namespace
            ) as replica,
            primary(
                disk.path, folder / "primary", address, "--insecure", "--whole-device", "--ack-timeout", "2"
            ) as source,
        ):
            wait_until(source.in_sync, "the first synchronization is done", 300)
            for turn in range(rounds):
                source.ask("wait")
                link.cut()
                _write(disk.path, size, turn)
                wait_until(lambda: source.status()["mode"] == "unsynchronized", "the outage is noticed")
                wait_until(lambda: not replica.status()["unapplied_bytes"], "the journal is applied")
                run("sync", "-f", folder)
                differing = differing_blocks(disk.image, target) * _BLOCK_BYTES
                before = link.wire_bytes()
                link.mend()
                wait_until(source.in_sync, "in sync again", 300)
                source.ask("wait")
                wire = link.wire_bytes() - before
                values.append(wire / differing)
                wire_total, differing_total = wire_total + wire, differing_total + differing
            wait_until(lambda: not replica.status()["unapplied_bytes"], "the journal is applied")
            if differing_blocks(disk.image, target):
                raise MachineError("the images differ although the controller says that they are in sync")
    measured = f"{wire_total / MIB:.2f} MiB : {differing_total / MIB:.2f} MiB"
    return [figure(NAME, "wire after an outage : blocks that differ", measured, "x", values, bar=1.03, at_least=False)]


def _write(path: Path, size_bytes: int, seed: int) -> None:
    """Two parts scattered single blocks, some of them twice, and one part a contiguous run."""
    blocks = size_bytes // _BLOCK_BYTES
    generator = np.random.default_rng(seed)
    write_scattered_blocks(path, generator.integers(0, blocks, blocks // 50), _BLOCK_BYTES, seed)
    length = size_bytes // 100 // MIB * MIB or MIB
    buffer = page_aligned(length)
    buffer[:] = generator.bytes(length)
    descriptor = direct_writer(path)
    try:
        os.pwrite(descriptor, buffer, int(generator.integers(0, (size_bytes - length) // MIB)) * MIB)
    finally:
        os.close(descriptor)

"""Resynchronizing 1 % scattered blocks, against rsync of the same images."""

from __future__ import annotations

import contextlib
import statistics
import time
from pathlib import Path

import numpy as np

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.figures.controllers import free_port, primary, secondary
from tests.lab.figures.disks import (
    differing_blocks,
    disk_folder,
    fill,
    loop_device,
    run,
    wait_until,
    write_scattered_blocks,
)
from tests.lab.figures.report import Figure, figure, ratios

NAME = "resync"
_BLOCK_BYTES = 4096
_SHARE = 100  # one block of so many


def measure(quick: bool) -> list[Figure]:
    """Seconds from the moment the copy may begin until it is exact and durable; the same blocks for both."""
    rounds, size = (2, 512 * MIB) if quick else (3, 4096 * MIB)
    ours: list[float] = []
    theirs: list[float] = []
    with disk_folder(2 * size + size // 4) as folder:
        target = folder / "target.img"
        fill(folder / "source.img", size)
        run("cp", "--sparse=never", folder / "source.img", target)
        address = f"127.0.0.1:{free_port()}"
        with (
            loop_device(folder / "source.img", size) as disk,
            contextlib.ExitStack() as stack,
        ):
            keeper = stack.enter_context(secondary(target, folder / "secondary", address))
            source = stack.enter_context(primary(disk.path, folder / "primary", address, "--assume-in-sync"))
            wait_until(source.in_sync, "replication is on", 600)
            for turn in range(rounds):
                source.ask("pause")
                generator = np.random.default_rng(100 + turn)
                count = size // _BLOCK_BYTES
                blocks = generator.choice(count, count // _SHARE, replace=False)
                write_scattered_blocks(disk.path, blocks, _BLOCK_BYTES, turn)
                run("sync", "-f", folder)
                wait_until(lambda: not keeper.status()["unapplied_bytes"], "the journal is applied")
                before = _blocks_of(target, blocks)
                began = time.monotonic()
                source.ask("resume")
                wait_until(source.in_sync, "in sync again", 600)
                source.ask("wait")
                ours.append(time.monotonic() - began)
                # The replica is as it was before, for rsync; afterwards it is in sync again.
                source.ask("pause")
                wait_until(lambda: not keeper.status()["unapplied_bytes"], "the journal is applied")
                if differing_blocks(disk.image, target):
                    raise MachineError("the images differ although the controller says that they are in sync")
                _put_back(target, blocks, before)
                run("sync", "-f", folder)
                began = time.monotonic()
                run("rsync", "--inplace", "--no-whole-file", "--ignore-times", disk.image, target)
                theirs.append(time.monotonic() - began)
                source.ask("resume")
                wait_until(source.in_sync, "replication is on", 600)
    values = ratios(theirs, ours)
    measured = f"{statistics.median(ours):.2f} s : {statistics.median(theirs):.1f} s of {size // MIB} MiB"
    return [figure(NAME, "resync of 1 % : rsync", measured, "x faster", values, bar=20.0)]


def _blocks_of(image: Path, blocks: np.ndarray) -> list[bytes]:
    with image.open("rb", buffering=0) as file:
        contents = []
        for block in blocks.tolist():
            file.seek(block * _BLOCK_BYTES)
            contents.append(file.read(_BLOCK_BYTES))
        return contents


def _put_back(image: Path, blocks: np.ndarray, contents: list[bytes]) -> None:
    with image.open("r+b", buffering=0) as file:
        for block, content in zip(blocks.tolist(), contents, strict=True):
            file.seek(block * _BLOCK_BYTES)
            file.write(content)

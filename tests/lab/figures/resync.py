"""Resynchronizing 1 % scattered blocks, against rsync of the same images."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from pydbt.core.errors import MachineError
from pydbt.core.units import MIB
from tests.lab.cluster import cluster
from tests.lab.disks import image, loop_over
from tests.lab.figures.folders import disk_folder
from tests.lab.figures.report import Figure, figure, ratios
from tests.lab.images import Numbers
from tests.lab.patience import run, until, wait_until
from tests.lab.raw import write_scattered_blocks

NAME = "resync"
_BLOCK_BYTES = 4096
_SHARE = 100  # one block per this many
_LOOK_S = 0.002


def measure(quick: bool) -> list[Figure]:
    """Seconds from the moment the copy may begin until it is exact and durable; the same blocks for both."""
    rounds, size = (2, 512 * MIB) if quick else (3, 4096 * MIB)
    ours: list[float] = []
    theirs: list[float] = []
    with disk_folder(2 * size + size // 4) as folder:
        original = image(folder / "source.img", size, seed=1)
        target = folder / "target.img"
        run("cp", "--sparse=never", original, target)
        with (
            loop_over(original) as disk,
            cluster(folder, disk, plain=True, primary_options=("--assume-in-sync",), target=target) as both,
        ):
            both.start()
            source = both.primary
            until(source.is_normal, "replication is on", 600)
            for turn in range(rounds):
                source.ask("pause")
                generator = np.random.default_rng(100 + turn)
                count = size // _BLOCK_BYTES
                blocks = generator.choice(count, count // _SHARE, replace=False)
                write_scattered_blocks(disk.path, blocks.tolist(), _BLOCK_BYTES, turn)
                run("sync", "-f", folder)
                both.until_applied()
                before = _blocks_of(target, blocks)
                began = time.monotonic()
                source.ask("resume")
                wait_until(source.is_normal, "in sync again", 600, _LOOK_S)
                source.ask("wait")
                ours.append(time.monotonic() - began)
                # The replica is as it was before, for rsync; afterwards it is in sync again.
                source.ask("pause")
                both.until_applied()
                if both.differing():
                    raise MachineError("the images differ although the controller calls them in sync")
                _put_back(target, blocks, before)
                run("sync", "-f", folder)
                began = time.monotonic()
                run("rsync", "--inplace", "--no-whole-file", "--ignore-times", original, target)
                theirs.append(time.monotonic() - began)
                source.ask("resume")
                until(source.is_normal, "replication is on", 600)
    values = ratios(theirs, ours)
    measured = f"{statistics.median(ours):.2f} s : {statistics.median(theirs):.1f} s of {size // MIB} MiB"
    return [figure(NAME, "resync of 1 % : rsync", measured, "x faster", values, bar=20.0)]


def _blocks_of(image: Path, blocks: Numbers) -> list[bytes]:
    with image.open("rb", buffering=0) as file:
        contents = []
        for block in blocks.tolist():
            file.seek(block * _BLOCK_BYTES)
            contents.append(file.read(_BLOCK_BYTES))
        return contents


def _put_back(image: Path, blocks: Numbers, contents: list[bytes]) -> None:
    with image.open("r+b", buffering=0) as file:
        for block, content in zip(blocks.tolist(), contents, strict=True):
            file.seek(block * _BLOCK_BYTES)
            file.write(content)

"""After a power loss the comparison begins where the log of the file system tells of changes, and leaves out nothing."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest

from pydbt.core.units import MIB
from tests.end_to_end.test_faults_in_resync import come_back, lost_power
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.patience import run
from tests.lab.rounds import short

SIZE = 320 * MIB
FILLED = 160 * MIB
SIZED = r"([\d.,]+ \w+)"
FOUND = re.compile(
    rf"of {SIZED} that differed, {SIZED} were found in the first {SIZED} of the comparison, "
    rf"and {SIZED} where the log of the file system, or the last writes to the secondary, had told of changes \({SIZED}"
)


def small_files(folder: Path, chance: random.Random, count: int) -> None:
    """What a mail server does: each file is written, synced, and some of them are removed."""
    for _ in range(count):
        path = folder / f"mail{chance.randrange(200)}"
        with open(path, "wb") as file:
            file.write(chance.randbytes(chance.randrange(1, 9000)))
            os.fsync(file.fileno())
        if chance.random() < 0.2:
            path.unlink()


def told_of_the_order(both: Cluster) -> dict[str, str]:
    found = FOUND.findall(both.primary_log.read_text())
    assert found, both.tails()
    return dict(zip(("differing", "in the first", "percent", "likely", "compared first"), found[-1], strict=True))


@pytest.mark.parametrize(("kind", "ahead"), short(1, ("ext4", True), ("ext4", False), ("xfs", True), ("xfs", False)))
def test_blocks_that_the_log_names_are_compared_first_and_all_others_after_them(
    tmp_path: Path, chance: random.Random, kind: str, ahead: bool
) -> None:
    """``ahead``: the disk lost what the replica has; else the replica lacks what was on its way, and the disk has it."""
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem(kind, device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            (folder / "large").write_bytes(chance.randbytes(FILLED))
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            with mounted(device, tmp_path / "mnt") as folder:
                small_files(folder, chance, 100)
                both.wait()
                if not ahead:
                    both.secondary.freeze()
                    small_files(folder, chance, 100)
                run("fsfreeze", "--freeze", folder)  # an instant, for a copy that takes longer
                try:
                    lost_power(both, device, tmp_path / "instant")
                finally:
                    run("fsfreeze", "--unfreeze", folder)
                if ahead:
                    small_files(folder, chance, 100)
                    both.wait()
            come_back(both, device, tmp_path / "instant")
            if not ahead:
                both.secondary.thaw()
            both.start_primary()
            both.wait()
            statistics = (both.status() or {})["statistics"]
            found = told_of_the_order(both)
            print(f"{kind}, replica {'ahead' if ahead else 'behind'}: {found}")
            assert statistics["compared_bytes"] > FILLED, "not everything was compared"
            assert not found["likely"].startswith("0 "), found
            both.compare("after a power loss")

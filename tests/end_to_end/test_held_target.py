"""A target that `controller hold` holds is replicated to, stays held when the secondary is killed, and is free when promoted."""

from __future__ import annotations

import os
import random
from pathlib import Path

from pydbt.core.units import MIB
from tests.lab.cluster import cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.images import assert_identical
from tests.lab.load import write_files
from tests.lab.patience import until
from tests.lab.programs import Controller, command


def is_free(disk: Device) -> bool:
    try:
        os.close(os.open(disk, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


def test_a_held_target_is_taken_over_given_back_and_free_when_it_is_promoted(
    tmp_path: Path, chance: random.Random
) -> None:
    with loop_device(tmp_path / "a", 64 * MIB) as device, loop_device(tmp_path / "b", 64 * MIB) as target:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, target=target.path) as both:
            both.start_secondary()
            both.secondary.kill()  # its first start has made the record: before, there is nothing to hold
            hold = Controller(tmp_path / "hold.log", ["hold", target.path], both.secondary_state)
            until(lambda: "is held" in hold.words(), "it is held")
            both.start()
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.wait()
            both.secondary.kill()
            assert not is_free(target), "nobody could have taken it meanwhile"
            both.primary.kill()
            done = command("promote", target, "--state", both.secondary_state, "--force", timeout_s=120)
            assert done.code == 0, done
            assert hold.wait() == 0 and is_free(target), hold.words()
            assert_identical(device.path, target.path, 64 * MIB, "after the promotion")
            with mounted(target, tmp_path / "mnt") as folder:
                assert any(folder.iterdir())

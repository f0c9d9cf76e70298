"""A target that others changed becomes a replica again by a comparison of all of it, and is none before that."""

from __future__ import annotations

import os

import pytest

from tests.lab.cluster import cluster
from tests.lab.disks import loop_device, loop_over, make_filesystem, mounted
from tests.lab.load import trim
from tests.lab.patience import until
from tests.lab.programs import command
from tests.lab.rounds import short

MIB = 1 << 20
SIZE = 32 * MIB


@pytest.mark.parametrize("when", short(1, "stopped", "running"))
def test_a_target_that_was_cut_short_and_got_its_size_again_is_compared_as_a_whole(tmp_path, chance, when):
    with loop_device(tmp_path, SIZE) as device:
        device.path.write_bytes(chance.randbytes(SIZE))
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            both.until_applied()
            if when == "stopped":
                both.secondary.terminate()
                os.truncate(both.target, 4 * MIB)
                listen = ("--listen", both.address, "--state", both.secondary_state)
                command("secondary", both.target, *listen).refused(7, "give it its size again", "compared")
                os.truncate(both.target, SIZE)
                refused = command("promote", both.target, "--state", both.secondary_state, "--force")
                assert refused.code == 2 and "cannot be promoted" in refused.errors, refused
                both.start_secondary()
            else:
                os.truncate(both.target, 4 * MIB)
                until(lambda: "was cut short" in both.secondary.words(), "it is noticed")
                os.truncate(both.target, SIZE)
            until(lambda: "another replica" in both.primary.words(), "the primary takes it for another one")
            both.wait()
            both.compare("after it was cut short")


@pytest.mark.variant
def test_trimmed_space_of_a_device_that_promises_nothing_is_read_back_and_no_difference(tmp_path, chance):
    """A loop device over a device: the storage below is not known."""
    with loop_device(tmp_path, 64 * MIB) as below, loop_over(below.path) as device:
        make_filesystem("ext4", device.path)
        with (
            cluster(tmp_path / "c", device, primary_options=("--whole-device",)) as both,
            mounted(device, tmp_path / "mnt") as folder,
        ):
            both.start()
            both.wait()
            for _ in range(4):
                (folder / "file").write_bytes(chance.randbytes(3 * MIB))
                os.sync()
                (folder / "file").unlink()
                os.sync()
                trim(folder)
                both.wait()
            status = both.status()
            assert status["statistics"]["unsettled_blocks"]["discarded"] > 0 and status["mode"] == "normal"
            done = command("verify", "--state", both.primary_state, timeout_s=120)
            assert done.code == 0, done
            assert not both.status()["tainted"]

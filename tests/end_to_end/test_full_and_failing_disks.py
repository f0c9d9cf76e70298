"""Full disks and failing ones, on either side: said in words, nothing lost, and over when the cause is gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import cluster
from tests.lab.disks import Device, crowded_loop, loop_device, make_filesystem, mounted
from tests.lab.load import load
from tests.lab.patience import until
from tests.lab.programs import command
from tests.lab.raw import Hammer
from tests.lab.rounds import short

MIB = 1 << 20
SIZE = 64 * MIB


@contextlib.contextmanager
def small_disk(tmp_path: Path, size_bytes: int) -> Iterator[Path]:
    """A small file system of its own to keep a state directory on."""
    with loop_device(tmp_path / "small", size_bytes) as device:
        make_filesystem("ext4", device.path, "-m", "0")
        with mounted(device, tmp_path / "small-mnt") as folder:
            yield folder


def fill(folder: Path, leave_bytes: int = 0) -> Path:
    filler = folder / "filler"
    free = os.statvfs(folder)
    size = free.f_bavail * free.f_frsize - leave_bytes
    with filler.open("wb") as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    with contextlib.suppress(OSError), (folder / "filler2").open("wb", buffering=0) as file:
        while not leave_bytes:
            file.write(bytes(4096))
    return filler


def free(folder: Path) -> None:
    for name in ("filler", "filler2"):
        (folder / name).unlink(missing_ok=True)


def work(device: Device, chance, steps: int = 150) -> None:
    with Hammer(device.path, device.size_sectors, chance.randrange(1 << 30)) as hammer, load() as running:
        running.add(hammer, 0.002)
        until(lambda: running.steps > steps, "enough was written")


def test_a_full_state_directory_of_the_primary_loses_nothing(tmp_path, chance):
    with (
        loop_device(tmp_path, SIZE) as device,
        small_disk(tmp_path, 16 * MIB) as folder,
        cluster(tmp_path / "c", device) as both,
    ):
        both.primary_state = folder / "state"
        both.start()
        both.wait()
        fill(folder)
        work(device, chance)
        until(lambda: "cannot be written" in "".join(both.status()["notices"]), "the status says that nothing is kept")
        both.secondary.kill()  # the maps are to be written, and cannot be
        work(device, chance)
        until(lambda: both.status()["persist_problem"], "the status says that the maps are not written")
        both.primary.kill()
        free(folder)
        both.start()
        both.wait()
        both.compare("after the state directory was full")


def test_a_first_run_with_a_full_state_directory_is_refused(tmp_path):
    with (
        loop_device(tmp_path, SIZE) as device,
        small_disk(tmp_path, 16 * MIB) as folder,
        cluster(tmp_path / "c", device) as both,
    ):
        both.start_secondary()
        fill(folder)
        state = folder / "state"
        done = command("run", device.path, "--secondary", both.address, "--state", state)
        done.refused(7, "space")


@pytest.mark.variant
def test_a_full_state_directory_of_the_secondary_loses_nothing(tmp_path, chance):
    with (
        loop_device(tmp_path, SIZE) as device,
        small_disk(tmp_path, 96 * MIB) as folder,
        cluster(tmp_path / "c", device, secondary_options=("--journal-size", "64M")) as both,
    ):
        both.secondary_state = folder / "state"
        both.start()
        both.wait()
        fill(folder)
        work(device, chance, 400)
        assert both.secondary.alive and both.primary.alive
        free(folder)
        both.wait()
        both.compare("after the secondary's state directory was full")


@pytest.mark.variant
def test_a_nearly_full_secondary_lives_on_what_it_frees(tmp_path, chance):
    with (
        loop_device(tmp_path, SIZE) as device,
        small_disk(tmp_path, 96 * MIB) as folder,
        cluster(tmp_path / "c", device, secondary_options=("--journal-size", "16M")) as both,
    ):
        both.secondary_state = folder / "state"
        both.start()
        both.wait()
        fill(folder, leave_bytes=20 * MIB)
        work(device, chance, 600)
        both.wait()
        both.compare("with little room")


@pytest.mark.parametrize("killed", short(1, True, False))
def test_a_disk_of_the_secondary_that_fails_for_a_while_loses_nothing(tmp_path, killed, chance):
    """The target is a sparse image on a file system that is full: writes to it fail with EIO or ENOSPC."""
    with (
        loop_device(tmp_path, SIZE) as device,
        small_disk(tmp_path, 128 * MIB) as folder,
        cluster(tmp_path / "c", device, target=folder / "replica.img") as both,
    ):
        both.start()
        both.wait()
        fill(folder)
        work(device, chance, 400)
        until(lambda: "fail" in both.secondary.words() or "full" in both.secondary.words(), "it names the fault")
        assert both.secondary.alive and both.primary.alive
        assert (both.status() or {})["replica_state"] != "up-to-date" or both.try_wait(0.5).code == 8
        if killed:
            both.secondary.kill()
        free(folder)
        if killed:
            both.start_secondary()
        both.wait()
        both.compare("after the target's disk was full")


def test_an_image_whose_disk_was_full_is_promoted_with_all_that_was_acknowledged(tmp_path, chance):
    """The primary is lost before there is room again: the missing writes are in the journal, and nobody else has written."""
    with (
        loop_device(tmp_path, SIZE) as device,
        small_disk(tmp_path, 48 * MIB) as folder,
        cluster(tmp_path / "c", device, target=folder / "replica.img") as both,
    ):
        both.start()
        both.wait()
        fill(folder)
        with device.path.open("r+b") as file:
            file.seek(8 * MIB)
            file.write(chance.randbytes(MIB))
        until(lambda: "cannot be written" in both.replica.log.read_text(), "the image takes nothing")
        both.primary.kill()
        free(folder)
        until(lambda: (both.secondary_status() or {"target_problem": "?"})["target_problem"] == "", "it takes all")
        assert "another program" not in both.replica.log.read_text(), both.tails()
        assert (both.secondary_status() or {})["replica_state"] == "consistent", both.tails()
        outcome = command("promote", both.target, "--state", both.secondary_state, "--force", timeout_s=120)
        assert outcome.code == 0 and "everything the secondary had acknowledged is there" in outcome.output, outcome


@pytest.mark.variant
def test_a_small_disk_that_has_room_for_the_journal_is_never_called_full(tmp_path, chance):
    with (
        loop_device(tmp_path, SIZE) as device,
        small_disk(tmp_path, 48 * MIB) as folder,
        cluster(tmp_path / "c", device, secondary_options=("--journal-size", "16M")) as both,
    ):
        both.secondary_state = folder / "state"
        both.start()
        both.wait()
        work(device, chance)
        both.wait()
        both.compare("with a small journal")
        assert "is full" not in both.primary_log.read_text(), both.tails()


def test_a_target_on_a_loop_device_whose_file_system_is_full_is_not_taken_for_whole(tmp_path, chance):
    """The kernel tells of no error for a write that went in only in part."""
    with (
        loop_device(tmp_path, SIZE) as device,
        crowded_loop(tmp_path / "target", SIZE, 96 * MIB) as (target, filler),
        cluster(tmp_path / "c", device, target=target.path) as both,
    ):
        both.start()
        both.wait()
        fill(filler.parent, leave_bytes=12 * MIB)
        work(device, chance, 400)
        until(
            lambda: "is not there" in both.secondary.words() or "space" in both.secondary.words(), "it names the fault"
        )
        assert both.secondary.alive and both.primary.alive
        assert (both.status() or {})["replica_state"] != "up-to-date" or both.try_wait(0.5).code == 8
        free(filler.parent)
        both.wait()
        both.compare("after the file system behind the loop device was full")

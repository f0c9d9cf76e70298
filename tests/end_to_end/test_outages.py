"""Outages at random times under a real load: in the end both images are identical, byte for byte."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.harm import hurt
from tests.lab import raw
from tests.lab.cluster import cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted, partition_of
from tests.lab.load import Database, FileStress, Load, Sequential, load, trim
from tests.lab.patience import StepFailed, until
from tests.lab.rounds import short

MIB = 1 << 20
HURTS = ("cut", "kill secondary", "freeze secondary", "kill primary", "kill both", "pause")


# Any of these may be chosen by somebody; none may change the outcome.
PRIMARY_CHOICES = (
    (),
    (),
    ("--compress",),
    ("--no-digests",),
    ("--log-size", "64K"),
    ("--ring-size", "256K", "--record-ring-size", "16K"),
)
SECONDARY_CHOICES = ((), (), ("--no-stage",), ("--journal-size", "16M"))


@dataclass(frozen=True)
class Volume:
    """What is replicated: a file system, on what, tracked in blocks of which size."""

    filesystem: str
    options: tuple[str, ...] = ()
    block_bytes: int = 4096
    sector_bytes: int = 512
    partition: bool = False
    size_bytes: int = 160 * MIB

    def __str__(self) -> str:
        where = "partition" if self.partition else f"disk{self.sector_bytes}"
        return f"{self.filesystem}{''.join(self.options)}-{where}-{self.block_bytes}"


EXT4, XFS = Volume("ext4"), Volume("xfs", size_bytes=320 * MIB)
VOLUMES = short(
    2,
    Volume("ext4", ("-b", "1024"), block_bytes=512, partition=True),
    Volume("xfs", size_bytes=320 * MIB),
    Volume("ext4", ("-b", "4096"), sector_bytes=4096, block_bytes=65536),
    Volume("xfs", ("-b", "size=1024"), size_bytes=320 * MIB, block_bytes=1024, partition=True),
    Volume("xfs", ("-b", "size=65536"), size_bytes=320 * MIB),
)


@contextlib.contextmanager
def device_of(volume: Volume, folder: Path) -> Iterator[Device]:
    with loop_device(folder, volume.size_bytes + 4 * MIB, volume.sector_bytes, volume.partition) as disk:
        if not volume.partition:
            yield disk
            return
        # Neither its start nor its size is a multiple of 4 KiB.
        with partition_of(disk, 1, 2049, volume.size_bytes // 512 + 1) as partition:
            yield partition


def make_mountable(volume: Volume, device: Device, folder: Path) -> None:
    """Kernels before 6.12 mount no XFS whose blocks are larger than a page: there it gets blocks of 4 KiB."""
    make_filesystem(volume.filesystem, device.path, *volume.options)
    try:
        with mounted(device, folder):
            pass
    except StepFailed:
        assert "size=65536" in volume.options
        make_filesystem(volume.filesystem, device.path)


def file_loads(running: Load, folder: Path, chance: random.Random) -> Database:
    for number in range(2):
        running.add(FileStress(folder / f"stress{number}", chance.randrange(1 << 30)), 0.005)
    running.add(Sequential(folder / "large", chance.randrange(1 << 30)), 0.2)
    database = Database(folder / "rows.db", chance.randrange(1 << 30), chance.choice(["wal", "delete"]))
    running.add(database, 0.01)
    return database


@pytest.mark.parametrize("volume", VOLUMES, ids=str)
def test_a_file_system_under_load_survives_every_outage_identically(tmp_path, volume, chance, rounds):
    ours, theirs = chance.choice(PRIMARY_CHOICES), chance.choice(SECONDARY_CHOICES)
    print(*ours, *theirs)
    options = ("--block-size", volume.block_bytes, "--ack-timeout", 4, *ours)
    with device_of(volume, tmp_path) as device:
        make_mountable(volume, device, tmp_path / "mnt")
        with cluster(tmp_path / "c", device, wired=True, primary_options=options, secondary_options=theirs) as both:
            both.start()
            for number in range(rounds):
                hurts = [chance.choice(HURTS) for _ in range(2 + rounds // 10)]
                with mounted(device, tmp_path / "mnt") as folder, contextlib.ExitStack() as stack, load() as running:
                    database = file_loads(running, folder, chance)
                    stack.callback(database.close)
                    for how in hurts:
                        if chance.random() < 0.5:
                            both.give_time_to("normal", 10)
                        time.sleep(chance.uniform(0.0, 1.5))
                        print(f"round {number}: {how}; before: {(both.status() or {}).get('mode')}")
                        hurt(both, how, chance)
                    time.sleep(chance.uniform(0.0, 1.0))
                    running.stop()
                    trim(folder)
                both.wait()
                both.compare(f"round {number}, after {hurts}")
                status = both.status()
                assert not status["tainted"], status
                both.start_secondary()
            both.wait()


def test_mkfs_over_the_live_volume_is_replicated(tmp_path, chance):
    with loop_device(tmp_path, XFS.size_bytes) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.until_mode("normal")
            for kind in ("xfs", "ext4"):
                make_filesystem(kind, device.path)
                with mounted(device, tmp_path / "mnt") as folder, load() as running:
                    running.add(FileStress(folder / "a", chance.randrange(1 << 30)))
                    until(lambda r=running: r.steps > 60, "some work is done")
            both.wait()
            both.compare("after mkfs, twice")


@pytest.mark.parametrize(
    ("filesystem", "block_bytes"), short(1, ("ext4", 4096), ("xfs", 4096), ("ext4", 512), ("ext4", 65536))
)
def test_after_an_outage_hardly_more_than_what_differs_is_on_the_wire(tmp_path, filesystem, block_bytes, chance):
    size = EXT4.size_bytes if filesystem == "ext4" else XFS.size_bytes
    with loop_device(tmp_path, size) as device:
        make_filesystem(filesystem, device.path)
        # The whole device, since free space holds what was removed before the start, and an unwritten extent may show it later.
        options = ("--ack-timeout", 4, "--block-size", block_bytes, "--whole-device")
        with cluster(tmp_path / "c", device, wired=True, primary_options=options) as both:
            with mounted(device, tmp_path / "mnt") as folder:
                stress = FileStress(folder / "a", chance.randrange(1 << 30))
                for _ in range(150):
                    stress()
                both.start()
                both.wait()
                both.wire.cut()
                with load() as running:
                    running.add(stress)
                    running.add(Sequential(folder / "large", 1, 8 * MIB), 0.5)
                    until(lambda: running.steps > 300, "some work is done during the outage")
                    both.until_mode("unsynchronized")
            # Where only the log was full, what is queued for the old connection is sent as well once there is a wire again.
            until(lambda: is_given_up(both.status()), "the old connection is given up")
            both.until_applied()
            differing = both.differing() * 4096
            before = both.status()["sent_bytes"]
            both.wire.mend()
            both.wait()
            sent = both.status()["sent_bytes"] - before
            print(f"{filesystem}: {sent} bytes sent for {differing} that differed: {sent / differing:.4f}")
            print(both.primary.words())
            assert differing > 4 * MIB
            assert sent <= 1.03 * differing
            both.compare("after the outage")


def is_given_up(status: dict[str, object]) -> bool:
    """One that is only silent is not ``connected`` either, but still open: its problem counts tenths of a second."""
    return not status["connected"] and not re.search(r" for \d+\.\d s", str(status["connection_problem"]))


@pytest.mark.variant
def test_trimmed_space_that_was_empty_before_weighs_nothing_on_the_wire(tmp_path, chance):
    with loop_device(tmp_path, XFS.size_bytes) as device:
        make_filesystem("xfs", device.path)
        with cluster(tmp_path / "c", device, wired=True, primary_options=("--ack-timeout", 4)) as both:
            with mounted(device, tmp_path / "mnt") as folder:
                both.start()
                both.wait()
                both.wire.cut()
                (folder / "a").write_bytes(chance.randbytes(6 * MIB))
                assert trim(folder) > 100 * MIB
                both.until_mode("unsynchronized")
            both.until_applied()
            differing = both.differing() * 4096
            before = both.status()["sent_bytes"]
            both.wire.mend()
            both.wait()
            sent = both.status()["sent_bytes"] - before
            print(f"{sent} bytes sent for {differing} that differed: {sent / differing:.4f}")
            assert 6 * MIB <= differing < 16 * MIB
            assert sent <= 1.03 * differing
            both.compare("after a trim")


@pytest.mark.variant
def test_scattered_pages_of_large_blocks_are_not_sent_with_their_neighbours(tmp_path, chance):
    with loop_device(tmp_path, 256 * MIB) as device:
        options = ("--ack-timeout", 4, "--block-size", "64K")
        with cluster(tmp_path / "c", device, wired=True, primary_options=options) as both:
            with raw.Overlapping(device.path, 8, chance.randrange(1 << 30)) as writer:
                for at in range(0, 256 * MIB, MIB // 2):
                    writer.write(at // 512, 1024)
                both.start()
                both.wait()
                both.wire.cut()
                for page in chance.sample(range(256 * MIB // 4096), 1500):
                    writer.write(page * 8, 8)
            both.until_mode("unsynchronized")
            both.until_applied()
            differing = both.differing() * 4096
            before = both.status()["sent_bytes"]
            both.wire.mend()
            both.wait()
            sent = both.status()["sent_bytes"] - before
            print(f"{sent} bytes sent for {differing} that differed: {sent / differing:.4f}")
            assert differing == 1500 * 4096
            assert sent < 1.1 * differing, "64 KiB were sent where 4 differ"
            both.compare("after scattered writes")


def test_a_resynchronization_ends_while_programs_write_steadily_below_the_speed_of_the_line(tmp_path, chance):
    with (
        loop_device(tmp_path, EXT4.size_bytes) as device,
        cluster(tmp_path / "c", device, wired=True, primary_options=("--ack-timeout", 4)) as both,
    ):
        both.start()
        both.wait()
        both.wire.throttle(10 * MIB)
        both.wire.cut()
        writer = raw.Scattered(device.path, EXT4.size_bytes, chance.randrange(1 << 30))
        with writer, load() as running:
            running.add(writer, 0.001)  # less than 4 MiB per second
            both.until_mode("unsynchronized")
            until(lambda: both.status()["out_of_sync_bytes"] > 12 * MIB, "much differs")
            both.wire.mend()
            both.until_mode("normal")
            steps = running.steps
            both.wait()
            both.wait()
            assert running.steps > steps, "nothing was written meanwhile"
            assert both.status()["mode"] == "normal"
        both.wait()
        both.compare("after a resynchronization under steady writes")

"""Addresses only, on logical volumes: epochs are read from snapshots, and nothing of a broken one reaches the replica.

These need device-mapper and LVM: ``scripts/vm run tests/end_to_end/test_epochs_lvm.py`` where the kernel has none.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.end_to_end.histories import acknowledged
from tests.end_to_end.images import ADDRESSES, epochs
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.images import check_image
from tests.lab.load import Database, load
from tests.lab.patience import run, until, wait_until
from tests.lab.sectors import Writer, check, writers

MIB = 1 << 20
SIZE = 32 * MIB
# Seldom at rest, and still some time left for the controllers on an emulated machine.
PACE_S = 0.01


def _has_device_mapper() -> bool:
    """Of the kernel. Where LVM's programs are missing the tests fail: ``scripts/setup --tests`` installs them."""
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-a", "dm-mod", "dm-snapshot", "dm-thin-pool"], capture_output=True)
    return Path("/sys/class/misc/device-mapper").exists()


pytestmark = pytest.mark.skipif(not _has_device_mapper(), reason="this machine's kernel has no device-mapper")


@contextlib.contextmanager
def volume(folder: Path, kind: str, group_bytes: int = 160 * MIB) -> Iterator[tuple[str, Device]]:
    """A logical volume of ``SIZE`` in a group of its own: (the group's name, the volume)."""
    group = f"pydbttest{os.urandom(3).hex()}"
    with loop_device(folder, group_bytes) as disk:
        run("vgcreate", "--quiet", group, disk.path)
        try:
            if kind == "thin":
                run("lvcreate", "--quiet", "--yes", "--type", "thin-pool", "--size", "100M", "--name", "pool", group)
                run(
                    "lvcreate",
                    "--quiet",
                    "--yes",
                    "--thin",
                    "--virtualsize",
                    f"{SIZE}b",
                    "--name",
                    "data",
                    f"{group}/pool",
                )
            else:
                run("lvcreate", "--quiet", "--yes", "--size", f"{SIZE}b", "--name", "data", group)
            yield group, Device(Path(os.path.realpath(f"/dev/{group}/data")))
        finally:
            wait_until(lambda: not subprocess.run(["vgremove", "--force", "--yes", group], capture_output=True).returncode,
                       "the volume group is removed", 60)  # fmt: skip
            run("pvremove", "--yes", disk.path, check=False)


def snapshots(group: str) -> list[str]:
    report = json.loads(run("lvs", "--reportformat", "json", "-o", "lv_name", group))
    return [volume["lv_name"] for volume in report["report"][0]["lv"] if volume["lv_name"].startswith("pydbt_")]


def by_epochs(folder: Path, device: Device, *more: object) -> contextlib.AbstractContextManager[Cluster]:
    return cluster(folder, device, primary_options=(*ADDRESSES, "--epoch-interval", "0.5", *more))


def kill_secondary(both: Cluster, everybody: list[Writer]) -> None:
    """And go on writing for a while. Not until the secondary is back: checking is slow enough without that in a machine."""
    both.secondary.kill()
    before = sum(writer.completed for writer in everybody)
    until(lambda: sum(writer.completed for writer in everybody) > before + 50, "writes without a secondary")


def replicate_and_kill(both: Cluster, device: Device, kind: str, chance: random.Random, rounds: int) -> None:
    """Each writer waits for one write before the next: an image of several instants would hold n + 1 without n."""
    with contextlib.ExitStack() as stack:
        everybody = writers(device.path, 2, SIZE // 512, chance.randrange(1 << 30))
        for writer in everybody:
            stack.callback(writer.close)
        both.start()
        known = [0] * len(everybody)
        for number in range(rounds):
            with load() as running:
                for writer in everybody:
                    running.add(writer, PACE_S)
                both.until_mode("epochs")
                known = acknowledged(both, everybody, 120) or known
                status = epochs(both)
                kill_secondary(both, everybody)
            image = both.snapshot("snapshot")
            print(f"kill {number}: {both.replayed.strip()}; acknowledged {known}; {status}")
            check(image, everybody, known)
            both.start_secondary()
            assert status["kind"] == kind
        both.wait()
        both.compare("after everything")
        check(both.target, everybody, [writer.completed for writer in everybody], exactly=True)
        both.primary.terminate()


@pytest.mark.parametrize("kind", ["snapshot", "thin"])
def test_the_replica_of_a_volume_that_never_rests_is_an_image_of_one_instant(tmp_path, kind, chance, rounds):
    with volume(tmp_path, kind) as (group, device), by_epochs(tmp_path / "c", device) as both:
        replicate_and_kill(both, device, kind, chance, rounds)
        assert not snapshots(group)
        archived = [path for path in Path("/etc/lvm/archive").glob(f"{group}_*") if "pydbt_" in path.read_text()]
        assert not archived, "LVM keeps a file of every epoch"


def test_a_mounted_volume_gives_sound_file_systems_and_a_killed_controller_leaves_no_snapshot(tmp_path, chance):
    with volume(tmp_path, "snapshot") as (group, device), by_epochs(tmp_path / "c", device) as both:
        make_filesystem("ext4", device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            both.start()
            with contextlib.ExitStack() as stack, load() as running:
                database = Database(folder / "db", chance.randrange(1 << 30))
                stack.callback(database.close)
                running.add(database, PACE_S)
                both.until_mode("epochs")
                promised = database.committed
                both.wait()
                until(lambda: snapshots(group), "a snapshot stands")
                both.primary.kill()
                left = snapshots(group)
                both.secondary.kill()
                check_image("ext4", both.snapshot("snapshot"), tmp_path / "look", "db", promised)
                both.start()
                if left:
                    assert "had left a snapshot; it is removed" in both.primary.words()
                promised = database.committed
                both.wait()
            both.wait()
        both.wait()
        wait_until(lambda: not snapshots(group), "no snapshot is left", 60)
        both.compare("at rest")


# An epoch's last sweep takes its time, in which a snapshot stands.
SLOW = ("--rate-limit", "1M/s", "--no-digests", "--whole-device")
LEISURELY = ("--rate-limit", "8M/s", "--no-digests", "--whole-device")


def standing_snapshot() -> Device | None:
    """One that is complete, of whatever volume."""
    for line in run("dmsetup", "ls").splitlines():
        name = line.split()[0]
        if "pydbt_" not in name or name.endswith(("_below", "-cow", "-real")):
            continue
        status = run("dmsetup", "status", name, check=False).split()
        if status[2:3] in (["snapshot"], ["thin"]):
            return Device(Path(os.path.realpath(f"/dev/mapper/{name}")))
    return None


def compare_epochs(both: Cluster, device: Device, kind: str, chance: random.Random) -> None:
    """Epochs are made when they are waited for. While a snapshot stands the controller is stopped, and all of it is read."""
    with contextlib.ExitStack() as stack:
        everybody = writers(device.path, 2, SIZE // 512, chance.randrange(1 << 30))
        for writer in everybody:
            stack.callback(writer.close)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        both.start()
        compared = 0
        while compared < 2:
            both.until_mode("epochs")
            both.wait()
            before = epochs(both)["number"]
            with load() as running:
                for writer in everybody:
                    running.add(writer, PACE_S)
                time.sleep(1)
                waiting = pool.submit(both.wait)
                until(lambda waiting=waiting: standing_snapshot() or waiting.done(), "a snapshot stands")
                both.primary.freeze()
                snapshot = standing_snapshot()
                content = snapshot.contents().tobytes() if snapshot else b""
                both.primary.thaw()
            waiting.result()
            both.secondary.kill()
            if epochs(both)["number"] == before + 1 and content:  # and not one that was made anew
                assert epochs(both)["kind"] == kind
                assert both.snapshot("snapshot").read_bytes() == content
                assert device.contents().tobytes() != content, "nothing was written meanwhile"
                compared += 1
            both.start_secondary()
        both.primary.terminate()


@pytest.mark.parametrize("kind", ["snapshot", "thin"])
def test_the_replica_at_an_epoch_is_the_volume_at_that_moment_bit_for_bit(tmp_path, kind, chance):
    options = ("--epoch-interval", "1h", *LEISURELY)
    with volume(tmp_path, kind) as (_, device), by_epochs(tmp_path / "c", device, *options) as both:
        compare_epochs(both, device, kind, chance)


def overflow(both: Cluster, device: Device, chance: random.Random) -> None:
    """The room for snapshots is little, and soon overwritten."""
    with contextlib.ExitStack() as stack:
        everybody = writers(device.path, 2, SIZE // 512, chance.randrange(1 << 30))
        for writer in everybody:
            stack.callback(writer.close)
        both.start()
        both.until_mode("epochs")
        both.wait()
        known = [writer.completed for writer in everybody]
        with load() as running:
            for writer in everybody:
                running.add(writer, PACE_S)
            until(lambda: "became invalid" in epochs(both)["problem"], "a snapshot overflowed")
            status = both.status()
            assert status["replica_state"] == "consistent"
            assert status["out_of_sync_bytes"] > 0
            kill_secondary(both, everybody)
        check(both.snapshot("snapshot"), everybody, known)
        both.start_secondary()
        both.wait()
        assert epochs(both)["problem"] == ""
        both.compare("after the load")


def test_a_snapshot_whose_store_is_full_discards_its_epoch(tmp_path, chance):
    options = ("--snapshot-space", "4M", *SLOW)
    with volume(tmp_path, "snapshot") as (group, device), by_epochs(tmp_path / "c", device, *options) as both:
        overflow(both, device, chance)
        assert not snapshots(group)


def test_without_room_for_a_snapshot_the_file_system_is_frozen_and_that_is_told(tmp_path, chance):
    with volume(tmp_path, "snapshot", SIZE + 8 * MIB) as (_, device), by_epochs(tmp_path / "c", device) as both:
        make_filesystem("ext4", device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            both.start()
            both.until_mode("epochs")
            with load() as running:
                database = Database(folder / "db", chance.randrange(1 << 30))
                running.add(database, PACE_S)
                until(lambda: epochs(both)["kind"] == "freeze", "it is frozen")
                time.sleep(1)
            database.close()
            both.wait()
        both.wait()
        assert both.primary.words().count("no snapshot of") == 1
        both.compare("at rest")

"""Addresses only: the replica goes from one exact image of the volume to the next, and nobody is held up for long."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.histories import acknowledged, kill_and_check
from tests.end_to_end.images import ADDRESSES, epochs
from tests.lab import raw
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.images import check_image, decaying
from tests.lab.load import Database, FileStress, load
from tests.lab.patience import until, wait_until
from tests.lab.programs import Controller, command
from tests.lab.rounds import short
from tests.lab.sectors import check, writers

MIB = 1 << 20


def by_epochs(
    folder: Path, device: object, interval: str = "0.3s", *more: object
) -> contextlib.AbstractContextManager[Cluster]:
    return cluster(folder, device, primary_options=(*ADDRESSES, "--epoch-interval", interval, *more))


def test_at_every_kill_the_replica_of_a_raw_device_is_the_volume_at_one_instant(tmp_path, chance, rounds):
    """Each writer waits for one write before the next: an image of several instants would hold n + 1 without n."""
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(loop_device(tmp_path, 48 * MIB))
        both = stack.enter_context(by_epochs(tmp_path / "c", device))
        everybody = writers(device.path, 3, 48 * MIB // 512, chance.randrange(1 << 30))
        for writer in everybody:
            stack.callback(writer.close)
        both.start()
        known = [0] * len(everybody)
        for number in range(4 * rounds):
            with load() as running:
                for writer in everybody:
                    running.add(writer, 0.05)
                both.until_mode("epochs")
                before = epochs(both)["number"]
                until(lambda before=before: epochs(both)["number"] > before + 1, "epochs go on")
                known = acknowledged(both, everybody, 60) or known
                time.sleep(chance.uniform(0.0, 0.5))
                if chance.random() < 0.5:
                    both.primary.kill()
                    both.start_primary()
                kill_and_check(both, everybody, known, number)
        both.wait()
        both.compare("after everything")
        check(both.target, everybody, [writer.completed for writer in everybody], exactly=True)


@pytest.mark.variant
@pytest.mark.parametrize("filesystem", short(1, "ext4", "xfs"))
def test_under_load_every_epoch_holds_a_sound_file_system_and_every_row_waited_for(
    tmp_path, filesystem, chance, rounds
):
    with loop_device(tmp_path, (320 if filesystem == "xfs" else 160) * MIB) as device:
        make_filesystem(filesystem, device.path)
        with by_epochs(tmp_path / "c", device) as both, contextlib.ExitStack() as mounts:
            folder = mounts.enter_context(mounted(device, tmp_path / "mnt"))
            both.start()
            with contextlib.ExitStack() as stack, load() as running:
                database = Database(folder / "db", chance.randrange(1 << 30))
                stack.callback(database.close)
                running.add(database, 0.002)
                running.add(FileStress(folder / "files", chance.randrange(1 << 30)), 0.01)
                for number in range(3 * rounds):
                    both.until_mode("epochs")
                    promised = database.committed
                    both.wait()
                    time.sleep(chance.uniform(0.0, 1.0))
                    both.secondary.kill()
                    image = both.snapshot("snapshot")
                    rows = check_image(filesystem, image, tmp_path / "look", "db", promised)
                    print(
                        f"kill {number}: {rows} rows, {promised} promised, {database.committed} committed; {epochs(both)}"
                    )
                    both.start_secondary()
                both.until_mode("epochs")
                assert epochs(both)["frozen_ms_max"] < 5000
            both.wait()
            mounts.close()
            until(lambda: both.status()["replica_state"] == "up-to-date", "nothing is written any more")
            both.compare("after the load")


def frozen(folder: Path) -> bool:
    """Whether a write to a file system does not come to an end within a second."""
    probe = subprocess.Popen(["sh", "-c", f"echo x > {folder}/probe-$$"])
    try:
        probe.wait(1.0)
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        if probe.poll() is None:
            wait_until(lambda: probe.poll() is not None, "the file system takes writes again", 30)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Files written and synced by a process of its own: a thread of this one that waits in a page fault holds it up whole."""
    words = (
        f"i=0; while :; do i=$(((i + 1) % 40)); dd if=/dev/urandom of={folder}/load-$i bs=64k count=8 conv=fsync; "
        "sleep 0.03; done"
    )
    with subprocess.Popen(["sh", "-c", words], stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("hurt", short(1, "kill", "stop"))
def test_no_program_waits_for_a_frozen_file_system_whatever_happens_to_the_controller(tmp_path, chance, hurt, rounds):
    with loop_device(tmp_path, 128 * MIB) as device:
        make_filesystem("ext4", device.path)
        options = ("0.1s", "--freeze-limit", "0.5s")
        with by_epochs(tmp_path / "c", device, *options) as both, contextlib.ExitStack() as mounts:
            folder = mounts.enter_context(mounted(device, tmp_path / "mnt"))
            both.start()
            with writing(folder):
                until(
                    lambda: epochs(both)["number"] and epochs(both)["frozen_ms_max"] > 0, "it was frozen at least once"
                )
                for _ in range(6 * rounds):
                    both.until_mode("epochs")
                    time.sleep(chance.uniform(0.0, 0.4))
                    if hurt == "stop":
                        both.primary.freeze()
                        assert not frozen(folder)
                        both.primary.thaw()
                    else:
                        both.primary.kill()
                        assert not frozen(folder)
                        both.start_primary()
            both.wait()
            mounts.close()
            both.wait()
            both.compare("afterwards")


@pytest.mark.variant
def test_a_file_system_left_frozen_by_a_run_killed_with_its_helper_is_thawed_by_the_next_run(tmp_path, chance):
    with loop_device(tmp_path, 128 * MIB) as device:
        make_filesystem("ext4", device.path)
        with by_epochs(tmp_path / "c", device, "0.02s") as both, contextlib.ExitStack() as mounts:
            folder = mounts.enter_context(mounted(device, tmp_path / "mnt"))
            both.start()
            with writing(folder):
                until(
                    lambda: epochs(both)["number"] and epochs(both)["frozen_ms_max"] > 0, "it was frozen at least once"
                )
                was_frozen = False
                for _ in range(40):
                    group = [both.primary.process.pid, *children(both.primary)]
                    time.sleep(chance.uniform(0.0, 0.2))
                    for pid in group:  # as a service manager does it
                        os.kill(pid, signal.SIGKILL)
                    both.primary.wait()
                    was_frozen = bool(left_marker(both))
                    both.start_primary()
                    assert not frozen(folder)
                    if was_frozen:
                        break
                    both.until_mode("epochs")
                assert was_frozen, "no kill fell into a freeze"
            both.wait()
            mounts.close()
            both.wait()
            both.compare("afterwards")


def children(daemon: Controller) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends at this moment
            found += map(int, (task / "children").read_text().split())
    return found


def left_marker(both: Cluster) -> list[Path]:
    volume = (both.primary_state / "volume.json").read_text().replace("-", "")
    return [path for path in Path("/run/pydbt").glob("held-*") if path.name.removeprefix("held-") in volume]


def test_a_status_is_never_greener_than_the_last_snapshot(tmp_path, chance):
    with loop_device(tmp_path, 64 * MIB) as device, by_epochs(tmp_path / "c", device, "1000s") as both:
        both.start()
        both.until_mode("epochs")
        until(lambda: both.status()["replica_state"] == "up-to-date", "nothing was written since")
        first = both.status()
        with raw.Scattered(device.path, 64 * MIB, chance.randrange(1 << 30)) as writer:
            for _ in range(50):
                writer()
        status = both.status()
        assert status["replica_state"] == "consistent"
        assert status["out_of_sync_bytes"] >= both.differing() * 4096 > 0
        assert both.secondary_status()["replica_state"] == "consistent"
        assert status["last_in_sync"] <= first["last_in_sync"]
        assert status["epochs"]["number"] == first["epochs"]["number"]
        until(lambda: both.status()["lag_seconds"] > 1.0, "the lag grows")
        both.wait()
        assert epochs(both)["number"] == first["epochs"]["number"] + 1, "a wait asks for an epoch at once"
        until(lambda: both.status()["replica_state"] == "up-to-date", "all of it is in the epoch")
        both.until_applied()
        assert both.differing() == 0


@pytest.mark.variant
def test_after_an_outage_and_after_a_restart_only_what_was_written_is_copied(tmp_path, chance: random.Random):
    with loop_device(tmp_path, 256 * MIB) as device, by_epochs(tmp_path / "c", device) as both:
        both.primary_options = (*both.primary_options, "--whole-device", "--no-digests")
        both.start()
        both.wait()
        for event in ("secondary", "primary"):
            before = both.status()["sent_bytes"]
            getattr(both, event).kill()
            with raw.Scattered(device.path, 256 * MIB, chance.randrange(1 << 30)) as writer:
                for _ in range(64):
                    writer()
            getattr(both, f"start_{event}")()
            both.wait()
            sent = both.status()["sent_bytes"] - (before if event == "secondary" else 0)
            assert 0 < sent < 64 * 64 * 1024 + MIB, f"{sent} bytes were sent after {event} had been killed"
        down = command("down", "--state", both.primary_state)
        assert down.code == 0, down
        both.compare("after down")


@pytest.mark.variant
def test_a_verification_is_a_part_of_an_epoch_and_finds_what_nobody_wrote(tmp_path, chance):
    with loop_device(tmp_path, 64 * MIB) as device, by_epochs(tmp_path / "c", device) as both:
        both.start()
        with raw.Scattered(device.path, 32 * MIB, chance.randrange(1 << 30)) as writer, load() as running:
            running.add(writer, 0.02)
            both.wait()
            both.until_applied()
            refused = command("verify", "--state", both.primary_state)
            refused.refused(2, "--repair")
            with decaying(both.target, both.secondary.process.pid), both.target.open("r+b") as image:
                image.seek(50 * MIB)
                image.write(b"nobody wrote this")
            found = command("verify", "--state", both.primary_state, "--repair")
            assert found.code == 0, found
            assert "4.0 KiB differed and are copied" in found.output
            again = command("verify", "--state", both.primary_state, "--repair")
            assert "the same on both sides" in again.output, again
        both.wait()
        both.compare("after repair")


def test_a_volume_that_may_not_be_frozen_is_refused_in_a_sentence(tmp_path):
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device.path)
        with mounted(device, tmp_path / "mnt") as folder, (folder / "log").open("w") as log:
            arguments = ["run", device.path, "--secondary", "unix:/nonexistent", "--state", tmp_path / "s", *ADDRESSES]
            daemon = Controller(folder / "log", arguments)
            assert daemon.wait() == 2
            log.flush()
            assert "logs to a file on" in (folder / "log").read_text()
        assert not (tmp_path / "s").exists()

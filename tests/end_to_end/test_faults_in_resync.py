"""Failures during a resynchronization, of the link, on the disk, or all at once: in the end both images are identical."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.controller.primary.leftover import pin_dir_of
from pydbt.kernel.capture import Capture
from pydbt.store.volume_state import load_state, save_state
from tests.end_to_end.mid_resync import BEFORE, SIZE, in_mid_resync, is_resynchronizing
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, crowded_loop, loop_device, make_filesystem, mounted
from tests.lab.images import assert_identical
from tests.lab.load import Database, FileStress, load
from tests.lab.patience import run, until
from tests.lab.raw import Hammer
from tests.lab.rounds import short

MIB = 1 << 20


@pytest.mark.parametrize(
    ("victim", "options"),
    short(
        1, ("both", ()), ("secondary", ("--no-stage",)), ("secondary", ()), ("primary", ()), ("both", ("--no-stage",))
    ),
)
def test_killed_in_mid_resync_it_goes_on_and_ends_identical(tmp_path, chance, victim, options):
    with in_mid_resync(tmp_path, chance, *options) as both:
        before = both.status()["out_of_sync_bytes"]
        if victim != "secondary":
            both.primary.kill()
        if victim != "primary":
            both.secondary.kill()
            both.start_secondary()
        if victim != "secondary":
            both.start_primary()
        until(lambda: is_resynchronizing(both) or (both.status() or {}).get("mode") == "normal", "it goes on")
        status = both.status()
        assert status["replica_state"] != "up-to-date" or status["mode"] == "normal", status
        assert before > 0


@pytest.mark.variant
def test_cut_again_and_again_in_mid_resync_it_makes_progress_and_ends_identical(tmp_path, chance):
    with in_mid_resync(tmp_path, chance) as both:
        for _ in range(3):
            both.wire.cut()
            both.until_mode("unsynchronized")
            assert both.status()["replica_state"] != "up-to-date"
            both.wire.mend()
            until(lambda: is_resynchronizing(both) or (both.status() or {}).get("mode") == "normal", "it goes on")


@pytest.mark.variant
def test_during_a_staged_resync_the_last_consistent_image_can_be_taken(tmp_path, chance):
    with in_mid_resync(tmp_path, chance) as both:
        both.primary.kill()
        both.secondary.kill()
        look = both.snapshot("look")
        assert both.replayed.startswith("outdated at sequence"), both.replayed
        assert_identical(tmp_path / BEFORE, look, SIZE, "in the middle of a resynchronization")
        both.start()


@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
def test_writes_that_fail_on_the_primary_leave_both_images_the_same(tmp_path, chance, private):
    """Nobody knows the content that a failed write left on the disk: it counts as out of sync until it was read.

    A loop device takes those for done that went in only in part.
    """
    with crowded_loop(tmp_path, SIZE, 40 * MIB) as (device, filler), cluster(tmp_path / "c", device) as both:
        both.start()
        both.until_mode("normal")
        with Hammer(device.path, device.size_sectors, chance.randrange(1 << 30), private=private) as hammer:
            for _ in range(40):
                hammer()
            filler.write_bytes(bytes(os.statvfs(filler.parent).f_bavail * 4096 - MIB))
            failed = 0
            for _ in range(60):
                try:
                    hammer()
                except OSError:
                    failed += 1
            assert failed > 5, "no write failed"
            filler.unlink()
            for _ in range(20):
                hammer()
        both.wait()
        status = both.status()
        assert status["statistics"]["unsettled_blocks"]["failed"] > 0 and not status["notices"], status
        both.compare("after failed writes")


def test_power_loss_of_the_primary_ends_in_a_comparison_and_identical_images(tmp_path, chance):
    """The disk and the state directory as they were at one instant; later writes are on the secondary only."""
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            with mounted(device, tmp_path / "mnt") as folder, load() as running:
                running.add(FileStress(folder / "a", chance.randrange(1 << 30)), 0.005)
                until(lambda: running.steps > 60, "some work is done")
                run("fsfreeze", "--freeze", folder)  # an instant, for a copy that takes longer
                try:
                    lost_power(both, device, tmp_path / "instant")
                finally:
                    run("fsfreeze", "--unfreeze", folder)
                until(lambda: running.steps > 120, "more work is done and replicated")
            both.wait()
            come_back(both, device, tmp_path / "instant")
            both.start_primary()
            status = both.status()
            assert status["replica_state"] != "up-to-date" or status["mode"] == "normal"
            both.wait()
            assert both.status()["statistics"]["compared_bytes"] > SIZE // 4, "not everything was compared"
            both.compare("after a power loss")


def lost_power(both: Cluster, device: Device, to: Path) -> None:
    """Keep what the disk and the state directory hold at this instant."""
    to.mkdir()
    run("dd", f"if={device.path}", f"of={to / 'disk'}", "bs=1M", "iflag=direct", "status=none")
    shutil.copytree(both.primary_state, to / "state", ignore=shutil.ignore_patterns("*.sock", "control*"))


def come_back(both: Cluster, device: Device, instant: Path) -> None:
    """The machine boots again: no programs, another boot id, and the disk as it was."""
    pins = pin_dir_of(load_state(both.primary_state))
    both.primary.kill()
    Capture.remove_pins(pins)
    run("dd", f"if={instant / 'disk'}", f"of={device.path}", "bs=1M", "oflag=direct", "status=none")
    shutil.rmtree(both.primary_state)
    shutil.copytree(instant / "state", both.primary_state)
    state = load_state(both.primary_state)
    save_state(both.primary_state, replace(state, boot_id="11111111-2222-3333-4444-555555555555"))


def test_everything_at_once_is_survived_with_a_sound_database(tmp_path, chance):
    with loop_device(tmp_path, 160 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, wired=True, primary_options=("--ack-timeout", 4)) as both:
            both.start()
            both.until_mode("normal")
            with mounted(device, tmp_path / "mnt") as folder, contextlib.ExitStack() as stack, load() as running:
                database = Database(folder / "rows.db", chance.randrange(1 << 30), "wal")
                stack.callback(database.close)
                running.add(database, 0.01)
                until(lambda: running.steps > 30, "some rows are there")
                both.wire.cut()
                both.primary.freeze()
                both.secondary.kill()
                before = running.steps
                until(lambda: running.steps > before + 100, "the writers never notice")
                both.primary.kill()
                both.wire.mend()
                both.start()
                running.stop()
            both.wait()
            both.compare("after everything at once")


@pytest.mark.variant
def test_a_flapping_link_does_not_flood_the_log(tmp_path, chance):
    options = ("--ack-timeout", 1)
    with (
        loop_device(tmp_path, SIZE) as device,
        cluster(tmp_path / "c", device, wired=True, primary_options=options) as both,
    ):
        both.start()
        both.until_mode("normal")
        lines = [len(log.read_text().splitlines()) for log in both.logs]
        with Hammer(device.path, device.size_sectors, chance.randrange(1 << 30)) as hammer, load() as running:
            running.add(hammer, 0.02)
            for _ in range(12):
                both.wire.cut()
                until(lambda: (both.status() or {}).get("mode") == "unsynchronized", "the cut is noticed")
                both.wire.mend()
                until(lambda: (both.status() or {}).get("mode") != "unsynchronized", "it is connected again")
            running.stop()
        both.wait()
        grown = [len(log.read_text().splitlines()) - before for log, before in zip(both.logs, lines, strict=True)]
        assert max(grown) < 150, f"{grown} lines for twelve cuts\n{both.tails()}"
        both.compare("after a flapping link")

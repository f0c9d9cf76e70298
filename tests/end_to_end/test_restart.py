"""After any end of the last controller, the next one trusts no more than the writes that were really tracked."""

from __future__ import annotations

import contextlib
import json
import os
import time

import pytest

from pydbt.device.below import look_below
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel import pins, syscalls
from pydbt.store.map_file import load_map
from pydbt.store.secondary_record import MAP_FILE_NAME
from pydbt.store.volume_state import load_state
from tests.end_to_end.harm import lose_tracking, pins_of
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, attach, loop_device, make_filesystem, mounted
from tests.lab.load import FileStress, load, write_files
from tests.lab.patience import run, until
from tests.lab.programs import command
from tests.lab.rounds import short

MIB = 1 << 20
SIZE = 128 * MIB


@pytest.mark.parametrize("ended", short(1, "killed", "taken down"))
def test_untracked_writes_are_compared_also_when_the_first_run_after_them_compared_nothing(tmp_path, ended, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            lose_tracking(both)
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.secondary.kill()
            both.start_primary()  # it cannot reach anybody, so it compares nothing
            both.until_mode("unsynchronized")
            if ended == "killed":
                both.primary.kill()
            else:
                assert command("down", "--state", both.primary_state).code == 0
            both.start()
            both.wait()
            both.compare("after untracked writes and a run that came to nothing")


@pytest.mark.variant
@pytest.mark.parametrize("ended", short(1, "killed", "stopped"))
def test_a_device_that_was_away_while_its_programs_waited_for_it_is_compared(tmp_path, ended, chance):
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    path = attach(image).path
    try:
        with cluster(tmp_path / "c", Device(path)) as both:
            both.start()
            both.wait()
            both.primary.kill() if ended == "killed" else both.primary.terminate()
            run("losetup", "--detach", path)
            until(lambda: not run("losetup", "--associated", image).strip(), "the device is away")
            with image.open("r+b") as file:
                file.seek(chance.randrange(SIZE - MIB))
                file.write(chance.randbytes(MIB))
            run("losetup", path, image)
            both.start_primary()
            both.wait()
            both.compare("after the device was written elsewhere")
    finally:
        run("losetup", "--detach", path, check=False)


def is_map_clean(both: Cluster) -> bool:
    """A controller that is killed a moment after it is in sync may leave the map of before."""
    kept = load_map(both.primary_state / MAP_FILE_NAME)
    return kept is not None and not kept[1].any()


@pytest.mark.parametrize("ended", short(1, "killed", "not ended", "stopped"))
def test_a_file_behind_the_loop_device_that_is_written_past_it_taints_and_everything_is_compared(
    tmp_path, ended, chance
):
    with loop_device(tmp_path, SIZE) as device, cluster(tmp_path / "c", device) as both:
        both.start()
        with open(device.path, "r+b", buffering=0) as disk:
            disk.write(chance.randbytes(MIB))
            os.fsync(disk)
        both.wait()
        until(lambda: is_written_down(both), "the file at rest is written down")
        until(lambda: is_map_clean(both), "the map on disk is that of a volume in sync")
        if ended == "killed":
            both.primary.kill()
        elif ended == "stopped":
            both.primary.terminate()
        if ended != "not ended":
            assert known_without_controller(both) == 0
        with next(tmp_path.glob("disk-*.img")).open("r+b") as file:
            file.seek(MIB)
            file.write(chance.randbytes(MIB))
            file.flush()
            os.fsync(file.fileno())
        if ended != "not ended":
            assert known_without_controller(both) is None
            both.start_primary()
            assert "past it" in both.primary.words()
        else:
            until(lambda: "past it" in both.primary.words(), "the write is noticed")
            # 4: the comparison that answers the taint is under way already.
            assert command("verify", "--state", both.primary_state).code in (0, 4, 10)
        both.wait()
        assert both.status()["taints"] == []
        both.compare("after the file behind the loop device was written")


def is_written_down(both: Cluster) -> bool:
    """Whether the look on record is that of now: the device has rested for a while."""
    kept = load_state(both.primary_state).more.get("below")
    now = look_below(BlockDevice.identify(both.source.path), groups=True)
    return now.at_rest and kept == now.to_values()


def known_without_controller(both: Cluster) -> int | None:
    told: int | None = json.loads(command("status", "--state", both.primary_state, "--json").output)[
        "out_of_sync_bytes"
    ]
    return told


@pytest.mark.variant
@pytest.mark.parametrize("ended", short(1, "killed", "stopped"))
def test_writes_to_the_loop_device_itself_while_no_controller_runs_cause_no_comparison(tmp_path, ended, chance):
    with loop_device(tmp_path, SIZE) as device, cluster(tmp_path / "c", device) as both:
        both.start()
        both.wait()
        until(lambda: is_map_clean(both), "the map on disk is that of a volume in sync")
        both.primary.kill() if ended == "killed" else both.primary.terminate()
        with open(device.path, "r+b", buffering=0) as disk:
            disk.seek(5 * MIB)
            disk.write(chance.randbytes(MIB))
            os.fsync(disk)
        assert known_without_controller(both) == MIB
        both.start_primary()
        both.wait()
        assert "every block is compared" not in both.primary.words()
        both.compare("after writes that were tracked")


@pytest.mark.parametrize("which", short(1, "of an earlier run, after a kill", "of the same run, after down"))
def test_an_older_map_that_is_put_back_is_refused_by_name_and_without_it_everything_is_compared(
    tmp_path, which, chance
):
    with loop_device(tmp_path, 32 * MIB) as device, cluster(tmp_path / "c", device) as both:
        kept = both.primary_state / MAP_FILE_NAME
        both.start()
        both.wait()
        older = kept.read_bytes()
        if "earlier run" in which:
            both.primary.kill()
            both.start_primary()
            both.wait()
        both.secondary.kill()
        both.until_mode("unsynchronized")
        with open(device.path, "r+b", buffering=0) as disk:
            disk.seek(chance.randrange(31) * MIB)
            disk.write(chance.randbytes(MIB))
            os.fsync(disk)
        until(lambda: load_map(kept)[1].any(), "what was written meanwhile is in the map")
        if "down" in which:
            assert command("down", "--state", both.primary_state).code == 0
        else:
            both.primary.kill()
        kept.write_bytes(older)
        both.start_secondary()
        arguments = ("--secondary", both.address, "--state", both.primary_state)
        command("run", device.path, *arguments).refused(7, MAP_FILE_NAME, "older map")
        kept.unlink()
        both.start_primary()
        both.wait()
        both.compare("after an older map was put back")


@pytest.mark.variant
def test_an_initial_sync_that_never_began_is_not_taken_for_one_that_is_nearly_done(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            write_files(folder, chance)
        with cluster(tmp_path / "c", device) as both:
            for _ in range(2):
                both.start_secondary()
                both.start_primary()
                both.primary.freeze()
                both.secondary.kill()
                both.primary.kill()
                with contextlib.suppress(FileNotFoundError):
                    (both.primary_state / "dirty.map").unlink()  # as if the kill had come a moment earlier
                assert command("down", "--state", both.primary_state).code == 0
            both.start()
            both.wait()
            both.compare("after initial synchronizations that never began")


def change_meta(both: Cluster, **changes: object) -> None:
    """Make the pinned programs look as if another version of pydbt had pinned them."""
    folder = pins_of(both)
    fields = json.loads(pins.read_raw_meta(folder).rstrip(b"\0")) | changes
    fd = syscalls.obj_get(folder / "meta")
    try:
        syscalls.map_update(fd, 0, json.dumps(fields).encode().ljust(pins.META_BYTES, b"\0"))
    finally:
        os.close(fd)


def test_a_controller_of_another_version_takes_over_from_running_programs_with_no_gap(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both, mounted(device, tmp_path / "mnt") as folder:
            both.start()
            both.wait()
            with load() as running:
                running.add(FileStress(folder / "a", chance.randrange(1 << 30)))
                before = running.steps
                until(lambda: running.steps > before + 20, "some work is done while it is replicated")
                both.primary.kill()
                until(lambda: running.steps > before + 60, "some work is done while no controller runs")
                change_meta(both, version=99, unheard_of={"of": ["later", "versions"]})
                (pins_of(both) / "bell").unlink()  # those of version 2 have none
                both.start_primary()  # under load
                until(lambda: running.steps > before + 120, "some work is done after the replacement")
            assert "new programs replace the old ones" in both.primary.words()
            both.wait()
            assert "every block is compared" not in both.primary.words()
            os.sync()
            both.wait()
            both.compare("after the programs were replaced")


@pytest.mark.variant
def test_a_larger_ring_asked_for_after_a_kill_is_had_and_nothing_is_lost(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, primary_options=("--ring-size", "1M")) as both:
            with mounted(device, tmp_path / "mnt") as folder:
                both.start()
                both.wait()
                both.primary.kill()
                write_files(folder, chance)
                both.primary_options = ("--ring-size", "8M")
                both.start_primary()
                both.wait()
                assert pins.read_meta(pins_of(both)).options.data_ring_bytes == 8 * MIB
            both.wait()
            both.compare("after the rings were replaced")


def back_up_secondary(both, folder, *, alive=False):
    """Keep what the secondary has, once it was killed; or, ``alive``, at one instant of its life."""
    both.secondary.freeze() if alive else both.secondary.kill()
    run("cp", "-a", both.secondary_state, folder / "backup-state")
    run("cp", "-a", "--sparse=always", both.target, folder / "backup-image")
    if alive:
        both.secondary.thaw()


def put_back_secondary(both, folder):
    """Kill the secondary, and start it with what was kept."""
    both.secondary.kill()
    run("rm", "-rf", both.secondary_state)
    run("cp", "-a", folder / "backup-state", both.secondary_state)
    run("cp", "-a", "--sparse=always", folder / "backup-image", both.target)
    both.start_secondary()


@pytest.mark.parametrize("meanwhile", short(1, "the same run", "a killed primary", "another run of the primary"))
def test_a_secondary_restored_from_a_backup_is_noticed_and_compared(tmp_path, meanwhile, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both, mounted(device, tmp_path / "mnt") as folder:
            both.start()
            both.wait()
            back_up_secondary(both, tmp_path)
            both.start_secondary()
            if meanwhile == "another run of the primary":
                both.primary.terminate()
                both.start_primary()
            both.until_mode("normal")
            write_files(folder, chance)
            both.wait()
            time.sleep(6)  # the kernel's bitmaps forget what was acknowledged
            if meanwhile == "a killed primary":
                sequence = both.status()["sequence"]["acknowledged"]
                written = lambda: load_state(both.primary_state).record(1).sequence  # noqa: E731
                until(lambda: written() >= sequence, "how far the secondary was is written down")
                both.primary.kill()
            put_back_secondary(both, tmp_path)
            if meanwhile == "a killed primary":
                both.start_primary()
            both.wait()
            os.sync()
            both.wait()
            both.compare("after a backup of the secondary was put back")


@pytest.mark.variant
@pytest.mark.parametrize("primary", short(1, "goes on", "killed as well"))
def test_a_secondary_restored_in_the_middle_of_a_resynchronization_lacks_what_it_had_got_of_it(
    tmp_path, primary, chance
):
    """It stands where it stood before, as far as its position tells, and what it had acknowledged since is on no map."""
    long = primary == "killed as well"  # then the map on disk knows of it, too
    with loop_device(tmp_path, SIZE if long else 40 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, primary_options=("--rate-limit", "2M/s")) as both:
            both.start()
            both.wait()
            back_up_secondary(both, tmp_path)
            with mounted(device, tmp_path / "mnt") as folder:
                (folder / "large").write_bytes(chance.randbytes((40 if long else 16) * MIB))
            both.start_secondary()
            part = (24 if long else 4) * MIB
            until(lambda: both.status()["progress"]["done_bytes"] > part, "a part of it has arrived")
            assert both.status()["mode"] == "resynchronizing"
            if primary == "killed as well":
                both.primary.kill()
            put_back_secondary(both, tmp_path)
            if primary == "killed as well":
                both.start_primary()
            both.wait()
            both.compare("after a backup of the secondary was put back")


@pytest.mark.variant
@pytest.mark.parametrize("how", short(1, "staged", "in place"))
def test_a_secondary_restored_to_a_moment_of_the_very_copy_that_is_under_way_is_noticed_and_compared(
    tmp_path, how, chance
):
    """Its position is the one that it had all the time; only how much it ever got tells that some of it is gone."""
    options = {
        "primary_options": ("--rate-limit", "2M/s"),
        "secondary_options": ("--no-stage",) if how == "in place" else (),
    }
    with loop_device(tmp_path, 40 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, **options) as both:
            both.start()
            both.wait()
            both.secondary.kill()
            with mounted(device, tmp_path / "mnt") as folder:
                (folder / "large").write_bytes(chance.randbytes(20 * MIB))
            both.start_secondary()
            until(lambda: both.status()["progress"]["done_bytes"] > 2 * MIB, "a part of it has arrived")
            back_up_secondary(both, tmp_path, alive=True)
            until(lambda: both.status()["progress"]["done_bytes"] > 9 * MIB, "much more has arrived")
            assert both.status()["mode"] == "resynchronizing"
            put_back_secondary(both, tmp_path)
            until(
                lambda: "went back behind what it had acknowledged" in both.primary.words(),
                "the primary names the cause",
            )
            both.wait()
            assert both.primary.words().count("every block in use is compared") == 1
            both.compare("after a moment of the copy under way was put back")

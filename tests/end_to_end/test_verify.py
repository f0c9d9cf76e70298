"""The real content of both sides counts: differences are found, told, copied; and nothing is called one that is none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from pydbt.controller.primary.leftover import pin_dir_of
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.quiet_bitmap import RETIRE_INTERVAL_S
from pydbt.device.filesystem import used_extents
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel import pins, syscalls
from pydbt.store.map_file import load_map
from pydbt.store.volume_state import load_state
from tests.end_to_end.harm import lose_tracking
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.images import decaying
from tests.lab.load import Database, FileStress, load, trim, write_files
from tests.lab.patience import run, until
from tests.lab.programs import Outcome, command
from tests.lab.rounds import short

MIB = 1 << 20
SIZE = 96 * MIB
WHOLE = ("--whole-device",)


def verification(both: Cluster) -> dict[str, dict | None]:
    return (both.status() or {}).get("verify") or {}


def verify(both: Cluster, *options: object) -> Outcome:
    return command("verify", "--state", both.primary_state, *options, timeout_s=120)


def damage(both: Cluster, chance, blocks: int) -> list[int]:
    """Change the replica behind everybody's back, as a disk that fails does."""
    both.until_applied()
    places = sorted(chance.sample(range(both.size_bytes // 4096), blocks))
    with decaying(both.target, both.secondary.process.pid), both.target.open("r+b") as image:
        for block in places:
            image.seek(block * 4096 + 512)
            image.write(b"rotten" * 20)
        image.flush()
        os.fsync(image.fileno())
    return places


def test_a_verification_under_load_finds_no_false_difference(tmp_path, chance, rounds):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with (
            cluster(tmp_path / "c", device, primary_options=WHOLE) as both,
            mounted(device, tmp_path / "mnt") as folder,
        ):
            both.start()
            both.wait()
            database = Database(folder / "rows.db", chance.randrange(1 << 30), "wal")
            with load() as running:
                running.add(FileStress(folder / "a", chance.randrange(1 << 30), 300_000), 0.01)
                running.add(database, 0.01)
                for _ in range(1 + rounds):
                    outcome = verify(both)
                    assert outcome.code == 0 and "the same on both sides" in outcome.output, outcome
                trim(folder)
                running.stop()
            database.close()
            status = both.status()
            assert not status["tainted"] and status["verify"]["last"]["compared_bytes"] == SIZE
            assert status["audit"]["verdict"] in ("agrees", "waiting for an idle instant of the disk"), status["audit"]
            both.wait()


@pytest.mark.parametrize("options", [(), ("--repair",)], ids=["report", "repair"])
def test_a_block_of_the_replica_that_another_program_changed_is_found_named_by_its_place_and_copied(
    tmp_path, chance, options
):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, primary_options=WHOLE) as both:
            both.start()
            both.wait()
            places = damage(both, chance, 7)
            sent = both.status()["sent_bytes"]
            outcome = verify(both, *options)
            assert outcome.code == (0 if options else 10), outcome
            assert "differed and are copied" in outcome.output, outcome
            for block in places:
                assert f"at {block * 4096} differed" in outcome.output
            both.wait(20)
            assert both.status()["sent_bytes"] - sent < 7 * 4096 + 2 * SIZE * 0.006 + 65536
            assert not both.status()["tainted"] and verify(both).code == 0
            both.compare("after the repair")


def test_a_taint_outlives_the_controller_and_is_answered_by_a_comparison(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            lose_tracking(both)
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.secondary.kill()
            both.start_primary()
            for _ in range(2):
                until(lambda: (both.status() or {}).get("tainted"), "it is tainted")
                assert "untracked" in both.status()["taints"][0]
                both.primary.kill()
                both.start_primary()
            both.start_secondary()
            both.wait()
            assert not both.status()["tainted"]
            assert load_state(both.primary_state).record(1).taints == []
            both.compare("after the comparison")


@pytest.mark.parametrize("victim", short(1, "primary", "secondary"))
def test_a_verification_that_is_cut_off_goes_on_where_it_was(tmp_path, victim, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        options = (*WHOLE, "--rate-limit", "24M/s")
        with cluster(tmp_path / "c", device, primary_options=options) as both:
            both.start()
            both.wait()
            assert verify(both, "--background", "--rate-limit", "8M/s").code == 0
            until(
                lambda: (verification(both).get("running") or {}).get("done_bytes", 0) > SIZE // 4, "a quarter is done"
            )
            if victim == "primary":
                kept = lambda: (load_state(both.primary_state).record(1).verify or {}).get("cut_off", {})  # noqa: E731
                until(lambda: kept().get("block", 0) > 0, "how far it is is kept")
                both.primary.kill()
                both.start_primary()
            else:
                both.secondary.kill()
                both.until_mode("unsynchronized")
                both.start_secondary()
            until(lambda: verification(both).get("last"), "it is over")
            last = both.status()["verify"]["last"]
            assert last["differing_bytes"] == 0
            if victim == "primary":
                assert last["compared_bytes"] < SIZE, "it began anew"
            both.compare("after a verification that was cut off")


def test_a_verification_that_is_cancelled_ends_for_good_and_replication_goes_on(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with (
            cluster(tmp_path / "c", device, primary_options=WHOLE) as both,
            mounted(device, tmp_path / "mnt") as folder,
        ):
            both.start()
            both.wait()
            with load() as running:
                running.add(FileStress(folder / "a", chance.randrange(1 << 30)), 0.002)
                for _ in range(3):
                    assert verify(both, "--background", "--rate-limit", "4M/s").code == 0
                    until(lambda: verification(both).get("running"), "it is under way")
                    time.sleep(chance.uniform(0.1, 0.8))
                    assert verify(both, "--cancel").code == 0
                    assert verification(both)["running"] is None
                running.stop()
            time.sleep(2.5)  # two looks at what is due
            assert verification(both) == {"running": None, "last": None, "rest": None}
            both.wait()
            # A busy machine may fill the log, and that costs a resynchronization of its own.
            done = both.status()["statistics"]
            assert done["resyncs"] <= 1 + done["log_full"], both.tails()
            os.sync()
            both.wait()
            both.compare("after verifications that were cancelled")


def test_free_space_that_was_never_copied_is_not_called_different(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        device.path.write_bytes(np.random.default_rng(1).bytes(SIZE))
        make_filesystem("ext4", device.path, "-E", "nodiscard")
        with cluster(tmp_path / "c", device) as both:
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
                both.start()
                both.wait()
                both.primary.kill()  # what was left out is known to the next run as well
                both.start_primary()
                both.wait()
                assert verify(both, "--background").code == 0
                seen = set()
                until(
                    lambda: (seen.add(both.status()["replica_state"]), verification(both).get("last"))[1], "it is over"
                )
                assert "inconsistent" not in seen, "free space made the replica inconsistent"
                last = verification(both)["last"]
                assert last["differing_bytes"] == 0 and last["places"] == [] and last["filled_bytes"] > 0, last
                outcome = verify(both)
                assert outcome.code == 0 and "filled" not in outcome.output, outcome
                assert "WARNING" not in both.primary.words().partition("verif")[2], both.tails()
            both.wait()
            both.compare("free space as well")


@pytest.mark.variant
def test_a_block_that_was_free_at_the_first_copy_and_was_written_since_counts_after_a_kill_too(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path, "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0")
        with mounted(device, tmp_path / "mnt") as folder, cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            until((both.primary_state / "free.map").exists, "what was left out is written down")
            content = chance.randbytes(2 * MIB)
            (folder / "later").write_bytes(content)
            os.sync()
            both.wait()
            time.sleep(3 * RETIRE_INTERVAL_S)  # the bitmaps have forgotten it, as it was acknowledged
            both.primary.kill()
            both.start_primary()
            both.wait()
            both.until_applied()
            place = both.target.read_bytes().find(content[:4096])
            with decaying(both.target, both.secondary.process.pid), both.target.open("r+b") as image:
                image.seek(place)
                image.write(b"rotten" * 20)
                image.flush()
                os.fsync(image.fileno())
            outcome = verify(both)
            assert outcome.code == 10 and f"at {place} differed" in outcome.output, outcome
            last = verification(both)["last"]
            assert last["differing_bytes"] == 4096, last
            both.wait()
            assert both.target.read_bytes()[place : place + len(content)] == content


@pytest.mark.variant
def test_free_space_is_known_from_the_file_system_where_an_earlier_version_did_not_write_it_down(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        device.path.write_bytes(np.random.default_rng(1).bytes(SIZE))
        make_filesystem("ext4", device.path, "-E", "nodiscard")
        with cluster(tmp_path / "c", device) as both:
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
                both.start()
                both.wait()
                both.primary.terminate()
                (both.primary_state / "free.map").unlink()
                both.start_primary()
                both.wait()
            outcome = verify(both)
            assert outcome.code == 2 and "mount it" in outcome.errors, outcome
            with mounted(device, tmp_path / "mnt"):
                outcome = verify(both)
                assert outcome.code == 0 and "free space filled in" in outcome.output, outcome
            both.wait()
            both.compare("free space as well")


def test_a_scheduled_verification_begins_by_itself(tmp_path, chance):
    options = ("--verify-every", "2s")
    with loop_device(tmp_path, 16 * MIB) as device, cluster(tmp_path / "c", device, primary_options=options) as both:
        both.start()
        until(lambda: verification(both).get("last"), "the first one is over")
        first = both.status()["verify"]["last"]["ended"]
        until(lambda: both.status()["verify"]["last"]["ended"] != first, "the second one is over")


def test_writes_that_capture_did_not_see_taint_the_volume_and_are_copied(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, primary_options=WHOLE) as both:
            both.start()
            both.wait()
            until(lambda: both.status()["audit"]["verdict"] == "agrees", "the audit knows where it stands")
            until(
                lambda: (load_state(both.primary_state).audit or {}).get("offset_sectors") is not None, "and keeps it"
            )
            both.primary.kill()
            # The programs lose their tracepoints for a moment, which nobody could tell afterwards but by counting.
            blind(pin_dir_of(load_state(both.primary_state)), device, tmp_path / "mnt", chance)
            both.start_primary()
            missed = "sectors of writes that the kernel has counted"
            until(lambda: missed in both.primary.words(), "the start tells, before it takes the programs over")
            both.wait()
            assert not both.status()["tainted"]
            both.compare("after writes that nobody saw")


@pytest.mark.variant
def test_a_file_that_is_written_past_its_loop_device_for_long_is_copied_also_where_space_was_free_at_the_first_copy(
    tmp_path, chance
):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path, "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0")
        with mounted(device, tmp_path / "mnt") as folder, cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            # Space that a file has got and that nobody has written yet is in use, and was left out.
            run("fallocate", "-l", str(4 * MIB), folder / "later")
            os.sync()
            both.wait()
            until((both.primary_state / "free.map").exists, "what was left out is written down")
            places = left_out_and_in_use(both, device)
            assert len(places) > 500
            image = next(tmp_path.glob("disk-*.img"))
            until(lambda: write_past(image, places, chance) or "past it" in both.primary.words(), "a write is noticed")
            for _ in range(20):  # more than two looks
                write_past(image, places, chance)
                time.sleep(0.5)
            until(lambda: same_at(image, both.target, places), "what was written last is on the replica as well")
            until(lambda: not both.status()["tainted"], "all of it is answered")
            both.wait()
            assert same_at(image, both.target, places)
            both.compare("after writes past the loop device")


def left_out_and_in_use(both: Cluster, device: Device) -> list[int]:
    """Blocks that the first copy left out, and that the file system uses now."""
    kept = load_map(both.primary_state / "free.map")
    assert kept is not None
    used = used_extents(BlockDevice.identify(device.path))
    assert not used.whole and not (used.firsts_bytes % 4096).any()
    in_use = Runs(used.firsts_bytes // 4096, used.lengths_bytes // 4096).blocks()
    blocks: list[int] = in_use[kept[1].test_blocks(in_use)].tolist()
    return blocks


def write_past(image: Path, places: list[int], chance) -> None:
    """Write the file by its name: no write to the loop device, which is at rest meanwhile."""
    with image.open("r+b") as file:
        for block in chance.sample(places, 50):
            file.seek(block * 4096)
            file.write(chance.randbytes(4096))
        file.flush()
        os.fsync(file.fileno())


def same_at(image: Path, target: Path, places: list[int]) -> bool:
    with image.open("rb") as one, target.open("rb") as other:
        return all(
            os.pread(one.fileno(), 4096, at * 4096) == os.pread(other.fileno(), 4096, at * 4096) for at in places
        )


def blind(pinned: Path, device: Device, folder: Path, chance) -> None:
    """Write while the programs hang on no tracepoint, and hang them there again with the same maps."""
    for name in pins.PROGRAMS:
        (pinned / f"link_{name}").unlink()
    with mounted(device, folder):
        write_files(folder, chance)
    for name in pins.PROGRAMS:
        program = syscalls.obj_get(pinned / name)
        link = syscalls.open_raw_tracepoint(program)
        syscalls.obj_pin(link, pinned / f"link_{name}")
        os.close(link)
        os.close(program)


@pytest.mark.variant
def test_a_replica_that_was_seeded_before_is_taken_on_trust_and_can_be_verified(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, primary_options=("--assume-in-sync",)) as both:
            both.target.write_bytes(device.path.read_bytes())
            both.start()
            both.until_mode("normal")
            assert both.status()["assumed_in_sync"] and both.status()["sent_bytes"] < MIB
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.wait()
            assert verify(both).code == 0
            both.compare("after a trusted beginning")

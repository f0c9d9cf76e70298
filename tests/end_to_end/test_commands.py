"""pause and resume, down and run, an interrupted initial sync: each goes on where it was, and copies no more than it must."""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.lab import raw
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted, mounted_elsewhere
from tests.lab.load import FileStress
from tests.lab.patience import run, until
from tests.lab.programs import command
from tests.lab.rounds import short

MIB = 1 << 20
SIZE = 96 * MIB


def work(folder, chance, steps: int = 60) -> None:
    stress = FileStress(folder / "a", chance.randrange(1 << 30))
    for _ in range(steps):
        stress()
    os.sync()


def down(both: Cluster) -> None:
    done = command("down", "--state", both.primary_state)
    assert done.code == 0, done
    assert both.primary.wait() == 0


def test_writes_during_a_pause_are_copied_at_resume(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            with mounted(device, tmp_path / "mnt") as folder:
                work(folder, chance)
                both.wait()
                assert command("pause", "--state", both.primary_state).code == 0
                assert both.status()["mode"] == "paused"
                sent = both.status()["sent_bytes"]
                work(folder, chance)
                until(lambda: both.status()["out_of_sync_bytes"] > 0, "what is written is counted")
                assert both.status()["sent_bytes"] <= sent + 4096 and both.status()["replica_state"] == "outdated"
                assert both.try_wait(0.5).code == 8
                assert command("resume", "--state", both.primary_state).code == 0
            both.wait()
            both.compare("after a pause")


def replica_holds(both: Cluster, marker: bytes) -> bool:
    """Whether it is on the secondary's disk: on the target, or in the journal."""
    return any(marker in path.read_bytes() for path in (both.target, *both.secondary_state.glob("journal/*")))


@pytest.mark.parametrize("place", [mounted, mounted_elsewhere])
def test_unsynced_writes_before_a_wait_are_on_the_secondary_after_it(tmp_path, place):
    marker = os.urandom(4096)
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both, place(device, tmp_path / "mnt") as folder:
            both.start()
            both.wait()
            (folder / "dump").write_bytes(marker)
            unsynced = command("wait", "--state", both.primary_state, "--no-sync", "--timeout", 60)
            assert unsynced.code == 0, unsynced
            assert not replica_holds(both, marker), "it is in memory alone"
            done = command("wait", "--state", both.primary_state, "--timeout", 60)
            assert done.code == 0 and "not written out" not in done.errors, done
            assert replica_holds(both, marker)


def test_after_a_clean_stop_nothing_is_copied(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            with mounted(device, tmp_path / "mnt") as folder:
                work(folder, chance)
            both.wait()
            down(both)
            both.start_primary()
            both.wait()
            # What the bitmaps named at the end (the last seconds) is compared again, and found equal.
            figures = both.status()["statistics"]
            assert figures["copied_bytes"] == 0 and figures["compared_bytes"] < SIZE // 8, figures
            assert both.status()["sent_bytes"] < 65536
            both.compare("after a clean stop")


@pytest.mark.parametrize("how", short(1, "mount", "raw"))
def test_writes_while_nothing_tracks_are_noticed_and_copied(tmp_path, how, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            down(both)
            if how == "mount":
                with mounted(device, tmp_path / "mnt") as folder:
                    work(folder, chance)
            else:
                with raw.Overlapping(device.path, 4096, 1) as writer:
                    writer.write(1000, 8)
            differing = both.differing()
            assert differing > 0
            both.start_primary()
            both.wait()
            assert both.status()["sent_bytes"] < differing * 4096 * 1.03 + SIZE // 4096 * 20 + 65536
            both.compare("after untracked writes")


def test_a_write_between_kill_and_restart_of_the_primary_is_in_the_kernels_bitmap(tmp_path, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both, mounted(device, tmp_path / "mnt") as folder:
            both.start()
            both.wait()
            both.primary.kill()
            before = device.statistics()
            work(folder, chance)
            both.start_primary()
            both.wait()
            now, status = device.statistics(), both.status()
            # The load trims, too, now and then, which writes all free space; and what was copied first may count once more,
            # when the kill came before its map was written.
            written = sum(now[kind] - before[kind] for kind in ("write_sectors", "discard_sectors")) * 512
            looked_at = status["statistics"]["compared_bytes"]
            assert 0 < looked_at < written + 16 * MIB, "not only what was written was looked at"
            run("sync")
            both.wait()
            both.compare("after the primary was killed")


@pytest.mark.parametrize("how", ["down", "detach after kill"])
def test_a_primary_stopped_while_out_of_sync_knows_the_differing_blocks_at_its_next_start(tmp_path, how, chance):
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            both.wait()
            both.secondary.kill()
            with mounted(device, tmp_path / "mnt") as folder:
                work(folder, chance)
            if how != "down":
                both.primary.kill()
                assert command("down", "--state", both.primary_state).code == 0
            else:
                down(both)
            both.start()
            both.wait()
            both.compare("after a stop out of sync")


@pytest.mark.parametrize("victim", short(1, "both", "primary", "secondary"))
def test_an_interrupted_initial_sync_goes_on(tmp_path, victim, chance):
    options = ("--rate-limit", "16M/s")
    with loop_device(tmp_path, SIZE) as device:
        make_filesystem("ext4", device.path)
        with mounted(device, tmp_path / "mnt") as folder:
            (folder / "filling").write_bytes(chance.randbytes(60 * MIB))
            os.sync()
            with cluster(tmp_path / "c", device, primary_options=options) as both:
                both.start()
                for share in (0.2, 0.5):
                    until(
                        lambda share=share: (
                            (p := (both.status() or {}).get("progress")) and p["done_bytes"] > share * 30 * MIB
                        ),
                        f"{share} of it is done",
                    )
                    assert both.status()["mode"] in ("initial-sync", "resynchronizing")
                    assert both.status()["replica_state"] == "inconsistent"
                    if victim != "secondary":
                        both.primary.kill()
                    if victim != "primary":
                        both.secondary.kill()
                        both.start_secondary()
                    if victim != "secondary":
                        both.start_primary()
                both.wait()
                with contextlib.suppress(OSError):
                    os.sync()
                both.wait()
                both.compare("after an initial sync with interruptions")

"""Several secondaries: each has everything in the end, and none waits for another."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import Replica
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.load import Database, FileStress, load
from tests.lab.patience import PATIENCE_S, run, until
from tests.lab.programs import command
from tests.lab.several import Several, Witness, several

MIB = 1 << 20
SIZE = 128 * MIB


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Several]:
    """A volume with an ext4, and three machines that could hold its replica."""
    with loop_device(tmp_path, SIZE) as disk:
        make_filesystem("ext4", disk.path)
        with several(tmp_path / "cluster", disk, 3, "--whole-device") as machines:
            yield machines


@pytest.mark.variant
def test_one_frozen_one_killed_one_cut_off_and_the_healthy_one_never_leaves_mode_normal(three, tmp_path, chance):
    healthy, hurt, other = three.replicas
    for replica in three.replicas:
        replica.start()
    three.start_primary(*three.replicas)
    with mounted(three.source, tmp_path / "mnt") as folder, contextlib.ExitStack() as stack, load() as work:
        work.add(FileStress(folder / "stress", chance.getrandbits(32), 256 << 10), pause_s=0.02)
        database = Database(folder / "rows.db", chance.getrandbits(32))
        stack.callback(database.close)
        work.add(database, pause_s=0.02)
        three.until_normal(*three.replicas)
        witness = Witness(three, healthy)

        def durable_there() -> None:
            done = three.wait("--secondary", healthy.address, timeout_s=PATIENCE_S)
            assert done.code == 0, (done, three.status())
            assert three.wait("--any", timeout_s=PATIENCE_S).code == 0

        hurt.process.freeze()
        durable_there()
        other.process.kill()
        until(lambda: three.of(other).get("mode") == "unsynchronized", "the killed one is missed")
        durable_there()
        assert three.status()["mode"] != "normal" and three.status()["replica_state"] != "up-to-date"
        until(lambda: three.of(hurt).get("connected") is False, "the frozen one is given up")
        assert three.wait(timeout_s=1).code == 8, "a wait for all was answered though two are gone"
        durable_there()
        hurt.process.thaw()
        other.start()
        three.until_normal(hurt, other)
        hurt.wire.cut()
        durable_there()
        until(lambda: three.of(hurt).get("connected") is False, "the cut is noticed")
        durable_there()
        hurt.wire.mend()
        three.until_normal(hurt, other)
        witness.end()
        assert witness.modes == {"normal"}, witness.modes
        assert witness.looks > 50
    done = three.wait()
    assert done.code == 0, (done, three.status())
    assert three.status()["replica_state"] == "up-to-date"
    assert command("down", "--state", three.primary_state).code == 0
    for replica in three.replicas:
        replica.compare(three.source.path, "after everything")


def test_secondaries_are_added_and_removed_while_the_volume_is_written(three, tmp_path, chance):
    first, second, third = three.replicas
    for replica in three.replicas:
        replica.start()
    three.start_primary(first)
    with mounted(three.source, tmp_path / "mnt") as folder, load() as work:
        work.add(FileStress(folder / "stress", chance.getrandbits(32), 256 << 10), pause_s=0.02)
        three.until_normal(first)
        witness = Witness(three, first)
        for replica in (second, third):
            done = three.secondaries("--add", replica.address)
            assert done.code == 0 and replica.address in done.output, done
        three.secondaries("--add", second.address).refused(2, "already")
        three.secondaries("--add", "127.0.0.1:1").refused(5, "127.0.0.1:1")
        three.until_normal(second, third)
        done = three.secondaries("--remove", second.address)
        assert done.code == 0 and second.address in done.output.splitlines()[0], done
        three.secondaries("--remove", second.address).refused(2, "no secondary", first.address)
        assert [entry["secondary"] for entry in three.status()["secondaries"]] == [first.address, third.address]
        until(lambda: not second.status()["connected"], "the removed one is told")
        assert three.wait().code == 0
        witness.end()
        assert witness.modes == {"normal"}, witness.modes
    done = three.wait()
    assert done.code == 0, (done, three.status())
    assert command("down", "--state", three.primary_state).code == 0
    for replica in (first, third):
        replica.compare(three.source.path, "added and removed")
    # What was added is known to the next run, and what was removed is not.
    for replica in (first, third):
        replica.start()
    three.start_primary(first)
    three.until_normal(first, third)
    assert three.of(second) == {}
    three.secondaries("--remove", third.address)
    three.secondaries("--remove", first.address).refused(2, "only secondary", "controller down")


@contextlib.contextmanager
def one_left_behind(
    three: Several, ahead: Replica, behind: Replica, tmp_path: Path, chance: random.Random
) -> Iterator[Path]:
    """The mounted volume with two secondaries. ``behind`` is dead, and lacks the file of that name, which ``ahead`` has."""
    ahead.start()
    behind.start()
    three.start_primary(ahead, behind)
    with mounted(three.source, tmp_path / "mnt") as folder:
        (folder / "before").write_bytes(chance.randbytes(2 * MIB))
        assert three.wait().code == 0
        behind.process.kill()
        (folder / "behind").write_bytes(chance.randbytes(2 * MIB))
        assert three.wait("--secondary", ahead.address).code == 0
        yield folder


def test_a_killed_primary_goes_on_with_all_its_secondaries_and_copies_only_what_differs(three, tmp_path, chance):
    near, far, _ = three.replicas
    with one_left_behind(three, near, far, tmp_path, chance) as folder:
        three.primary.kill()
        (folder / "while the primary was away").write_bytes(chance.randbytes(2 * MIB))
        far.start()
        three.start_primary(near, far)
        assert three.wait().code == 0
        for replica in (near, far):
            copied = three.of(replica)["statistics"]["copied_bytes"]
            assert copied <= 8 * MIB, f"{copied} bytes were copied to {replica.address}"
    assert three.wait().code == 0
    assert command("down", "--state", three.primary_state).code == 0
    for replica in (near, far):
        replica.compare(three.source.path, "after the restart")


@pytest.mark.variant
def test_after_a_failover_to_one_secondary_the_other_follows_it(three, tmp_path, chance):
    heir, follower, _ = three.replicas
    with one_left_behind(three, heir, follower, tmp_path, chance):
        pass
    assert three.wait("--secondary", heir.address).code == 0
    three.primary.kill()
    heir.process.terminate()
    disk = tmp_path / "heir"
    disk.mkdir()
    with loop_device(disk, SIZE) as taken_over:
        # As with a disk of its own: an image of the replica, on a loop device.
        assert command("secondary", heir.target, "--state", heir.state, "--replay-only").code == 0
        done = command("promote", heir.target, "--state", heir.state, "--force")  # killed a moment ago
        assert done.code == 0, done
        run("dd", f"if={heir.target}", f"of={taken_over.path}", "bs=1M", "oflag=direct", "conv=notrunc", "status=none")
        follower.start()
        with several(tmp_path / "after", taken_over, 0) as after:
            after.replicas, after.primary_state = [follower], heir.state
            after.start_primary(follower)
            done = after.wait()
            assert done.code == 0, (done, after.status(), after.primary.words()[-2000:])
            with mounted(taken_over, tmp_path / "mnt2") as folder:
                assert (folder / "behind").stat().st_size == 2 * MIB
                (folder / "after").write_bytes(chance.randbytes(MIB))
            assert after.wait().code == 0
            assert command("down", "--state", after.primary_state).code == 0
            follower.compare(taken_over.path, "it follows the heir")

"""Failover: the replica becomes a volume of its own exactly once, says what it holds, and nobody overwrites it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import time

import pytest

from pydbt.core.errors import BusyError
from tests.end_to_end.mid_resync import BEFORE, SIZE, in_mid_resync
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.images import assert_identical
from tests.lab.load import write_files
from tests.lab.patience import run, until
from tests.lab.programs import Controller, Outcome, command
from tests.lab.rounds import short

MIB = 1 << 20


def promote(both: Cluster, *options: str) -> Outcome:
    return command("promote", both.target, "--state", both.secondary_state, *options, timeout_s=120)


def until_answered_for(both: Cluster) -> None:
    """Until a heartbeat has answered for what it has, nobody knows as of when a replica is."""
    until(lambda: (both.secondary_status() or {})["replica_state"] == "up-to-date", "it is answered for")


@pytest.mark.parametrize("running", short(1, True, False))
def test_a_promoted_replica_is_the_volume_and_the_old_primary_cannot_overwrite_it(tmp_path, running, chance):
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.wait()
            if running:
                until_answered_for(both)
                outcome = promote(both)
                assert outcome.code == 4 and "is alive" in outcome.errors and "--force" in outcome.errors, outcome
                assert both.status()["mode"] == "normal", "a refused promotion did harm"
            else:
                both.secondary.kill()
            outcome = promote(both, "--force")
            assert outcome.code == 0 and outcome.output.startswith("finished at sequence"), outcome
            if running:  # of one that was killed, what it had heard last is known only as of its last status
                assert f"by the clock of {socket.gethostname()}" in outcome.output and "UTC" in outcome.output, outcome
            assert "as of " in outcome.output, outcome
            assert ("nobody here knows" in outcome.output) is not running, outcome
            if running:
                assert both.primary.wait() == 5, "the old primary was not told"
                assert "was promoted at" in both.primary.words() and "controller demote" in both.primary.words()
                both.start_primary()
            assert_identical(device.path, both.target, 64 * MIB, "after the promotion")
            image = both.target.read_bytes()
            with mounted(device, tmp_path / "mnt") as folder:  # the old primary goes on, as in a split brain
                write_files(folder, chance)
            arguments = ["secondary", both.target, "--listen", both.address, "--state", both.secondary_state]
            again = Controller(tmp_path / "again.log", arguments)
            try:
                assert both.primary.wait() == 5, "the old primary was not told"
                assert again.alive and "was promoted at" in both.primary.words(), again.words()
                told = command("status", both.target)
                assert told.code == 9 and "it was promoted at" in told.errors and "tracked" not in told.errors, told
                assert both.target.read_bytes() == image
                outcome = command(*arguments, "--check")
                assert outcome.code == 0 and "was promoted at" in outcome.output, outcome
                outcome = command(*arguments, "--replay-only")
                assert outcome.code == 2 and "nothing may overwrite it" in outcome.errors, outcome
            finally:
                assert again.terminate() == 0, again.words()
            outcome = promote(both)
            assert outcome.code == 2 and "was promoted at" in outcome.errors, "twice"


@pytest.mark.variant
def test_promoted_in_mid_resync_it_is_the_last_consistent_image_and_reports_that(tmp_path, chance):
    with in_mid_resync(tmp_path, chance, to_its_end=False) as both:
        outcome = promote(both, "--force")
        assert outcome.code == 0 and outcome.output.startswith("rolled back to sequence"), outcome
        assert_identical(tmp_path / BEFORE, both.target, SIZE, "after the promotion")


def test_an_inconsistent_replica_is_not_promoted(tmp_path, chance):
    with loop_device(tmp_path, 64 * MIB) as device:
        device.path.write_bytes(chance.randbytes(64 * MIB))
        with cluster(tmp_path / "c", device, primary_options=("--rate-limit", "8M/s")) as both:
            both.start()
            until(
                lambda: (both.status() or {"progress": {"done_bytes": 0}})["progress"]["done_bytes"] > MIB,
                "it has begun",
            )
            outcome = promote(both)
            assert outcome.code == 2 and "cannot be promoted" in outcome.errors, outcome
            assert both.secondary.alive, "a refused promotion stopped the secondary"
            both.wait()
            both.compare("the refused promotion did no harm")


def test_killed_at_any_moment_of_a_promotion_it_is_either_a_replica_or_promoted(tmp_path, chance: random.Random):
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both:
            both.start()
            with mounted(device, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.wait()
            both.secondary.kill()
            state, target = tmp_path / "kept-state", tmp_path / "kept-image"
            run("cp", "-a", both.secondary_state, state)
            shutil.copyfile(both.target, target)
            was = both.target.stat()
            began = time.monotonic()
            assert promote(both, "--force").code == 0
            whole_s = time.monotonic() - began
            for number in range(8):
                shutil.rmtree(both.secondary_state)
                run("cp", "-a", state, both.secondary_state)
                with both.target.open("r+b") as image:
                    image.write(target.read_bytes())
                os.utime(both.target, ns=(was.st_atime_ns, was.st_mtime_ns))
                promotion = Controller(
                    tmp_path / f"p{number}.log", ["promote", both.target, "--state", both.secondary_state, "--force"]
                )
                time.sleep(chance.uniform(0.0, whole_s))
                os.kill(promotion.process.pid, signal.SIGKILL)
                promotion.process.wait()
                outcome = promote(both, "--force")
                assert outcome.code == 0 or "was promoted at" in outcome.errors, outcome
                assert_identical(device.path, both.target, 64 * MIB, "after a promotion that was killed")


@pytest.mark.variant
def test_failing_back_compares_and_copies_only_what_differs(tmp_path, chance):
    size = 64 * MIB
    (tmp_path / "b").mkdir()
    with loop_device(tmp_path, size) as first, loop_device(tmp_path / "b", size) as second:
        make_filesystem("ext4", first.path)
        with cluster(tmp_path / "c", first, target=second.path) as both:
            both.start()
            with mounted(first, tmp_path / "mnt") as folder:
                write_files(folder, chance)
            both.wait()
            both.secondary.kill()
            with mounted(first, tmp_path / "mnt") as folder:  # never replicated
                (folder / "lost").write_bytes(chance.randbytes(300_000))
            assert command("down", "--state", both.primary_state).code == 0
            assert promote(both, "--force").code == 0
            with mounted(second, tmp_path / "mnt") as folder:  # the volume lives on there
                (folder / "new").write_bytes(chance.randbytes(500_000))
            back = Cluster(tmp_path / "back", second, primary_options=("--whole-device",), target=first.path)
            try:
                back.start()
                back.wait()
                status = back.status()
                assert status["sent_bytes"] < 8 * MIB, "not only what differs was copied"
                back.compare("after the failback")
            finally:
                back.close()


def test_a_promotion_says_what_is_lost_and_the_old_primary_learns_of_it_where_it_connects(tmp_path, chance):
    """The cable is cut under load; the replica is promoted and replicated from; the old primary comes back."""
    size = 64 * MIB
    (tmp_path / "b").mkdir()
    with loop_device(tmp_path, size) as first, loop_device(tmp_path / "b", size) as second:
        make_filesystem("ext4", first.path)
        with cluster(tmp_path / "c", first, target=second.path) as both:
            both.start()
            with mounted(first, tmp_path / "mnt") as folder:
                write_files(folder, chance)
                both.wait()
                until_answered_for(both)
                both.secondary.freeze()
                (folder / "lost").write_bytes(chance.randbytes(3 * MIB))
                run("sync", "-f", folder)
                time.sleep(2)  # the primary tells once per second; the kernel takes its words for the frozen secondary
                both.primary.freeze()
                both.secondary.thaw()
            outcome = promote(both)
            while outcome.code == BusyError.exit_code:  # heard a moment ago: nothing of it is left behind
                assert both.secondary.alive, both.tails()
                outcome = promote(both)
            assert outcome.code == 0, outcome
            assert "everything that was written there before is here" in outcome.output, outcome
            assert "are only there, and not known here" in outcome.output, outcome
            kept = Cluster(tmp_path / "after", second, target=first.path)
            kept.primary_state = both.secondary_state
            try:
                kept.run_primary(f"unix:{tmp_path / 'nobody'}")
                both.primary.thaw()
                assert both.primary.wait() == 5, both.primary.words()
                assert "was promoted" in both.primary.words(), both.primary.words()
            finally:
                kept.close()

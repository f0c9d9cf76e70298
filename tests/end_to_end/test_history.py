"""Every sector's history: self-describing sectors tell a stale, a misplaced and a torn one, and a broken order."""

from __future__ import annotations

import contextlib
import random
import time

import pytest

from tests.end_to_end.harm import hurt
from tests.end_to_end.histories import acknowledged, kill_and_check
from tests.lab import raw
from tests.lab.cluster import cluster
from tests.lab.disks import loop_device
from tests.lab.load import load
from tests.lab.patience import until
from tests.lab.rounds import short
from tests.lab.sectors import check, writers

MIB = 1 << 20
SIZE = 48 * MIB
TINY = ("--ring-size", "64K", "--record-ring-size", "4K", "--log-size", "4K")


@pytest.mark.parametrize(
    ("name", "options", "sector_bytes"),
    short(
        1,
        ("normal", (), 512),
        ("tiny", TINY, 512),
        ("64k", ("--block-size", "64K"), 4096),
        ("512", ("--block-size", "512"), 512),
    ),
)
def test_at_every_kill_the_replica_is_a_prefix_of_each_writers_history(
    tmp_path, name, options, sector_bytes, chance, rounds
):
    """Each writer waits for one write before the next: the replica never holds n + 1 without n."""
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(loop_device(tmp_path, SIZE, sector_bytes))
        both = stack.enter_context(
            cluster(tmp_path / "c", device, wired=True, primary_options=(*options, "--ack-timeout", 4))
        )
        everybody = writers(device.path, 4, SIZE // 512, chance.randrange(1 << 30), sector_bytes // 512)
        for writer in everybody:
            stack.callback(writer.close)
        both.start()
        known = [0] * len(everybody)
        for number in range(2 * rounds + 1):
            with load() as running:
                for writer in everybody:
                    running.add(writer, 0.01 if name == "normal" else 0.03)
                if name != "tiny":
                    both.until_mode("normal")
                time.sleep(chance.uniform(0.2, 2.0))
                if chance.random() < 0.5:
                    hurt(both, chance.choice(["cut", "kill primary", "freeze secondary"]), chance)
                known = acknowledged(both, everybody, 60 if name != "tiny" else 3) or known
                time.sleep(chance.uniform(0.0, 0.5))
                kill_and_check(both, everybody, known, number)
        both.wait()
        both.compare("after everything")
        check(both.target, everybody, [writer.completed for writer in everybody], exactly=True)
        status = both.status()
        if name == "tiny":
            assert status["statistics"]["log_full"] > 0, "the ring was meant to be too small"
        assert not status["tainted"]


def test_overlapping_writes_in_flight_at_once_end_identical(tmp_path, chance: random.Random, rounds):
    """Which of two writes in flight to one block the disk keeps is anybody's guess; the replica must keep the same."""
    with loop_device(tmp_path, SIZE) as device, cluster(tmp_path / "c", device) as both:
        both.start()
        both.until_mode("normal")
        for _ in range(rounds):
            with contextlib.ExitStack() as stack, load() as running:
                for thread in range(6):
                    writer = raw.Overlapping(device.path, 256, chance.randrange(1 << 30) + thread)
                    running.add(stack.enter_context(writer))
                until(
                    lambda r=running: (
                        r.steps > 1500 and both.status()["statistics"]["unsettled_blocks"]["overlapped"] > 0
                    ),
                    "enough was written, and some of it at once",
                )
            both.wait()
            assert "broke the protocol" not in both.secondary.words()
            both.compare("after overlapping writes")
            both.start_secondary()
            both.until_mode("normal")


def test_discards_and_zeroes_of_any_size_and_place_are_replicated(tmp_path, chance):
    with loop_device(tmp_path, 512 * MIB) as device, cluster(tmp_path / "c", device) as both:
        both.start()
        both.until_mode("normal")
        with raw.Erasing(device.path, 512 * MIB, chance.randrange(1 << 30)) as eraser, load() as running:
            running.add(eraser)
            until(lambda: running.steps > 250, "enough was written and erased")
        both.wait()
        both.compare("after discards")

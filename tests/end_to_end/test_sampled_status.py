"""Status, asked twenty times per second while the link is cut and processes are killed, is never better than the truth.

The truth is the test's own: it knows which blocks were written since nothing can reach the secondary any more, and it compares
the images as soon as the primary says that nothing is missing.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import pytest

from pydbt.core.protocol.heartbeat import FRESH_S
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device
from tests.lab.load import load
from tests.lab.patience import until
from tests.lab.programs import Status, command
from tests.lab.raw import DirectWriter
from tests.lab.rounds import ROUNDS, short

SIZE = 64 << 20
BLOCK = 4096
EVERY_S = 0.05
TINY = ("--ring-size", "256K", "--log-size", "16K")
# Longer than a write may be missing from an up-to-date replica, and than it takes to hear of the write.
STALE_S = FRESH_S + 0.25


@dataclass(frozen=True)
class Write:
    block: int
    submitted: float
    completed: float


@dataclass
class Apart:
    """A time in which nothing reaches the secondary."""

    since: float
    until: float = inf


@dataclass
class Truth:
    writes: list[Write] = field(default_factory=list)
    apart: list[Apart] = field(default_factory=list)

    def missing(self, asked_at: float) -> list[Write]:
        """What was written, and can for certain not be on the secondary, when a status was asked for."""
        for time_apart in self.apart:
            if time_apart.since < asked_at < time_apart.until:
                return [one for one in self.writes if one.submitted >= time_apart.since and one.completed < asked_at]
        return []


Sample = tuple[float, Status | None]


def sampling(ask: Callable[[], Status | None], into: list[Sample]) -> Callable[[], None]:
    def look() -> None:
        asked_at = time.monotonic()
        into.append((asked_at, ask()))

    return look


def writing(writer: DirectWriter, truth: Truth, chance: random.Random) -> Callable[[], None]:
    def write() -> None:
        block, submitted = chance.randrange(SIZE // BLOCK), time.monotonic()
        writer.put(block * BLOCK, chance.randbytes(BLOCK))
        truth.writes.append(Write(block, submitted, time.monotonic()))

    return write


def hurt(both: Cluster, how: str) -> Callable[[], None]:
    """From its return on nothing reaches the secondary, until what it returns is called."""
    match how:
        case "cut":
            both.wire.cut()
            return both.wire.mend
        case "unplug":
            both.wire.unplug()
            return both.wire.plug
        case "kill secondary":
            both.secondary.kill()
            return both.start_secondary
        case "freeze secondary" | "log full":
            both.secondary.freeze()
            return both.secondary.thaw
        case "kill primary":
            both.primary.kill()
            return both.start_primary
    raise AssertionError(how)


def told_without_a_controller(both: Cluster) -> Status:
    outcome = command("status", "--state", both.primary_state, "--json")
    assert outcome.code == 9, outcome
    told: dict[str, Any] = json.loads(outcome.output)
    return told


def complaints(truth: Truth, samples: list[Sample], *, counts: bool) -> list[str]:
    """Each answer that was better than the truth. ``counts``: it tells what is out of sync, so it must count enough."""
    wrong = []
    for asked_at, status in samples:
        missing = truth.missing(asked_at)
        if status is None or not missing:
            continue
        age_s = asked_at - min(one.completed for one in missing)
        if status.get("replica_state") == "up-to-date" and age_s > STALE_S:
            wrong.append(f"up-to-date, and a write is missing for {age_s:.2f} s")
        told, least = status.get("out_of_sync_bytes"), BLOCK * len({one.block for one in missing})
        if counts and told is not None and told < least:
            wrong.append(f"{told} bytes out of sync, and at least {least} are")
    return wrong


VARIANTS = ("cut", "kill primary", "kill secondary", "unplug", "freeze secondary", "log full")


@pytest.mark.parametrize("how", short(2, *VARIANTS))
def test_no_answer_is_better_than_the_truth(tmp_path: Path, chance: random.Random, how: str) -> None:
    truth = Truth()
    primary, secondary, stopped = list[Sample](), list[Sample](), list[Sample]()
    # With a log that is full nobody waits for an acknowledgement.
    options = ("--ack-timeout", 60, *TINY) if how == "log full" else ("--ack-timeout", 4)
    with (
        loop_device(tmp_path, SIZE) as device,
        cluster(tmp_path / "c", device, wired=True, primary_options=options) as both,
        DirectWriter(device.path, private=True) as writer,
    ):
        both.start()
        both.wait()
        for _ in range(ROUNDS):
            # A frozen or dead side answers nobody; the others are asked all the time.
            ask_secondary = how not in ("freeze secondary", "kill secondary", "log full")
            with load() as writes:
                writes.add(writing(writer, truth, chance), 0.01)
                with load() as asked:
                    asked.add(sampling(both.status, primary), EVERY_S)
                    if ask_secondary:
                        asked.add(sampling(both.secondary_status, secondary), EVERY_S)
                    time.sleep(chance.uniform(0.2, 1))
                    undo = hurt(both, how)
                    truth.apart.append(Apart(time.monotonic()))
                    time.sleep(chance.uniform(3, 6))
                    if how == "kill primary":
                        stopped += [(time.monotonic(), told_without_a_controller(both)) for _ in range(3)]
                    truth.apart[-1].until = time.monotonic()
                undo()
                until(lambda: (both.status() or {}).get("replica_state") == "up-to-date", "it is up to date under load")
            until(lambda: says_that_nothing_is_missing(both.status()), "the primary says that nothing is missing")
            both.wire.cut()  # from here on nothing can make it true that was not
            both.until_applied()
            assert both.differing() == 0, "the primary said that nothing is missing"
            both.wire.mend()
            both.wait()
        both.compare(how)
    print(f"{len(truth.writes)} writes; {len(primary)}, {len(secondary)} and {len(stopped)} answers")
    assert any(truth.missing(asked_at) for asked_at, status in (*primary, *stopped) if status is not None)
    assert complaints(truth, primary, counts=True) == []
    assert complaints(truth, stopped, counts=True) == []
    assert complaints(truth, secondary, counts=False) == []
    assert how != "log full" or "log full" in both.primary_log.read_text()


def test_behind_a_slow_line_neither_side_is_up_to_date_while_older_writes_wait_in_its_queue(
    tmp_path: Path, chance: random.Random
) -> None:
    """A writer at the speed of the line behind one that was faster: the queue stands, and everything arrives seconds late."""
    rate, piece = 512 << 10, 64 << 10
    written: list[tuple[float, int]] = []  # when it had completed, and the bytes until then
    primary, secondary = list[Sample](), list[Sample]()
    with (
        loop_device(tmp_path, SIZE) as device,
        cluster(tmp_path / "c", device, wired=True) as both,
        DirectWriter(device.path, private=True) as writer,
    ):
        both.start()
        both.wait()
        both.wire.throttle(rate)
        began = time.monotonic()

        def write() -> None:
            writer.put(chance.randrange(SIZE // piece) * piece, chance.randbytes(piece))
            written.append((time.monotonic(), piece + (written[-1][1] if written else 0)))

        def keep_the_queue() -> None:
            """Six seconds of the line, whatever else this machine does."""
            while not written or written[-1][1] < (6 + time.monotonic() - began) * rate:
                write()

        keep_the_queue()
        with load() as running:
            running.add(keep_the_queue, EVERY_S)
            running.add(sampling(both.status, primary), EVERY_S)
            running.add(sampling(both.secondary_status, secondary), EVERY_S)
            time.sleep(14)

    def is_missing_something_old(asked_at: float) -> bool:
        old = max((size for completed, size in written if completed < asked_at - STALE_S), default=0)
        return old > (asked_at - began) * rate + (1 << 20)  # with what the line lets pass at once

    for samples in (primary, secondary):
        told = [status["replica_state"] for at, status in samples if status and is_missing_something_old(at)]
        assert len(told) > 20 and "up-to-date" not in told


def says_that_nothing_is_missing(status: Status | None) -> bool:
    told = status or {}
    return told.get("replica_state") == "up-to-date" and told["out_of_sync_bytes"] == told["lag_bytes"] == 0


def test_an_answer_that_is_better_than_the_truth_is_noticed() -> None:
    truth = Truth([Write(7, 10.0, 10.1), Write(7, 10.2, 10.3), Write(9, 10.4, 10.5)], [Apart(9.0, 20.0)])
    green = {"replica_state": "up-to-date", "out_of_sync_bytes": 0}
    assert complaints(truth, [(9.5, green), (25.0, green), (12.0, None)], counts=True) == []
    assert complaints(truth, [(10.6, green | {"out_of_sync_bytes": 2 * BLOCK})], counts=True) == []
    assert len(complaints(truth, [(10.6, green | {"out_of_sync_bytes": BLOCK})], counts=True)) == 1
    assert complaints(truth, [(10.6, green | {"out_of_sync_bytes": BLOCK})], counts=False) == []
    assert len(complaints(truth, [(12.5, green | {"out_of_sync_bytes": 2 * BLOCK})], counts=True)) == 1
    assert complaints(truth, [(12.5, {"replica_state": "outdated", "out_of_sync_bytes": None})], counts=True) == []

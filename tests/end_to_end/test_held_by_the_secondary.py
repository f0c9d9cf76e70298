"""Answers under load, each compared with what the secondary holds: it is killed, its journal is replayed, and every block read.

A block that was written tells by which write. So of each answer that was asked for before the kill it is known which writes were
complete by then, and are not even in the image of a later moment.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pydbt.core.protocol.heartbeat import FRESH_S
from pydbt.core.seen.headline import headline
from pydbt.core.seen.plugin import Limits, judged
from pydbt.core.seen.sight import Asked, Level, sight_of
from pydbt.core.seen.view import View
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import loop_device
from tests.lab.load import load
from tests.lab.patience import until
from tests.lab.programs import Status
from tests.lab.raw import DirectWriter
from tests.lab.rounds import ROUNDS, short

SIZE = 64 << 20
BLOCK = 4096
EVERY_S = 0.05
WRITERS = 2
# Longer than a write may be missing from an up-to-date replica.
STALE_S = FRESH_S + 0.25
# Moments are told in milliseconds.
ROUNDING_S = 0.002
LIMITS = Limits(60, 600)

Numbers = NDArray[np.int64]


class Numbered:
    """Writes blocks of its own part of a device, one after the other, each with its number; and knows when each was complete."""

    def __init__(self, device: Path, writer: int, chance: random.Random) -> None:
        self._first = writer * (SIZE // BLOCK // WRITERS)
        self._chance = chance
        self._writer = DirectWriter(device, private=True)
        self.blocks, self.completed = list[int](), list[float]()

    def __call__(self) -> None:
        block = self._first + self._chance.randrange(SIZE // BLOCK // WRITERS)
        self._writer.put(block * BLOCK, struct.pack("<Q", len(self.blocks) + 1) + self._chance.randbytes(BLOCK - 8))
        self.blocks.append(block)
        self.completed.append(time.time())

    def close(self) -> None:
        self._writer.close()


@dataclass(frozen=True)
class Lacking:
    """The writes that are not in an image, in the order of their completion."""

    blocks: Numbers
    completed: NDArray[np.float64]

    @classmethod
    def of(cls, image: Path, writers: list[Numbered]) -> Lacking:
        held = np.fromfile(image, np.int64)[:: BLOCK // 8]
        blocks, completed = list[int](), list[float]()
        for writer in writers:
            # A write may be noted after the kill, and before it is complete to us: both lists have the same beginning.
            for number, (block, at) in enumerate(zip(writer.blocks, writer.completed, strict=False), start=1):
                if number > held[block]:
                    blocks.append(block)
                    completed.append(at)
        order = np.argsort(completed)
        return cls(np.array(blocks, np.int64)[order], np.array(completed)[order])

    def at(self, moment: float) -> tuple[float | None, int]:
        """When the oldest write was complete that was missing at a moment, and how many bytes were."""
        count = int(np.searchsorted(self.completed, moment))
        if not count:
            return None, 0
        return float(self.completed[0]), BLOCK * len(np.unique(self.blocks[:count]))


Sample = tuple[float, Status]


def sampling(ask: Callable[[], Status | None], into: list[Sample]) -> Callable[[], None]:
    def look() -> None:
        asked_at = time.time()
        if (told := ask()) is not None:
            into.append((asked_at, told))

    return look


def seconds(moment: object) -> float:
    return datetime.fromisoformat(str(moment)).timestamp()


def complaints(lacking: Lacking, samples: list[Sample]) -> list[str]:
    """Each answer that was better than the truth, of either side, and what each view would make of it."""
    wrong = []
    for asked_at, told in samples:
        oldest, missing = lacking.at(asked_at)
        if oldest is None:
            continue
        age_s = asked_at - oldest
        names = (
            of_a_secondary(lacking, told, oldest)
            if told["role"] == "secondary"
            else of_a_primary(told, oldest, missing)
        )
        names += green_views(told, asked_at) if age_s > STALE_S else []
        wrong += [f"{name}, and {missing} bytes were missing, for {age_s:.2f} s" for name in names]
    return wrong


def of_a_primary(told: Status, oldest: float, missing: int) -> list[str]:
    names = []
    for key in ("out_of_sync_bytes", "lag_bytes"):
        if told[key] is not None and told[key] < missing:
            names.append(f"{key} {told[key]}")
    if told["last_in_sync"] is not None and seconds(told["last_in_sync"]) > oldest + ROUNDING_S:
        names.append(f"in sync {seconds(told['last_in_sync']) - oldest:.3f} s after the oldest missing write")
    return names


def of_a_secondary(lacking: Lacking, told: Status, oldest: float) -> list[str]:
    names, primary = [], told["primary"]
    if primary["as_of"] and seconds(primary["as_of"]) > oldest + ROUNDING_S:
        names.append(f"as of {seconds(primary['as_of']) - oldest:.3f} s after the oldest missing write")
    if primary["told"] and primary["behind_bytes"] is not None:
        _, missing = lacking.at(seconds(primary["told"]))
        if primary["behind_bytes"] < missing:
            names.append(f"behind by {primary['behind_bytes']} when {missing} were missing")
    return names


def green_views(told: Mapping[str, object], asked_at: float) -> list[str]:
    """What says that nothing is missing."""
    now = datetime.fromtimestamp(asked_at, UTC)
    status = View({**told, "running": True})
    names = [] if status.text("replica_state") != "up-to-date" else ["up-to-date"]
    if headline(status, now).startswith("up to date"):
        names.append("the first line is up to date")
    if sight_of(Asked(status.values, 0.0), "", "", "", now).level is Level.GOOD:
        names.append("the dashboard shows it as good")
    age_s = judged("", status, now, LIMITS).age_s
    if age_s is not None and age_s < STALE_S - 2 * EVERY_S:
        names.append(f"check has an age of {age_s:.2f} s")
    return names


@contextmanager
def numbered(device: Path, chance: random.Random) -> Iterator[list[Numbered]]:
    made = [Numbered(device, number, random.Random(chance.random())) for number in range(WRITERS)]
    try:
        yield made
    finally:
        for one in made:
            one.close()


def until_the_moment(both: Cluster, moment: str, chance: random.Random) -> None:
    """What goes on when the secondary is killed."""
    match moment:
        case "load":
            time.sleep(chance.uniform(1, 3))
        case "log full":
            until(lambda: (both.status() or {"mode": "normal"})["mode"] != "normal", "the log is full")
            time.sleep(chance.uniform(0, 3))
        case "resynchronization":
            both.wire.cut()
            time.sleep(6)
            both.wire.mend()
            both.until_mode("resynchronizing")
            time.sleep(chance.uniform(0, 2))
        case "cut":
            both.wire.cut()
            time.sleep(chance.uniform(2, 5))
        case "frozen primary":
            both.primary.freeze()
            time.sleep(chance.uniform(3, 5))


OPTIONS: dict[str, tuple[object, ...]] = {
    "log full": ("--ring-size", "1M", "--log-size", "1M"),
    "resynchronization": ("--rate-limit", "8M/s"),
}


@pytest.mark.parametrize("moment", short(1, "load", "frozen primary", "resynchronization", "log full", "cut"))
def test_no_answer_tells_of_more_than_a_killed_secondary_holds(
    tmp_path: Path, chance: random.Random, moment: str
) -> None:
    options = ("--ack-timeout", 4, *OPTIONS.get(moment, ()))
    with (
        loop_device(tmp_path, SIZE) as device,
        cluster(tmp_path / "c", device, wired=True, primary_options=options) as both,
    ):
        both.start()
        both.wait()
        for _ in range(ROUNDS):
            primary, secondary = list[Sample](), list[Sample]()
            killed = threading.Event()
            with numbered(device.path, chance) as writers, load() as writes:
                for writer in writers:
                    writes.add(writer, 0.0 if moment in ("load", "log full") else 0.003)
                with load() as asked:
                    # A frozen side answers when it goes on, of a moment after the kill.
                    if moment != "frozen primary":
                        asked.add(sampling(both.status, primary), EVERY_S)
                    asked.add(sampling(both.secondary_status, secondary), EVERY_S)
                    until_the_moment(both, moment, chance)
                    both.secondary.kill()
                    killed_at = time.time()
                    killed.set()
                both.primary.thaw()
            lacking = Lacking.of(both.snapshot("held"), writers)
            samples = [one for one in (*primary, *secondary) if one[0] < killed_at]
            print(f"{moment}: {len(lacking.blocks)} writes were missing; {len(primary)} and {len(secondary)} answers")
            assert len(lacking.blocks) and samples
            assert complaints(lacking, samples) == []
            if moment == "cut":
                both.wire.mend()
            both.start_secondary()
            both.wait()
            blank(device.path)
            both.wait()
        both.compare(moment)


def blank(device: Path) -> None:
    """The next round's numbers begin anew."""
    with DirectWriter(device, 8 << 20, private=True) as writer:
        for offset in range(0, SIZE, 8 << 20):
            writer.put_memory(offset, 8 << 20)


def test_an_answer_that_is_better_than_the_truth_is_noticed() -> None:
    lacking = Lacking(np.array([7, 7, 9]), np.array([100.0, 100.1, 100.2]))
    at = datetime.fromtimestamp
    green = {
        "role": "primary", "mode": "normal", "connected": True, "replica_state": "up-to-date", "out_of_sync_bytes": 2 * BLOCK,
        "lag_bytes": 2 * BLOCK, "lag_seconds": 0.0, "last_in_sync": at(100, UTC).isoformat(),
    }  # fmt: skip
    assert complaints(lacking, [(99.0, green), (101.0, green)]) == []
    assert len(complaints(lacking, [(103.0, green)])) == 4, "state, first line, dashboard and check"
    assert len(complaints(lacking, [(101.0, green | {"out_of_sync_bytes": BLOCK, "lag_bytes": 0})])) == 2
    assert len(complaints(lacking, [(101.0, green | {"last_in_sync": at(100.1, UTC).isoformat()})])) == 1
    replica = {
        "role": "secondary", "mode": "streaming", "connected": True, "replica_state": "consistent",
        "primary": {"as_of": at(100, UTC).isoformat(), "told": at(101, UTC).isoformat(), "behind_bytes": 2 * BLOCK},
    }  # fmt: skip
    assert complaints(lacking, [(101.0, replica)]) == []
    worse = {"as_of": at(100.1, UTC).isoformat(), "told": at(101, UTC).isoformat(), "behind_bytes": BLOCK}
    assert len(complaints(lacking, [(101.0, replica | {"primary": worse})])) == 2

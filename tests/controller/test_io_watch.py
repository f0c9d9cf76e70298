"""The answer of a primary to ``io``: figures of intervals, fewer timed I/Os under load, and the cost now and then."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pydbt.controller.primary import io_watch
from pydbt.controller.primary.io_watch import IoCollector, IoWatch
from pydbt.controller.primary.volume import Volume
from pydbt.controller.primary.watched import WhileWatched
from pydbt.core.seen.io_figures import FIGURES, MANY_PER_S, SAMPLED_EVERY
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.tracing.block_io import BlockIo
from pydbt.kernel.tracing.observed import RunTime

DEVICE = BlockDevice("/dev/vdb", "vdb", 254, 16, 254, 16, None, 0, 1 << 21, 512, False, False)


class Programs:
    """In the place of those in the kernel: each reading has more."""

    def __init__(self) -> None:
        self.per_reading, self.every, self.timed = 100, 1, 0
        self.counting = self.closed = False
        self._figures = np.zeros(len(OPERATIONS), FIGURES)
        self._spent = RunTime(0, 0, 0)

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def figures(self) -> np.ndarray:
        self._figures[1]["count"] += self.per_reading
        self._figures[1]["bytes"] += 4096 * self.per_reading
        self._figures[1]["latency"][PARTS.index("total")][60] += self.timed
        return self._figures.copy()

    def run_time(self) -> RunTime:
        if self.counting:
            self._spent = RunTime(self._spent.run_time_ns + 20_000, self._spent.run_count + 100, 3)
        return self._spent

    def take_time_of(self, every: int) -> None:
        self.every = every


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    found = Programs()

    @contextlib.contextmanager
    def counting() -> Iterator[None]:
        found.counting = True
        yield
        found.counting = False

    monkeypatch.setattr(BlockIo, "attach", lambda device: found)
    monkeypatch.setattr(io_watch, "counting_run_time", counting)
    return found


@pytest.fixture
def collector(programs: Programs, tmp_path: Path) -> Iterator[IoCollector]:
    made = IoCollector(DEVICE, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_the_answer_has_the_last_interval_and_the_last_minute(collector: IoCollector) -> None:
    for _ in range(70):
        collector.turn()
    answer = json.loads(json.dumps(collector.report()))
    assert answer["device"] == "/dev/vdb" and answer["in_requests"] is True
    assert answer["now"]["write"]["count"] == 100 and answer["minute"]["write"]["count"] == 6000
    assert len(answer["moments"]) == 60 == len(answer["offset_heat"]["columns"]["write"])
    assert answer["missed"] == 3


def test_under_load_one_io_in_eight_is_timed_and_told(collector: IoCollector, programs: Programs) -> None:
    collector.turn()
    assert collector.report()["timed_every"] == 1 or programs.every == SAMPLED_EVERY  # the first interval is short
    programs.per_reading = 1000 * MANY_PER_S
    collector.turn()
    assert programs.every == collector.report()["timed_every"] == SAMPLED_EVERY
    programs.per_reading = 0
    collector.turn()
    assert programs.every == collector.report()["timed_every"] == 1


def test_a_timed_sample_counts_for_all_its_requests_in_the_totals(collector: IoCollector, programs: Programs) -> None:
    programs.per_reading, programs.timed = 80, 80
    collector.turn()
    collector._every = SAMPLED_EVERY
    programs.timed = 10
    collector.turn()
    told = collector.report()["totals"]["write"]
    assert told["requests"] == 160 == sum(told["latency"]["total"]["counts"])
    assert collector.report()["since"].startswith("20")


class Watched:
    """In the place of ``WhileWatched``."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report, self.kept, self.asked = report, 0, 0

    def answer(self) -> dict[str, Any]:
        self.asked += 1
        return self.report

    def keep(self) -> None:
        self.kept += 1

    def last(self) -> dict[str, Any]:
        return self.report


def watch_of(option: str, report: dict[str, Any]) -> tuple[IoWatch, Watched]:
    made = IoWatch(cast(Volume, SimpleNamespace(options=SimpleNamespace(block_io=option))))
    watched = Watched(report)
    made._watched = cast(WhileWatched, watched)
    return made, watched


@pytest.mark.parametrize(("option", "kept"), [("off", 0), ("auto", 0), ("always", 1)])
def test_only_always_attaches_without_a_question_and_the_status_never_does(option: str, kept: int) -> None:
    made, watched = watch_of(option, {"running": False, "problem": ""})
    made.note()
    made.told()
    assert (watched.kept, watched.asked) == (kept, 0)


def test_a_question_is_answered_with_the_setting_where_block_io_is_off_and_nothing_is_attached() -> None:
    made, watched = watch_of("off", {})
    assert 'block-io = "off"' in made.answer()["problem"] and made.told().state == "off" and watched.asked == 0


ATTACHED = {"since": "2026-01-02T03:04:05.000Z", "timed_every": 8, "totals": {"read": {"requests": 1}}}


@pytest.mark.parametrize(
    ("report", "state", "problem"),
    [
        ({"running": False, "problem": ""}, "idle", ""),
        ({"running": True, "problem": ""}, "starting", ""),
        ({"running": False, "problem": "no headers"}, "idle", "no headers"),
        ({"running": True, "problem": "", **ATTACHED}, "attached", ""),
    ],
)
def test_the_status_tells_what_is_attached(report: dict[str, Any], state: str, problem: str) -> None:
    told = watch_of("auto", report)[0].told()
    assert (told.state, told.problem) == (state, problem)
    assert (told.operations, told.timed_every) == ((ATTACHED["totals"], 8) if state == "attached" else ({}, None))


def test_the_cost_is_measured_in_one_interval_of_ten(collector: IoCollector, programs: Programs) -> None:
    collector.turn()
    assert "observing_ns_per_io" not in collector.report()["cost"], "nothing is told before it is measured"
    counted = [programs.counting]
    for _ in range(21):
        collector.turn()
        counted.append(programs.counting)
    assert sum(counted) == 3 and counted[0] and counted[10] and not counted[1]
    assert collector.report()["cost"]["observing_ns_per_io"] == 200
    assert collector.report()["cost"]["capture_ns_per_io"] == 0, "none are pinned there"


def test_a_start_that_fails_leaves_nothing_attached(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> np.ndarray:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(programs, "figures", fail)
    with pytest.raises(OSError, match="allocate"):
        IoCollector(DEVICE, tmp_path)
    assert programs.closed


def test_at_its_end_nothing_is_counted_and_nothing_attached(programs: Programs, tmp_path: Path) -> None:
    made = IoCollector(DEVICE, tmp_path)
    made.turn()
    assert programs.counting
    made.close()
    assert programs.closed and not programs.counting

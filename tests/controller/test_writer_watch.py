"""The view of the loop and the control socket on the writers; the programs themselves are a fake here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pydbt.controller.primary import watched, writer_collector, writer_watch
from pydbt.controller.primary.writer_watch import WriterWatch
from pydbt.core.errors import MachineError
from pydbt.core.primary.modes import Mode
from pydbt.core.seen.writers.attachment import LEFT_FOR_S
from pydbt.core.seen.writers.outrun import OUTRUN_WINDOW_S
from pydbt.core.seen.writers.reading import Amount, File, Kind, RowKey, Writer, WriterReading
from pydbt.device.written_places import WrittenPlaces
from tests.lab.patience import wait_until

MIB = 1 << 20
DD = Writer(4711, 5, 31, 0, False, b"dd")


class Programs:
    """In the place of WriterPrograms: dd has written this much."""

    problem = ""

    def __init__(self) -> None:
        self.written, self.stuck, self.closed = 0, threading.Event(), False
        self.stuck.set()
        self.places: list[Any] = []
        self.readings = self.looks = 0
        self.samples: list[Any] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def set_places(self, places: Any) -> None:
        self.places.append(places)

    def sample(self, sample: Any) -> None:
        self.samples.append(sample)

    def read(self) -> WriterReading:
        self.stuck.wait(20)
        self.readings += 1
        rows = {RowKey(Kind.DIRECT, 1, File(1, 2, 3)): Amount(0, self.written)}
        return WriterReading(rows, {1: DD}, self.written, looks=self.looks)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    made = Programs()
    monkeypatch.setattr(watched, "_INTERVAL_S", 0.005)
    monkeypatch.setattr(writer_collector.WriterPrograms, "attach", lambda volume, pin_dir: made)
    monkeypatch.setattr(writer_collector, "written_places", lambda device: WrittenPlaces({7: True}, {}))
    return made


@pytest.fixture
def volume() -> Any:
    brain = SimpleNamespace(mode=Mode.NORMAL)
    return SimpleNamespace(
        options=SimpleNamespace(attribution="auto"), brains=[brain], device=None,
        capture=SimpleNamespace(volume=None, pin_dir=None),
    )  # fmt: skip


@pytest.fixture
def watch(volume: Any, programs: Programs) -> Iterator[WriterWatch]:
    made = WriterWatch(volume)
    yield made
    programs.stuck.set()
    made.close()


def report_of(*, connected: bool = True, lag_bytes: int | None = 0) -> Any:
    together = SimpleNamespace(connected=connected, epochs=None, lag_bytes=lag_bytes, out_of_sync_bytes=lag_bytes)
    return SimpleNamespace(together=together)


def test_in_mode_normal_nothing_is_attached_until_somebody_asks(watch: WriterWatch, programs: Programs) -> None:
    watch.note(0.0)
    assert watch.told().state == "idle" and not programs.places
    assert watch.answer()["starting"]
    wait_until(lambda: watch.told().state == "attached", "it is attached")
    assert programs.places == [{7: 1}]
    assert "read_at" not in watch.answer()


def test_out_of_mode_normal_it_is_attached_by_itself(watch: WriterWatch, volume: Any, programs: Programs) -> None:
    programs.written = 10 * MIB
    volume.brains[0].mode = Mode.UNSYNCHRONIZED
    watch.note(0.0)
    assert watch.told().state == "idle"
    watch.note(LEFT_FOR_S)
    wait_until(lambda: watch.told().state == "attached", "it is attached")
    wait_until(lambda: bool(watch.told().top), "it was read")
    (top,) = watch.told().top
    assert (top.name, top.process, top.written_bytes) == ("dd", 4711, 10 * MIB)


def test_a_failure_is_a_problem_of_the_answer_alone(watch: WriterWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(volume: Any, pin_dir: Any) -> Any:
        raise MachineError("this kernel has no BTF")

    monkeypatch.setattr(writer_collector.WriterPrograms, "attach", fail)
    watch.answer()
    wait_until(lambda: watch.answer()["problem"] != "", "the problem is told")
    assert watch.told().problem == "this kernel has no BTF" and watch.told().state == "idle"
    watch.note(0.0)


def test_a_reading_that_does_not_end_holds_nobody_and_its_figures_are_called_old(
    watch: WriterWatch, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.answer()
    wait_until(lambda: watch.told().state == "attached", "it is attached")
    programs.stuck.clear()
    monkeypatch.setattr(writer_watch, "_OLD_S", 0.02)
    wait_until(lambda: "old" in watch.answer()["problem"], "the figures are old")
    watch.note(0.0)
    assert "old" in watch.told().problem and watch.told().outrun is None


def test_under_load_a_sample_is_taken_and_the_answer_tells_it(watch: WriterWatch, programs: Programs) -> None:
    watch.answer()
    wait_until(lambda: watch.answer().get("sampled") is False, "it was read")
    programs.looks = 1 << 40
    wait_until(lambda: watch.answer()["sampled"], "it samples")
    assert programs.samples[0].is_partial


def test_a_process_that_outruns_the_link_is_told_with_its_name_and_rates(
    watch: WriterWatch, volume: Any, programs: Programs
) -> None:
    volume.brains[0].mode = Mode.RESYNCHRONIZING
    watch.note(0.0)
    watch.note(LEFT_FOR_S)
    wait_until(lambda: watch.told().state == "attached", "it is attached")
    now = time.monotonic()
    for second in range(0, int(3 * OUTRUN_WINDOW_S), 5):
        programs.written = 140 * MIB * (second + 1)
        wait_until(lambda: watch.told().top and watch.told().top[0].written_bytes == programs.written, "it was read")
        watch.stands(report_of(lag_bytes=90 * MIB * (second + 1)), now + second)
        programs.stuck.wait()
        readings = programs.readings
        wait_until(lambda: programs.readings > readings + 2, "it was judged")  # noqa: B023
    wait_until(lambda: watch.told().outrun is not None, "it is told")
    outrun = watch.told().outrun
    assert outrun is not None and (outrun.name, outrun.process) == ("dd", 4711)
    assert (outrun.rate_bytes, outrun.link_rate_bytes) == (140 * MIB, 50 * MIB)
    assert "dd (process 4711, control group 31) outruns the link since" in outrun.words
    assert watch.answer()["out_of_sync"]["bytes"] == 90 * MIB * 26


@pytest.mark.parametrize("mode", [Mode.NORMAL, Mode.UNSYNCHRONIZED])
def test_attribution_off_attaches_nothing_in_any_mode(volume: Any, programs: Programs, mode: Mode) -> None:
    volume.options.attribution, volume.brains[0].mode = "off", mode
    watch = WriterWatch(volume)
    watch.note(0.0)
    watch.note(99.0)
    assert watch.told().state == "off" and "off" in watch.answer()["problem"]
    assert not programs.places
    watch.close()

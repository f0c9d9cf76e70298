"""A process that writes more than the link carries is named, and neither a short burst nor a slow link alone names one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pydbt.core.seen.writers.outrun import OUTRUN_CALM_S, OUTRUN_WINDOW_S, Outrun, OutrunWatch, Sample
from pydbt.core.seen.writers.reading import Process

MIB = 1 << 20
DD, TAR = Process(1, 1), Process(2, 2)


class Volume:
    """Written to at some rates, over a link that carries another one."""

    def __init__(self) -> None:
        self.watch, self.now, self.backlog, self.connected = OutrunWatch(), 1000.0, 0.0, True
        self.written = {DD: 0.0, TAR: 0.0}

    def go_on(self, seconds: float, dd: float, tar: float = 0, link: float = 50) -> Outrun | None:
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            self.written[DD] += dd * MIB
            self.written[TAR] += tar * MIB
            self.backlog = max(self.backlog + (dd + tar - link) * MIB, 0)
            total = int(sum(self.written.values()))
            written = {one: int(value) for one, value in self.written.items()}
            self.watch.look(Sample(self.now, self.connected, int(self.backlog), total, written))
        return self.watch.found


def test_one_process_that_writes_more_than_the_link_carries_is_named_with_both_rates() -> None:
    volume = Volume()
    assert volume.go_on(5, dd=10) is None
    found = volume.go_on(40, dd=140, tar=3)
    assert found is not None and found.process == DD
    assert found.rate_bytes == pytest.approx(140 * MIB, rel=0.25)
    assert found.link_rate_bytes == pytest.approx(50 * MIB, rel=0.25)
    assert found.since == pytest.approx(1005, abs=OUTRUN_WINDOW_S)


def test_a_burst_names_nobody() -> None:
    volume = Volume()
    volume.go_on(30, dd=10)
    assert volume.go_on(OUTRUN_WINDOW_S / 2, dd=140) is None
    assert volume.go_on(60, dd=10) is None


def test_a_link_that_carries_everything_names_nobody() -> None:
    assert Volume().go_on(60, dd=40, tar=9) is None


def test_many_that_only_together_write_too_much_name_nobody() -> None:
    assert Volume().go_on(60, dd=30, tar=29) is None


def test_the_overload_is_over_some_time_after_the_process_writes_less() -> None:
    volume = Volume()
    volume.go_on(40, dd=140)
    assert volume.go_on(OUTRUN_CALM_S - 1, dd=1) is not None
    assert volume.go_on(OUTRUN_WINDOW_S + OUTRUN_CALM_S, dd=1) is None


def test_the_overload_does_not_flicker_when_the_process_pauses_or_writes_at_the_links_rate() -> None:
    volume = Volume()
    first = volume.go_on(40, dd=140)
    assert first is not None
    for _ in range(6):
        for seconds, rate in ((5, 0), (15, 140)):
            found = volume.go_on(seconds, dd=rate)
            assert found is not None and found.since == first.since
    steady = volume.go_on(60, dd=50)
    assert steady is not None and steady.since == first.since


def test_a_rate_that_was_told_changes_in_large_steps_alone() -> None:
    volume = Volume()
    told = {volume.go_on(1, dd=140 + at % 3) for at in range(60)} - {None}
    assert len(told) <= 3
    faster = volume.go_on(30, dd=300)
    assert faster is not None and faster.rate_bytes > 200 * MIB


def test_when_the_blocks_are_written_again_the_backlog_stops_growing_and_the_process_is_still_named() -> None:
    volume = Volume()
    assert volume.go_on(40, dd=140) is not None
    assert volume.go_on(90, dd=140, link=140) is not None


def test_a_backlog_that_shrinks_ends_the_overload() -> None:
    volume = Volume()
    assert volume.go_on(40, dd=140) is not None
    assert volume.go_on(OUTRUN_WINDOW_S + OUTRUN_CALM_S + 1, dd=140, link=200) is None


def test_another_process_that_outruns_it_is_named_in_its_place() -> None:
    volume = Volume()
    volume.go_on(40, dd=140)
    found = volume.go_on(60, dd=0, tar=140)
    assert found is not None and found.process == TAR


@pytest.mark.parametrize("lose", [lambda volume: setattr(volume, "connected", False)])
def test_without_a_link_nobody_outruns_it(lose: Callable[[Volume], None]) -> None:
    volume = Volume()
    volume.go_on(40, dd=140)
    lose(volume)
    assert volume.go_on(OUTRUN_CALM_S + 1, dd=140) is None


def test_a_backlog_that_is_not_known_names_nobody() -> None:
    watch = OutrunWatch()
    for second in range(60):
        assert watch.look(Sample(second, True, None, second * 99 * MIB, {DD: second * 99 * MIB})) is None


def test_counts_that_begin_anew_are_no_rate() -> None:
    volume = Volume()
    volume.go_on(8, dd=140)
    volume.written = {DD: 0.0, TAR: 0.0}
    volume.go_on(1, dd=1)
    assert volume.watch.found is None


def test_a_backlog_without_any_writer_names_nobody() -> None:
    watch = OutrunWatch()
    for second in range(60):
        assert watch.look(Sample(second, True, second * 50 * MIB, second * 99 * MIB, {})) is None

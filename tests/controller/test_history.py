"""A controller keeps its history in its state directory. Nothing waits for that, and a bad disk costs nothing but history."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydbt.controller import history as history_module
from pydbt.controller.event_log import EventLog
from pydbt.controller.history import HISTORY_FILE_NAME, HistoryKeeper
from pydbt.core.errors import BusyError, UsageError
from pydbt.core.seen.event_names import PROMOTED, STOPPED
from pydbt.core.seen.events import Event
from pydbt.core.seen.history import FILE_BYTES
from pydbt.core.seen.hooks import NO_HOOKS, Whose
from tests.lab.patience import wait_until

NOW = 1_800_000_000.0


class Run:
    """Runs of one controller, with a clock of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.monotonic = folder, NOW, 50.0
        self.events: list[Event] = []

    def since(self, number: int) -> tuple[tuple[Event, ...], int]:
        found = tuple(event for event in self.events if event.number > number)
        return found, self.events[-1].number if self.events else number

    def begin(self) -> HistoryKeeper:
        keeper = HistoryKeeper(self.folder, "primary", self.since)
        wait_until(lambda: keeper.problem or (self.folder / HISTORY_FILE_NAME).exists(), "it has begun")
        return keeper

    def look(self, keeper: HistoryKeeper, size: int, seconds: float = 5.0) -> None:
        keeper.look({"out_of_sync_bytes": size})
        wait_until(keeper._looks.empty, "it is taken in")
        self.now += seconds
        self.monotonic += seconds


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    made = Run(tmp_path)
    monkeypatch.setattr(
        history_module, "time", SimpleNamespace(time=lambda: made.now, monotonic=lambda: made.monotonic)
    )
    yield made


def told(keeper: HistoryKeeper, **arguments: object) -> list[tuple[float, object]]:
    """Of each row that is no gap: its moment, after the first one, and what was out of sync."""
    return [(row[0] - NOW, row[1]) for row in keeper.answer(arguments)["rows"] if row[1:] != [None] * len(row[1:])]


def test_figures_come_back_also_those_that_are_not_written_yet(run: Run) -> None:
    keeper = run.begin()
    for size in (1, 5, 2, 0):
        run.look(keeper, size)
    wait_until(lambda: told(keeper) == [(0, 5), (10, 2)], "the last look is in the row under way")
    keeper.close()
    assert (run.folder / HISTORY_FILE_NAME).stat().st_size == FILE_BYTES
    assert (run.folder / HISTORY_FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("jump_s", [-0.9, 2.0, 315_360_000.0, -315_360_000.0])
def test_a_clock_that_is_set_changes_no_rate(run: Run, jump_s: float) -> None:
    keeper = run.begin()
    for sent in (1000, 2000, 3000, 4000):
        keeper.look({"sent_bytes": sent})
        wait_until(keeper._looks.empty, "it is taken in")
        run.now, run.monotonic = run.now + 1 + (jump_s if sent == 2000 else 0), run.monotonic + 1
    keeper.close()
    for span in ((NOW - 60, NOW + 60), (NOW + jump_s - 60, NOW + jump_s + 60)):
        run.now = span[1]
        answer = keeper.answer({"from": span[0], "until": span[1]})
        rates = {row[answer["columns"].index("wire_rate_bytes")] for row in (*answer["rows"], *answer["least"])}
        assert rates - {None} == {1000}, "nothing but the first look is unknown"


def test_a_restart_is_marked_and_goes_on_where_the_file_is(run: Run) -> None:
    first = run.begin()
    run.look(first, 7)
    first.close()
    second = run.begin()
    run.look(second, 3)
    second.close()
    answer = second.answer({})
    assert answer["restarts"] == [NOW, NOW + 5] and told(second) == [(0, 7)]
    assert answer["least"][0][1] == 3, "both runs are in the same row"


def test_a_controller_that_is_killed_loses_no_row_that_was_over(run: Run) -> None:
    killed = run.begin()
    for size in (1, 2, 3, 4, 5):
        run.look(killed, size)
    wait_until(lambda: told(killed) == [(0, 2), (10, 4), (20, 5)], "all are taken in")
    killed._descriptor, alive = None, killed._descriptor  # as after a kill: it writes nothing more
    assert alive is not None
    os.close(alive)
    run.now += 60
    after = run.begin()
    assert told(after) == [(0, 2), (10, 4)]
    run.look(after, 9)
    after.close()
    assert [row[1] for row in after.answer({})["rows"]] == [2, 4, None, 9], "the time without a controller is a gap"


def test_events_are_kept_once_each_and_over_a_restart(run: Run) -> None:
    keeper = run.begin()
    run.events = [Event(5, "2027-01-15T08:00:01.000Z", "out-of-sync", "behind", {"size_bytes": 7})]
    run.look(keeper, 1, seconds=10)
    run.events.append(Event(6, "no moment", "in-sync", "again"))
    run.look(keeper, 1, seconds=10)
    keeper.close()
    run.events = []  # another run has events of its own
    again = run.begin()
    again.close()
    events = again.answer({"from": NOW - 10, "until": run.now})["events"]
    assert [(event["number"], event["name"], event["figures"]) for event in events] == [
        (5, "out-of-sync", {"size_bytes": 7}), (6, "in-sync", {}),
    ]  # fmt: skip


def test_a_file_of_another_version_is_made_anew_and_a_torn_one_goes_on(run: Run) -> None:
    place = run.folder / HISTORY_FILE_NAME
    place.write_bytes(b"PDBHIST\0" + b"\xff" * 5000)
    keeper = run.begin()
    run.look(keeper, 4)
    keeper.close()
    assert told(keeper) == [(0, 4)]
    os.truncate(place, 70)
    assert told(keeper, until=NOW + 60) == [(0, 4)], "the figures of this run are still told"
    again = run.begin()
    again.close()
    assert again.answer({})["restarts"] == [run.now]


def fail_with(error: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_nothing_costs_history_and_is_told_until_it_does(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    whole = history_module.write_all
    monkeypatch.setattr(history_module, "write_all", fail_with(error))
    keeper = run.begin()
    wait_until(lambda: keeper.problem, "it is told")
    assert os.strerror(error) in keeper.problem and keeper.answer({})["problem"] == keeper.problem
    run.look(keeper, 3, seconds=10)
    monkeypatch.setattr(history_module, "write_all", whole)
    run.look(keeper, 4, seconds=10)
    wait_until(lambda: not keeper.problem, "the disk takes it")
    keeper.close()
    assert told(keeper) == [(0, 3), (10, 4)] and keeper.answer({})["restarts"] == [NOW]


def test_a_disk_that_was_full_for_a_long_time_gets_a_history_with_its_header(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = history_module.write_all
    monkeypatch.setattr(history_module, "_UNWRITTEN_MAX", 3)
    monkeypatch.setattr(history_module, "write_all", fail_with(errno.ENOSPC))
    keeper = run.begin()
    wait_until(lambda: keeper.problem, "it is told")
    for size in range(5):
        run.look(keeper, size, seconds=10)
    monkeypatch.setattr(history_module, "write_all", whole)
    run.look(keeper, 9, seconds=10)
    keeper.close()
    again = run.begin()
    again.close()
    assert told(again)[-1] == (50, 9), "the next controller goes on with the file"


def test_a_status_with_an_upper_bound_leaves_the_history_its_last_exact_figures(tmp_path: Path) -> None:
    def status(size: int | None) -> SimpleNamespace:
        return SimpleNamespace(to_json=lambda: {"role": "secondary", "out_of_sync_bytes": size, "lag_bytes": size})

    with EventLog(NO_HOOKS, Whose("primary", "/dev/x", "x", str(tmp_path))) as log:
        log.look(lambda: status(5), 1.0)
        log.look(lambda: status(9), 3.0, exact=False)
    answer = log.answer({"command": "history"}, lambda: False)
    row = max(answer["rows"], key=lambda row: row[0])
    assert [row[answer["columns"].index(name)] for name in ("out_of_sync_bytes", "lag_bytes")] == [5, 9]


def test_something_else_in_the_place_of_the_file_ends_nothing(run: Run) -> None:
    (run.folder / HISTORY_FILE_NAME).mkdir()
    keeper = run.begin()
    wait_until(lambda: keeper.problem, "it is told")
    run.look(keeper, 3)
    assert keeper.answer({})["problem"]
    keeper.close()


def test_a_disk_that_hangs_holds_up_neither_the_loop_nor_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(history_module, "write_all", lambda *_: answers.wait(20))
    monkeypatch.setattr(history_module, "END_S", 0.01)
    keeper = run.begin()
    for size in range(3 * history_module.WAITING_LOOKS_MAX):
        keeper.look({"out_of_sync_bytes": size})
    keeper.close()
    answers.set()


def test_a_question_while_another_one_waits_for_the_disk_is_answered_with_busy(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = run.begin()
    monkeypatch.setattr(history_module, "HISTORY_TURN_S", 0.0)
    with keeper._reading, pytest.raises(BusyError):
        keeper.answer({})
    assert keeper.answer({})["rows"] == []
    keeper.close()


@pytest.mark.parametrize("wrong", [{"from": NOW, "until": NOW}, {"points": 0}, {"points": 5001}, {"until": 1e300}])
def test_an_impossible_span_is_refused_in_one_sentence(run: Run, wrong: dict[str, object]) -> None:
    keeper = run.begin()
    with pytest.raises(UsageError, match="a history"):
        keeper.answer(wrong)
    keeper.close()


def test_the_log_of_events_keeps_a_history_from_its_begin_to_its_end(tmp_path: Path) -> None:
    log = EventLog(NO_HOOKS, Whose("secondary", "/dev/x", "x", str(tmp_path)))
    with pytest.raises(BusyError):
        log.answer({"command": "history"}, lambda: False)
    assert log.history_problem == ""
    with log:
        log.look(
            lambda: SimpleNamespace(to_json=lambda: {"role": "secondary", "received_bytes": 5, "connected": True}), 1.0
        )
        log.say(PROMOTED, "it took its primary's place")
    answer = log.answer({"command": "history"}, lambda: False)
    assert [event["name"] for event in answer["events"]][-2:] == [PROMOTED, STOPPED]
    assert len(answer["restarts"]) == 1 and answer["rows"][0][answer["columns"].index("disconnected")] == 0
    with pytest.raises(UsageError):
        log.answer({"command": "history", "points": "x"}, lambda: False)

"""A replica knows whether its primary lives, and as of which moment of the primary it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.heartbeat import OLD_HEARTBEAT_S
from pydbt.core.protocol.standing import STANDING, UNKNOWN_STANDING, Standing
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.primary_watch import SIGN_OF_LIFE_S, PrimaryReport, PrimaryWatch
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord

VOLUME, SIZE = "ab" * 16, 1 << 20
HELLO = f.Hello(VOLUME, SIZE, 4096, 7, generations=Generations(5, (), (4,)))
RECORD = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=7, sequence=10, generations=Generations(4),
)  # fmt: skip
TOLD = Standing("alpha", "/dev/vda3", "2026-01-02T03:04:05.000Z", 10, True, 0)


def connected(watch: PrimaryWatch, record: ReplicaRecord = RECORD, now: float = 0.0) -> Secondary:
    brain = Secondary(SecondaryConfig(SIZE), record, Recovery(record), StagedBlocks(), now, watch)
    effects = brain.handle(e.Connected(1, HELLO, bytes(32)), now)
    (welcome,) = [
        effect.frame for effect in effects if isinstance(effect, e.Send) and isinstance(effect.frame, f.Welcome)
    ]
    assert {STANDING, UNKNOWN_STANDING} <= set(welcome.features)
    return brain


def test_the_shortage_behind_a_primary_that_is_back_is_unknown_before_it_tells() -> None:
    watch = PrimaryWatch()
    brain = connected(watch)
    brain.handle(e.FrameReceived(1, TOLD), 1.0)
    assert watch.report(1.0, connected=True).behind_bytes == 0
    assert watch.report(99.0).behind_bytes == 0, "while it is away, its last report counts"
    brain = connected(watch, now=100.0)
    report = watch.report(100.0, connected=True)
    assert report.behind_bytes is None and report.told == TOLD.moment
    brain.handle(e.FrameReceived(1, replace(TOLD, behind_bytes=4096)), 101.0)
    assert watch.report(101.0, connected=True).behind_bytes == 4096


def test_a_heartbeat_is_longer_than_the_silence_of_any_living_primary() -> None:
    assert SIGN_OF_LIFE_S > OLD_HEARTBEAT_S + 1


def test_a_primary_lives_while_it_is_heard_and_no_longer() -> None:
    watch = PrimaryWatch()
    assert not watch.lives(0.0) and watch.report(0.0).heard_seconds is None
    brain = connected(watch)
    assert watch.lives(SIGN_OF_LIFE_S) and not watch.lives(SIGN_OF_LIFE_S + 0.1)
    assert watch.lives(20.0, received_at=19.0), "in the middle of a long frame"
    brain.handle(e.FrameReceived(1, f.Ping(1)), 8.0)
    brain.handle(e.Disconnected(1, "killed"), 9.0)
    assert watch.lives(12.0) and not watch.lives(13.1), "a connection that broke is no farewell"
    assert watch.report(12.0).heard_seconds == 4.0


@pytest.mark.parametrize("within_s", [SIGN_OF_LIFE_S, 3.0])
def test_the_time_in_which_a_machine_was_suspended_is_no_silence_of_the_primary(within_s: float) -> None:
    watch = PrimaryWatch()
    watch.heard(100.0)
    watch.note_wake(101.0)  # the monotonic clock stood still
    assert watch.lives(101.0 + within_s, within_s=within_s), "it is listened for as long as after a sign of life"
    assert not watch.lives(101.1 + within_s, within_s=within_s) and watch.has_slept_since()
    watch.heard(102.0)
    assert not watch.has_slept_since() and not watch.lives(102.1 + within_s, within_s=within_s)
    watch.note_wake(102.1 + within_s)
    assert not watch.lives(watch.woke_at, within_s=within_s), "it was silent before the machine was suspended"
    assert watch.lives(watch.woke_at, watch.woke_at - 1, within_s=within_s), "in the middle of a long frame"
    watch.said_goodbye(watch.woke_at - 1)
    assert not watch.lives(watch.woke_at, within_s=within_s)


def test_a_primary_that_ended_on_purpose_does_not_live_until_it_connects_again() -> None:
    watch = PrimaryWatch()
    brain = connected(watch)
    brain.handle(e.FrameReceived(1, f.Bye("stopped")), 1.0)
    assert not watch.lives(1.0) and watch.report(1.0).ended
    brain.handle(e.Disconnected(1, "the primary closed the connection"), 1.1)
    assert not watch.lives(1.1)
    brain.handle(e.Connected(2, HELLO, bytes(32)), 2.0)
    assert watch.lives(2.0) and not watch.report(2.0).ended


def test_a_farewell_counts_at_once_also_behind_frames_that_wait() -> None:
    watch = PrimaryWatch()
    brain = connected(watch)
    brain.handle(e.FrameReceived(1, f.Stream(11, 11, SectorTable.of([0], [8]), (bytes(4096),))), 1.0)
    brain.handle(e.FrameReceived(1, f.Begin(1, 7, 0)), 1.0)  # it waits for the stream to be durable
    brain.handle(e.FrameReceived(1, f.Bye("stopped")), 1.0)
    assert not watch.lives(1.0)


def test_the_image_is_as_of_the_moment_whose_last_update_is_durable() -> None:
    watch = PrimaryWatch()
    brain = connected(watch)
    brain.handle(e.FrameReceived(1, TOLD), 1.0)
    assert watch.report(1.0).as_of == TOLD.moment, "it has update 10 already"
    (append, *_) = brain.handle(e.FrameReceived(1, f.Stream(11, 11, SectorTable.of([0], [8]), (bytes(4096),))), 2.0)
    assert isinstance(append, e.Append)
    brain.handle(e.FrameReceived(1, replace(TOLD, moment="later", sequence=11, behind_bytes=4096)), 2.0)
    report = watch.report(2.0)
    assert (report.as_of, report.told, report.behind_bytes) == (TOLD.moment, "later", 4096), (
        "update 11 is not durable yet"
    )
    brain.handle(e.JournalDurable((append.ticket,), (5000,)), 3.0)
    assert (watch.report(3.0).as_of, watch.report(3.0).as_of_sequence) == ("later", 11)


def test_a_primary_that_does_not_know_how_much_is_missing_is_not_taken_for_one_that_misses_nothing() -> None:
    watch = PrimaryWatch()
    brain = connected(watch)
    brain.handle(e.FrameReceived(1, TOLD), 1.0)
    brain.handle(e.FrameReceived(1, replace(TOLD, moment="later", followed=False, behind_bytes=None)), 2.0)
    report = watch.report(2.0)
    assert (report.as_of, report.told, report.behind_bytes) == (TOLD.moment, "later", None)
    assert PrimaryReport.from_values(json.loads(json.dumps(report.to_values()))) == report


@pytest.mark.parametrize("change", [{"followed": False}, {"sequence": 11}])
def test_a_moment_that_is_not_reached_is_not_claimed(change: dict[str, object]) -> None:
    watch = PrimaryWatch()
    brain = connected(watch)
    brain.handle(e.FrameReceived(1, replace(TOLD, **change)), 1.0)
    assert watch.report(1.0).as_of == "" and watch.report(1.0).told == TOLD.moment


def test_an_inconsistent_image_is_as_of_no_moment() -> None:
    watch = PrimaryWatch()
    brain = connected(watch, replace(RECORD, consistent=False))
    brain.handle(e.FrameReceived(1, TOLD), 1.0)
    assert watch.report(1.0).as_of == ""


def test_numbers_of_another_epoch_tell_nothing() -> None:
    watch = PrimaryWatch()
    watch.told(TOLD, epoch=6)
    watch.reached(7, 1000)
    assert watch.report(0.0).as_of == ""


def test_the_primarys_report_outlives_the_brain_and_comes_back_from_json() -> None:
    watch = PrimaryWatch()
    connected(watch).handle(e.FrameReceived(1, TOLD), 1.0)
    Secondary(SecondaryConfig(SIZE), RECORD, Recovery(RECORD), StagedBlocks(), 2.0, watch)
    assert watch.lives(2.0) and watch.report(2.0).host == "alpha"
    report = watch.report(2.0)
    kept = PrimaryReport.from_values(json.loads(json.dumps(report.to_values())))
    assert kept == report
    again = PrimaryWatch(kept)  # another process: it knows what was told, and has heard nobody itself
    assert again.report(0.0) == replace(report, heard_seconds=None) and not again.lives(0.0)
    again.told(replace(TOLD, moment="later"), epoch=7)
    assert (again.report(0.0).as_of, again.report(0.0).told) == (TOLD.moment, "later")


def test_a_report_tells_whether_the_primary_lived_a_moment_ago() -> None:
    watch = PrimaryWatch()
    assert not watch.report(0.0).lives(0.0), "never heard"
    brain = connected(watch)
    report = watch.report(2.0)
    assert report.lives(SIGN_OF_LIFE_S - 2) and not report.lives(SIGN_OF_LIFE_S - 1.9)
    assert not report.lives(-2.1), "the clock was set back since"
    brain.handle(e.FrameReceived(1, f.Bye("stopped")), 2.0)
    assert not watch.report(2.0).lives(0.0)


@pytest.mark.parametrize("values", [None, {}, {"host": "alpha"}, {**PrimaryWatch().report(0.0).to_values(), "host": 1}])
def test_a_report_that_is_none_tells_nothing(values: object) -> None:
    assert PrimaryReport.from_values(values) == PrimaryWatch().report(0.0)

"""Of two running primaries of one volume the connected one stays; one that was killed or restarted holds nobody up for long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.heartbeat import SILENT_S
from pydbt.core.protocol.standing import Standing
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.primary_watch import PrimaryWatch
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.core.secondary.rival import boot_of

VOLUME, SIZE = "ab" * 16, 1 << 20
OLDER = f.Hello(VOLUME, SIZE, 4096, 7, features=(f.PROGRESS,), generations=Generations(5, (), (4,)))
ORIGINAL, COPY = (replace(OLDER, features=(f.PROGRESS, f"{f.BOOT}{boot}")) for boot in ("one", "two"))
RECORD = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=7, sequence=10, generations=Generations(4),
)  # fmt: skip


def brain_of(watch: PrimaryWatch | None = None) -> Secondary:
    return Secondary(SecondaryConfig(SIZE), RECORD, Recovery(RECORD), StagedBlocks(), 0.0, watch)


def answer(effects: list[e.Effect], connection: int) -> str:
    """WELCOME, or the code of the refusal."""
    (frame,) = [
        effect.frame
        for effect in effects
        if isinstance(effect, e.Send) and effect.connection == connection and not isinstance(effect.frame, f.Ack)
    ]
    return frame.code if isinstance(frame, f.Refuse) else type(frame).__name__


def come(brain: Secondary, hello: f.Hello, connection: int, now: float, other_heard_at: float | None = None) -> str:
    effects = brain.handle(e.Connected(connection, hello, bytes(32), other_heard_at=other_heard_at), now)
    return answer(effects, connection)


def errors(effects: list[e.Effect]) -> list[str]:
    return [effect.message for effect in effects if isinstance(effect, e.Log) and effect.level == "error"]


def test_the_boot_is_told_among_the_features_and_is_no_key_that_older_secondaries_would_refuse() -> None:
    assert (boot_of(ORIGINAL), boot_of(COPY), boot_of(OLDER)) == ("one", "two", "")


def test_a_second_running_primary_is_refused_while_the_first_is_heard_and_disturbs_it_by_nothing() -> None:
    brain = brain_of()
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    brain.handle(e.FrameReceived(1, Standing("alpha", "/dev/vda", "t", 10, True, 0)), 0.5)
    for number, second in enumerate((1, 2, 4, 8, 16), start=2):
        brain.handle(e.FrameReceived(1, f.Ping(number)), float(second))
        effects = brain.handle(e.Connected(number, COPY, bytes(32)), second + SILENT_S)
        assert answer(effects, number) == "second-primary" and brain.peer == 1
        (refuse,) = [effect.frame for effect in effects if isinstance(effect, e.Send) and effect.connection == number]
        assert isinstance(refuse, f.Refuse) and "on alpha" in refuse.message
        assert len(errors(effects)) == (number == 2), "it is told loudly, and once"


@pytest.mark.parametrize("hello", [ORIGINAL, OLDER])
def test_the_same_machine_and_an_earlier_version_take_the_place_of_their_connection_at_once(hello: f.Hello) -> None:
    brain = brain_of()
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    assert come(brain, hello, 2, 0.1) == "Welcome" and brain.peer == 2


def test_a_primary_of_an_earlier_version_is_replaced_as_before() -> None:
    brain = brain_of()
    assert come(brain, OLDER, 1, 0.0) == "Welcome"
    assert come(brain, COPY, 2, 0.1) == "Welcome"


@pytest.mark.parametrize("end", [None, e.Disconnected(1, "the connection broke")])
def test_a_primary_that_was_started_again_waits_no_longer_than_the_silence_of_its_former_run(
    end: e.Event | None,
) -> None:
    brain = brain_of()
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    if end is not None:
        brain.handle(end, 0.0)
    assert come(brain, COPY, 2, SILENT_S) == "second-primary", "a cable that is out for a moment lets no copy in"
    assert come(brain, COPY, 3, SILENT_S + 0.1) == "Welcome" and brain.peer == 3
    assert come(brain, ORIGINAL, 4, SILENT_S + 0.2) == "second-primary", "and now the other one is the connected one"


def test_after_this_machine_was_suspended_the_first_one_has_time_to_be_heard_before_a_second_one_is_let_in() -> None:
    watch = PrimaryWatch()
    brain = brain_of(watch)
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    brain.handle(e.Disconnected(1, "no answer for 8 hours"), 2.5)
    watch.note_wake(2.5)
    assert come(brain, COPY, 2, 2.5 + SILENT_S) == "second-primary"
    assert come(brain, ORIGINAL, 3, 2.5 + SILENT_S) == "Welcome"
    brain.handle(e.Disconnected(3, "killed"), 6.0)
    assert come(brain, COPY, 4, 2.6 + 2 * SILENT_S) == "Welcome"


def test_a_primary_that_said_goodbye_holds_nobody_up() -> None:
    brain = brain_of()
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    brain.handle(e.FrameReceived(1, f.Bye("stopped")), 1.0)
    assert come(brain, COPY, 2, 1.0) == "Welcome"


def test_a_primary_in_the_middle_of_a_long_frame_is_heard() -> None:
    brain = brain_of()
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    assert come(brain, COPY, 2, 60.0, other_heard_at=59.0) == "second-primary"
    assert come(brain, COPY, 3, 60.0, other_heard_at=50.0) == "Welcome"


def test_a_primary_that_waits_for_the_journal_is_not_pushed_out_by_another_machine() -> None:
    brain = brain_of()
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    table = SectorTable.of([0], [8])
    (append,) = brain.handle(e.FrameReceived(1, f.Stream(11, 11, table, (bytes(4096),))), 0.0)[:1]
    assert isinstance(append, e.Append)
    brain.handle(e.Connected(2, ORIGINAL, bytes(32)), 10.0)
    assert brain.peer is None, "it waits until the journal is settled"
    assert come(brain, COPY, 3, 20.0) == "second-primary"
    assert answer(brain.handle(e.JournalDurable((append.ticket,), (5000,)), 21.0), 2) == "Welcome"


def test_the_watch_outlives_a_brain_that_is_built_again() -> None:
    watch = PrimaryWatch()
    assert come(brain_of(watch), ORIGINAL, 1, 0.0) == "Welcome"
    assert come(brain_of(watch), COPY, 2, 1.0) == "second-primary"


def test_a_primary_that_may_not_write_to_this_replica_hears_its_own_reason() -> None:
    brain = brain_of()
    assert come(brain, ORIGINAL, 1, 0.0) == "Welcome"
    assert come(brain, replace(COPY, volume="ef" * 16), 2, 0.1) == "other-volume"
    brain.handle(e.Disconnected(1, "gone"), 0.2)
    assert come(brain, replace(COPY, volume="ef" * 16), 3, 0.3) == "other-volume"

"""The outcome of an effect that fails, and the answers of one that succeeds."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller.primary import metadata, state_save
from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.feed import Feed
from pydbt.controller.primary.volume import Volume
from pydbt.core.errors import PeerError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.protocol.frames import DATED_PINGS, Frame, Generation, Hello, Ping
from pydbt.core.protocol.generations import Generations
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from pydbt.store.volume_state import load_state
from tests.controller.volumes import GEOMETRY, volume_of, written
from tests.lab.patience import until

GENERATIONS = Generations(5, (4,), (3,), shared=True)


@pytest.fixture
def volume(tmp_path: Path):
    made = volume_of(tmp_path, *(SecondaryRecord(slot, f"h:{slot}", SyncPhase.REPLICATING) for slot in (1, 2)))
    for slot in (1, 2):
        made.join(slot, Joining(PrimaryConfig(GEOMETRY, epoch=7, initial=False, scan_used=False)))
    yield made
    for peer in made.peers.values():
        peer.close()


def test_a_failure_of_one_secondary_ends_its_connection_alone(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(effect: ev.SendStream) -> None:
        raise PeerError("it asked for blocks that it was not offered")

    monkeypatch.setattr(volume.peers[2].connection, "send_stream", fails)
    stream = ev.SendStream(np.zeros(0), np.zeros(0), 1)
    answers = EffectRunner(volume).carry_out([(2, stream), (1, ev.Persist(zero_quiet=True))])
    assert answers == [(2, ev.Disconnected("it asked for blocks that it was not offered"))]
    volume.map_writer.wait()
    heard = volume.inbox.take(0.0)
    assert heard is not None and heard.peer is volume.peers[1] and heard.what == ev.Persisted(zeroed=True)  # type: ignore[union-attr]


class FakeOutbox:
    """A connection that is there; it remembers what is sent."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.queued_bytes = self.sent_bytes = 0

    def put(self, frames: list[Frame], payload_bytes: int = 0) -> None:
        self.frames += frames

    def close(self, *, flush_s: float = 0.0) -> None:
        pass

    def wait_for_farewell(self) -> None:
        pass


NAMED = [
    (None, ev.KeepAllGenerations({1: GENERATIONS, 2: GENERATIONS})),
    (1, ev.SendFrame(Generation(GENERATIONS))),
    (2, ev.SendFrame(Ping(1))),
]


def connected(volume: Volume) -> list[FakeOutbox]:
    made = []
    for peer in volume.peers.values():
        peer.connection._outbox = outbox = FakeOutbox()  # type: ignore[assignment]
        made.append(outbox)
    return made


def test_only_a_secondary_that_understands_it_is_told_when_a_heartbeat_was_made(volume: Volume) -> None:
    outboxes = connected(volume)
    volume.peers[1].connection._features = (DATED_PINGS,)
    EffectRunner(volume).carry_out([(number, ev.SendFrame(Ping(3, 7, 2, 500))) for number in (1, 2)])
    assert [outbox.frames for outbox in outboxes] == [[Ping(3, 7, 2, 500)], [Ping(3, 7)]]


def test_no_secondary_hears_of_a_new_name_before_it_is_on_the_disk_and_the_loop_goes_on(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, save, feed = threading.Event(), state_save.save_state, Feed(volume)
    monkeypatch.setattr(state_save, "save_state", lambda *given: disk.wait(60) and save(*given))
    outboxes = connected(volume)
    assert EffectRunner(volume).carry_out(NAMED) == []
    volume.capture.write(1)
    assert volume.drain(), "the ring is not drained while a state is written"
    volume.peers[2].connection.connect()
    assert not any(outbox.frames for outbox in outboxes) and volume.inbox.take(0.05) is None
    disk.set()
    volume.map_writer.wait()
    feed.saved(volume.inbox.take(0.0))  # type: ignore[arg-type]
    assert [outbox.frames for outbox in outboxes] == [[Generation(GENERATIONS)], [Ping(1)]]
    kept = load_state(volume.metadata.state_dir)
    assert kept is not None and [record.generations for record in kept.secondaries] == [GENERATIONS] * 2


def test_without_a_durable_name_every_connection_ends_and_none_is_made_until_it_is_durable(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StateError("no space left on device")

    feed, outboxes = Feed(volume), connected(volume)
    with monkeypatch.context() as full:
        full.setattr(state_save, "save_state", fails)
        assert EffectRunner(volume).carry_out(NAMED) == []
        volume.map_writer.wait()
    feed.saved(volume.inbox.take(0.0))  # type: ignore[arg-type]
    assert list(volume.events) == [(number, ev.Disconnected("no space left on device")) for number in (1, 2)]
    assert "no space left" in volume.notices[0] and volume.metadata.unsaved
    began: list[Hello] = []
    connection = volume.peers[1].connection
    monkeypatch.setattr(connection, "_connect", lambda attempt, hello, expected: began.append(hello))
    connection.connect()
    assert not began, "it is told a name that a crash would take away"
    volume.keep()
    volume.map_writer.wait()
    feed.saved(volume.inbox.take(0.0))  # type: ignore[arg-type]
    until(lambda: began, "the connection is tried")
    assert began[0].generations == GENERATIONS and not volume.notices and not any(one.frames for one in outboxes)


def test_a_state_whose_write_does_not_end_is_told(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, now = threading.Event(), [100.0]
    monkeypatch.setattr(state_save, "save_state", lambda *_: disk.wait(60))
    monkeypatch.setattr(metadata, "time", SimpleNamespace(monotonic=lambda: now[0]))
    volume.keep()
    assert not volume.notices
    now[0] += metadata.SAVE_STANDS_S
    (notice,) = volume.notices
    assert "volume.json is being written for more than 10 s" in notice and "after a kill" in notice
    disk.set()
    written(volume)
    assert not volume.notices


def test_records_that_were_captured_before_a_flip_are_heard_before_its_answer(volume: Volume) -> None:
    volume.capture.write(1)
    volume.capture.graces = [2]  # written while the bitmaps are flipped
    *ahead, (number, taken) = EffectRunner(volume).carry_out([(None, ev.TakeQuiet(flip=True))])
    assert [int(block) for _, event in ahead for block in event.records["sector"][::2] // 8] == [1, 2]
    assert (number, taken.position, taken.flipped) == (None, volume.capture.producer_position(), True)


def test_a_line_for_the_operator_names_its_secondary_where_there_are_several(
    volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pydbt"):
        EffectRunner(volume).carry_out([(2, ev.Log("info", "it follows")), (None, ev.Log("warning", "tainted"))])
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "h:2: it follows"),
        ("WARNING", "tainted"),
    ]


def test_an_effect_of_one_secondary_that_names_none_is_a_fault(volume: Volume) -> None:
    with pytest.raises(AssertionError, match="names none"):
        EffectRunner(volume).carry_out([(None, ev.Connect())])

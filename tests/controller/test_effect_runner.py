"""What becomes of an effect that fails, and of the answers of one that succeeds."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.volume import Volume
from pydbt.core.errors import PeerError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.protocol.generations import Generations
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase
from tests.controller.volumes import GEOMETRY, volume_of

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


def test_without_a_durable_name_every_connection_ends(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(views: dict[int, Generations]) -> None:
        raise StateError("no space left on device")

    monkeypatch.setattr(volume.metadata, "keep_generations", fails)
    answers = EffectRunner(volume).carry_out([(None, ev.KeepAllGenerations({1: GENERATIONS, 2: GENERATIONS}))])
    assert answers == [(number, ev.Disconnected("no space left on device")) for number in (1, 2)]


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

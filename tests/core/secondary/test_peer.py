"""A primary comes and goes: the conversation exists while it is there, and the report tells so."""

from __future__ import annotations

import json

import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord, ReplicaState

VOLUME, SIZE = "ab" * 16, 1 << 20
HELLO = f.Hello(VOLUME, SIZE, 4096, 7, generations=Generations(5, (), (4,)))
RECORD = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=7, sequence=10, generations=Generations(4),
)  # fmt: skip


def test_the_report_has_the_replica_s_position_and_tells_whether_a_primary_is_there() -> None:
    brain = Secondary(SecondaryConfig(SIZE), RECORD, Recovery(RECORD), StagedBlocks(), 0.0)
    status = brain.status(0.0)
    assert (status.mode, status.connected, status.replica_state) == ("offline", False, ReplicaState.CONSISTENT)
    assert status.position == "sequence 10 of epoch 0000000000000007"
    brain.handle(e.Connected(1, HELLO, bytes(32)), 0.0)
    assert (brain.status(0.0).mode, brain.status(0.0).connected) == ("ready", True)
    values = brain.status(0.0).to_values()
    assert json.loads(json.dumps(values)) == values
    assert values["generations"] == RECORD.generations.to_values() and values["replica_state"] == "consistent"


@pytest.mark.parametrize("event", [e.Disconnected(1, "gone"), e.FrameReceived(1, f.Bye("down"))])
def test_when_the_primary_is_gone_there_is_no_conversation(event: e.Event) -> None:
    brain = Secondary(SecondaryConfig(SIZE), RECORD, Recovery(RECORD), StagedBlocks(), 0.0)
    brain.handle(e.Connected(1, HELLO, bytes(32)), 0.0)
    assert brain.session is not None and brain.peer == 1
    brain.handle(event, 0.0)
    assert brain.session is None and brain.peer is None and brain.status(0.0).mode == "offline"


def test_a_primary_that_leaves_before_its_welcome_hears_none() -> None:
    brain = Secondary(SecondaryConfig(SIZE), RECORD, Recovery(RECORD), StagedBlocks(), 0.0)
    brain.handle(e.Connected(1, HELLO, bytes(32)), 0.0)
    table = SectorTable.of([0], [8])
    (append,) = brain.handle(e.FrameReceived(1, f.Stream(11, 11, table, (bytes(4096),))), 0.0)[:1]
    assert isinstance(append, e.Append)
    brain.handle(e.Connected(2, HELLO, bytes(32)), 0.0)
    assert brain.peer is None, "it waits until the journal is settled"
    brain.handle(e.Disconnected(2, "gone"), 0.0)
    effects = brain.handle(e.JournalDurable((append.ticket,), (5000,)), 0.0)
    assert not [effect for effect in effects if isinstance(effect, e.Send)]


@pytest.mark.parametrize("frame", [f.Pong(1), f.Ack(1), f.Commit(1, 1), f.Blocks(1, SectorTable.of([], []))])
def test_a_frame_that_may_not_come_ends_the_conversation(frame: f.Frame) -> None:
    brain = Secondary(SecondaryConfig(SIZE), RECORD, Recovery(RECORD), StagedBlocks(), 0.0)
    brain.handle(e.Connected(1, HELLO, bytes(32)), 0.0)
    effects = brain.handle(e.FrameReceived(1, frame), 0.0)
    (refused,) = [effect.frame for effect in effects if isinstance(effect, e.Send)]
    assert isinstance(refused, f.Refuse) and refused.code == "protocol"
    assert brain.session is None

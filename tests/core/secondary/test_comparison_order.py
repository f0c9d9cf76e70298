"""Orders of events in which the secondary must not call blocks equal that are not, nor refuse what its primary says."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.secondary import events as e
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import ReplicaRecord

SIZE = 64 * 4096
VOLUME = "ab" * 16


def streaming_secondary() -> Secondary:
    """A consistent replica at sequence 10 of epoch 7, welcomed, in a stream."""
    record = ReplicaRecord(
        replica="cd" * 16,
        target="t",
        segment_bytes=1 << 20,
        volume=VOLUME,
        size_bytes=SIZE,
        block_bytes=4096,
        consistent=True,
        epoch=7,
        sequence=10,
    )
    brain = Secondary(SecondaryConfig(SIZE, stage_margin_bytes=0), record, Recovery(record), StagedBlocks(), 0.0)
    brain.handle(e.Connected(1, f.Hello(VOLUME, SIZE, 4096, 7, features=(f.KEYED_DIGESTS,)), bytes(32)), 0.0)
    return brain


def stream(sequence: int, sector: int) -> f.Stream:
    return f.Stream(first=sequence, last=sequence, extents=SectorTable.of([sector], [8]), payload=(bytes(4096),))


def digests(number: int, block: int) -> f.Digests:
    return f.Digests(batch=number, units=Runs(np.array([block]), np.array([1])), digests=bytes(16))


def test_a_block_is_not_compared_before_an_update_of_it_that_came_earlier_is_on_the_target():
    brain = streaming_secondary()
    done: list[e.Effect] = []

    def tell(event: e.Event) -> None:
        done.extend(brain.handle(event, 0.0))

    tell(e.FrameReceived(1, stream(11, 0)))
    tell(e.RoomMeasured(1 << 30))
    tell(e.FrameReceived(1, f.Begin(resync=1, epoch=7, total_bytes=4096, flags=0)))
    tell(e.FrameReceived(1, digests(1, 0)))
    told = 0
    while appends := [effect for effect in done if isinstance(effect, e.Append)][told:]:
        told += len(appends)
        ends = tuple(4096 * 2 * (told - len(appends) + place + 1) for place in range(len(appends)))
        tell(e.JournalDurable(tuple(append.ticket for append in appends), ends))
    order = [type(effect) for effect in done if isinstance(effect, (e.Apply, e.Compare))]
    assert order == [e.Apply, e.Compare]


def test_in_a_stream_blocks_are_compared_too():
    brain = streaming_secondary()
    effects = brain.handle(e.FrameReceived(1, stream(11, 0)), 0.0)
    append = next(effect for effect in effects if isinstance(effect, e.Append))
    brain.handle(e.JournalDurable((append.ticket,), (8192,)), 0.0)
    effects = brain.handle(e.FrameReceived(1, digests(1, 0)), 0.0)
    assert not any(isinstance(effect, e.CloseConnection) for effect in effects)
    assert any(isinstance(effect, e.Compare) for effect in effects)

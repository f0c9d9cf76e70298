"""The conversation with one primary: which frame may come when, and what is answered in which order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.heartbeat import FRESH_S, OLD_HEARTBEAT_S, OUT_OF_SYNC, SILENT_S
from pydbt.core.secondary.session import (
    Comparison,
    Deferred,
    Direct,
    ProtocolError,
    Ready,
    Returned,
    Session,
    Staging,
    Streaming,
)

SIZE = 1 << 20
HELLO = f.Hello("ab" * 16, SIZE, 4096, 7)
BEGIN = f.Begin(3, 7, 0)
SNAPSHOT = f.Begin(3, 7, 0, f.BeginFlag.NO_STREAM)


def stream(first: int, last: int | None = None, sector: int = 0) -> f.Stream:
    return f.Stream(first, last or first, SectorTable.of([sector], [8]), (bytes(4096),))


def blocks(batch: int, sector: int = 0) -> f.Blocks:
    return f.Blocks(batch, SectorTable.of([sector], [8]), (bytes(4096),))


def digests(batch: int, unit: int = 0, unit_bytes: int = 4096) -> f.Digests:
    return f.Digests(batch, Runs(np.array([unit]), np.array([1])), bytes(16), unit_bytes)


def session(begin: f.Begin | None = None, *, staged: bool = True) -> Session:
    made = Session(1, HELLO, 10, bytes(32), 0.0)
    if begin is not None:
        made.begin(Staging(begin) if staged else Direct(begin))
    return made


def test_the_first_stream_frame_continues_the_image_or_is_refused() -> None:
    here = session()
    assert here.accept_stream(stream(11), continues=True) and here.state == Streaming()
    with pytest.raises(ProtocolError, match="before a BEGIN"):
        session().accept_stream(stream(11), continues=False)


def test_updates_are_taken_once_and_without_a_gap() -> None:
    here = session()
    assert not here.accept_stream(stream(9, 10), continues=True), "the image has them"
    assert here.accept_stream(stream(10, 12), continues=True), "one of them is new"
    with pytest.raises(ProtocolError, match="sequence 14 came after 12"):
        here.accept_stream(stream(14), continues=True)


def test_behind_a_begin_the_stream_may_start_anywhere_and_a_commit_names_its_end() -> None:
    here = session(BEGIN)
    assert here.accept_stream(stream(100), continues=False)
    with pytest.raises(ProtocolError, match="after a stream up to 100"):
        here.accept_commit(f.Commit(3, 99))
    assert here.accept_commit(f.Commit(3, 100)) == BEGIN.epoch


@pytest.mark.parametrize("staged", [True, False])
def test_a_commit_belongs_to_its_begin(staged: bool) -> None:
    with pytest.raises(ProtocolError, match="belongs to no BEGIN"):
        session(BEGIN, staged=staged).accept_commit(f.Commit(4, 0))
    with pytest.raises(ProtocolError, match="belongs to no BEGIN"):
        session().accept_commit(f.Commit(3, 0))


def test_a_commit_waits_for_the_answer_to_every_comparison() -> None:
    here = session(BEGIN)
    here.accept_digests(digests(1))
    here.compare(Comparison(5, digests(1), np.zeros(0, np.int64)))
    with pytest.raises(ProtocolError, match="before the answer"):
        here.accept_commit(f.Commit(3, 0))
    assert here.compared(5) is not None
    assert here.accept_commit(f.Commit(3, 0)) == BEGIN.epoch


def test_the_answer_to_a_comparison_of_an_earlier_session_is_of_no_use_and_delays_no_commit() -> None:
    here = session(BEGIN)
    assert here.compared(4) is None
    here.compare(Comparison(5, digests(1), np.zeros(0, np.int64)))
    assert here.compared(4) is None
    found = here.compared(5)
    assert found is not None and found.ticket == 5


def test_after_its_commit_the_stream_follows_or_the_next_snapshot() -> None:
    here = session(BEGIN)
    here.commit_durable(f.Commit(3, 50))
    assert here.state == Streaming() and here.committed == 3
    assert not here.accept_stream(stream(50), continues=True)
    here = session(SNAPSHOT)
    assert here.by_snapshots
    here.commit_durable(f.Commit(3, 50))
    assert here.state == Ready() and not here.by_snapshots


def test_blocks_come_in_a_resync_alone_and_digests_in_a_stream_too() -> None:
    here = session()
    with pytest.raises(ProtocolError, match="outside of a resync"):
        here.accept_blocks(blocks(1))
    with pytest.raises(ProtocolError, match="outside of a resync"):
        here.accept_digests(digests(1))
    here.accept_stream(stream(11), continues=True)
    assert here.accept_digests(digests(1)).block_bytes == 4096


def test_the_numbers_of_batches_rise() -> None:
    here = session(BEGIN)
    here.accept_blocks(blocks(4))
    for late in (4, 3):
        with pytest.raises(ProtocolError, match=f"the number {late} of a BLOCKS frame"):
            here.accept_blocks(blocks(late))
    streaming = session()
    streaming.accept_stream(stream(11), continues=True)
    streaming.accept_digests(digests(4))
    with pytest.raises(ProtocolError, match="the number 4 of a DIGESTS frame"):
        streaming.accept_digests(digests(4))


def test_data_past_the_end_of_the_volume_is_refused() -> None:
    end = SIZE // 512
    with pytest.raises(ProtocolError, match="past the end"):
        session().accept_stream(stream(11, sector=end - 7), continues=True)
    with pytest.raises(ProtocolError, match="past the end"):
        session(BEGIN).accept_blocks(blocks(1, sector=end))
    with pytest.raises(ProtocolError, match="past the end"):
        session(BEGIN).accept_digests(digests(1, unit=SIZE // 4096))


def test_units_are_no_smaller_than_the_volume_s_blocks() -> None:
    with pytest.raises(ProtocolError, match="units smaller than a block"):
        session(BEGIN).accept_digests(digests(1, unit_bytes=512))


def test_batches_are_acknowledged_up_to_the_first_that_has_not_ended() -> None:
    here = session(BEGIN)
    for batch in (1, 2, 5):
        here.accept_blocks(blocks(batch))
    here.batch_ended(2)
    assert here.ended_batches == 0
    here.batch_ended(1)
    assert here.ended_batches == 2
    here.batch_ended(5)
    assert here.ended_batches == 5


def test_waiting_frames_are_taken_up_in_their_order_and_returned_ones_first() -> None:
    here = session(BEGIN)
    here.defer(f.Ping(1))
    here.defer_first(f.Ping(0))
    here.take_back([blocks(1), blocks(2)])
    taken = []
    while here.has_waiting:
        taken.append(here.next_waiting())
    assert taken == [Returned(blocks(1)), Returned(blocks(2)), Deferred(f.Ping(0)), Deferred(f.Ping(1))]


def test_an_ack_is_news_when_more_than_the_target_s_progress_changed() -> None:
    here = session()
    assert not here.is_news(f.Ack(10)), "nothing was begun"
    here.accept_stream(stream(11), continues=True)
    assert here.is_news(f.Ack(10))
    assert not here.is_news(f.Ack(10, applied_sequence=5))
    assert here.is_news(f.Ack(11, applied_sequence=5))


def test_progress_is_for_a_primary_that_asks() -> None:
    assert not session().asks_progress
    asking = f.Hello("ab" * 16, SIZE, 4096, 7, features=(f.PROGRESS,))
    assert Session(1, asking, 10, bytes(32), 0.0).asks_progress


def beating(
    *beats: tuple[float, int] | tuple[float, int, int, int], features: tuple[str, ...] = (f.HEARTBEAT,)
) -> Session:
    made = Session(1, replace(HELLO, features=features), 10, bytes(32), 0.0)
    for token, (at, *told) in enumerate(beats, 1):
        made.heard_at = at
        made.beat(f.Ping(token, *told), at)
    return made


def test_the_image_is_fresh_while_it_has_what_a_heartbeat_told_a_moment_ago() -> None:
    here = beating((1.0, 10), (2.0, 12))
    assert here.is_fresh(10, 3.0), "what is missing is no older than a heartbeat"
    assert not here.is_fresh(10, 1.1 + FRESH_S) and here.is_fresh(12, 1.1 + FRESH_S)
    assert not here.is_fresh(12, 2.1 + FRESH_S), "the primary is silent"
    assert not beating().is_fresh(10, 0.0), "it has told nothing yet"
    assert not beating((1.0, OUT_OF_SYNC)).is_fresh(10, 1.0)


def test_a_heartbeat_is_as_old_as_it_was_when_it_was_made_however_late_it_arrives() -> None:
    """The WELCOME was sent at 0, and each is answered as it arrives: their tokens are 1, 2 and so on."""
    prompt = beating((0.5, 10, 0, 300), (1.5, 11, 1, 900), (2.5, 12, 2, 900))
    assert prompt.is_fresh(12, 2.3 + FRESH_S) and not prompt.is_fresh(12, 2.5 + FRESH_S)
    late = beating((0.5, 10, 0, 300), (7.0, 99, 1, 400))
    assert not late.is_fresh(99, 7.0), "it was made at 0.9, and lay in a queue for six seconds"
    assert beating((7.0, 99, 0, 6500)).is_fresh(99, 6.5 + FRESH_S), "the primary told its first position late"
    assert not beating((7.0, 99, 0, 9_000_000)).is_fresh(99, 7.1 + FRESH_S), "none was made behind its arrival"
    assert not beating((1.0, 10, 5, 0)).is_fresh(10, 1.0), "this was never answered"
    assert not beating(*((float(at), 10, at - 1, 0) for at in (1, 2)), (3.0, 10, 0, 0)).is_fresh(10, 3.5)
    flood = beating(*((1.0, 10, 0, 0) for _ in range(3000)))
    assert len(flood._answers) < 3000 and not flood.is_fresh(10, 1.1 + FRESH_S)


def test_a_primary_is_there_while_it_is_heard() -> None:
    here = beating((1.0, 10))
    assert here.is_there(1.0 + SILENT_S) and not here.is_there(1.1 + SILENT_S) and here.silence_s(2.5) == 1.5


def test_the_image_is_fresh_while_a_primary_that_tells_no_position_is_heard() -> None:
    old = beating((1.0, 0), features=())
    assert old.is_fresh(10, 4.5) and old.is_there(4.5) and not old.is_fresh(10, 1.1 + OLD_HEARTBEAT_S + FRESH_S)

"""The keeper of journal, target, checkpoint and state file: the order of its work, told without a conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.generations import Generations
from pydbt.core.secondary import events as e
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.journal import JournalEntry, entry_bytes
from pydbt.core.secondary.keeper import Freeing, GoingDirect, Keeper
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import AppliedPoint, ReplicaRecord
from pydbt.core.units import Geometry

VOLUME, SIZE, EPOCH, NEXT_EPOCH, PEER = "ab" * 16, 1 << 20, 7, 9, 1
HELLO = f.Hello(VOLUME, SIZE, 4096, EPOCH)
SMALL = Geometry(SIZE, 512)
ADOPTED = ReplicaRecord(
    replica="cd" * 16, target="t", segment_bytes=1 << 20, volume=VOLUME, size_bytes=SIZE, block_bytes=4096,
    consistent=True, epoch=EPOCH, sequence=10,
)  # fmt: skip
CONFIG = SecondaryConfig(SIZE, checkpoint_bytes=1 << 20, checkpoint_seconds=5.0)
Kind = TypeVar("Kind", bound=e.Effect)


def stream(last: int) -> f.Stream:
    return f.Stream(last, last, SectorTable.of([0], [8]), (bytes(4096),))


def blocks(batch: int) -> f.Blocks:
    return f.Blocks(batch, SectorTable.of([8], [8]), (bytes(4096),))


class Desk:
    """A keeper whose owner writes down what it is told. ``taken``: the effects since the last time."""

    def __init__(
        self,
        record: ReplicaRecord = ADOPTED,
        config: SecondaryConfig = CONFIG,
        recovered: Callable[[Recovery], None] = lambda recovery: None,
    ) -> None:
        recovery = Recovery(record)
        recovered(recovery)
        self.told: list[tuple[object, ...]] = []
        self.effects: list[e.Effect] = []
        self.keeper = Keeper(self, self.effects, config, record, recovery, StagedBlocks())

    def batch_ended(self, connection: int, batch: int) -> None:
        self.told.append(("batch", connection, batch))

    def committed(self, connection: int, commit: f.Commit) -> None:
        self.told.append(("committed", connection, commit.sequence))

    def journal_full(self, refused: list[JournalEntry], error: str) -> None:
        self.told.append(("full", refused, error))

    def failed(self, code: str, message: str) -> None:
        self.told.append(("failed", code, message))

    def taken(self) -> list[e.Effect]:
        made = self.effects[:]
        self.effects.clear()
        return made

    def advanced(self, now: float = 0.0, peer: int | None = PEER) -> list[e.Effect]:
        self.keeper.advance(now, peer)
        return self.taken()

    def append(self, entry: JournalEntry, *, staged: bool = False) -> e.Append:
        self.keeper.append(entry, PEER, geometry=SMALL if staged else None)
        return only(self.taken(), e.Append)

    def write(self, entry: JournalEntry) -> None:
        self.keeper.write(entry, PEER)

    def journalled(self, append: e.Append, end: int) -> list[e.Effect]:
        self.keeper.journal_durable(e.JournalDurable((append.ticket,), (end,)))
        return self.taken()

    def applied(self, point: AppliedPoint, now: float = 0.0, peer: int | None = PEER) -> list[e.Effect]:
        self.keeper.applied(point, now)
        return self.advanced(now, peer)

    def synced(self, sync: e.Effect, point: AppliedPoint, now: float = 0.0) -> list[e.Effect]:
        assert isinstance(sync, e.Sync)
        self.keeper.synced(sync.ticket, point, now)
        return self.taken()

    def direct(self) -> None:
        """Everything is on the target, and from here on entries are written past the journal."""
        self.keeper.go_direct(HELLO, PEER)
        self.advanced()
        assert self.keeper.barrier is None and not self.keeper.record.consistent


def only(effects: list[e.Effect], kind: type[Kind]) -> Kind:
    (one,) = [effect for effect in effects if isinstance(effect, kind)]
    return one


def kinds(effects: list[e.Effect]) -> list[type]:
    return [type(effect) for effect in effects]


# --- the beginning ----------------------------------------------------------------------------------------
def test_a_journal_that_reaches_beyond_the_checkpoint_is_applied_from_the_beginning_on() -> None:
    def further(recovery: Recovery) -> None:
        recovery.tail = recovery.limit = 5000

    assert Desk(recovered=further).taken() == [e.Apply(5000)]
    assert Desk().taken() == [] and Desk().keeper.drained


def test_a_stage_that_was_never_committed_is_found_again_and_not_applied() -> None:
    def unfinished(recovery: Recovery) -> None:
        recovery.tail, recovery.stage_from = 9000, 4000

    desk = Desk(recovered=unfinished)
    assert desk.taken() == [] and desk.keeper.staged_bytes == 5000
    assert not desk.keeper.continues(EPOCH), "a stream would be taken for a part of the stage"


# --- the journal ------------------------------------------------------------------------------------------
def test_an_update_moves_the_image_and_may_be_applied_when_it_is_durable_and_no_sooner() -> None:
    desk = Desk()
    append = desk.append(stream(11))
    assert desk.advanced() == [] and desk.keeper.sequence == 10 and not desk.keeper.position_known
    assert desk.journalled(append, 5000) == [e.Apply(5000)]
    assert (desk.keeper.sequence, desk.keeper.tail, desk.keeper.limit) == (
        11,
        5000,
        5000,
    ) and desk.keeper.position_known


def test_a_stage_is_acknowledged_batch_by_batch_and_applied_only_with_its_durable_commit() -> None:
    desk = Desk()
    begin = desk.append(f.Begin(1, NEXT_EPOCH, 0), staged=True)
    batch = desk.append(blocks(4), staged=True)
    assert begin.unlimited and batch.unlimited, "only the disk bounds a stage"
    assert desk.journalled(begin, 100) == [] and desk.told == []
    assert desk.journalled(batch, 5000) == [] and desk.told == [("batch", PEER, 4)]
    assert desk.keeper.staged_bytes == 5000 and desk.keeper.sequence == 10
    assert desk.keeper.staged_units_of(Runs(np.array([0]), np.array([4])), 4096).tolist() == [1]
    commit = desk.append((f.Commit(1, 50), NEXT_EPOCH))
    assert not desk.keeper.position_known, "with a COMMIT under way nobody knows where the image stands"
    assert desk.journalled(commit, 5100) == [e.Apply(5100)]
    assert desk.told[1:] == [("committed", PEER, 50)] and desk.keeper.position_known
    assert (desk.keeper.epoch, desk.keeper.sequence, desk.keeper.staged_bytes) == (NEXT_EPOCH, 50, 0)
    assert not len(desk.keeper.staged_units_of(Runs(np.array([0]), np.array([4])), 4096))


def test_the_stream_in_a_stage_does_not_move_the_image() -> None:
    desk = Desk()
    desk.journalled(desk.append(f.Begin(1, NEXT_EPOCH, 0), staged=True), 100)
    assert desk.journalled(desk.append(stream(40), staged=True), 5000) == []
    assert (desk.keeper.sequence, desk.keeper.limit) == (10, 0) and not desk.keeper.streaming


def test_a_stream_follows_an_image_of_its_own_epoch_that_is_whole() -> None:
    desk = Desk()
    assert desk.keeper.continues(EPOCH) and not desk.keeper.continues(NEXT_EPOCH)
    assert not Desk(replace(ADOPTED, consistent=False)).keeper.continues(EPOCH)


def test_progress_counts_the_journal_and_all_that_was_written_past_it() -> None:
    desk = Desk(replace(ADOPTED, checkpoint=4096, direct_bytes=1000))
    assert desk.keeper.progress == 5096
    desk.journalled(desk.append(stream(11)), 9000)
    assert desk.keeper.progress == 10000


def test_a_full_journal_gives_its_entries_back_and_takes_the_next_one_as_a_new_incarnation() -> None:
    desk = Desk()
    first, second = desk.append(stream(11)), desk.append(stream(12))
    desk.keeper.wait_for_stream()
    desk.keeper.journal_refused(e.JournalRefused(first.ticket, 300, True, "no space left"))
    assert desk.told == [("full", [first.entry, second.entry], "no space left")]
    assert desk.keeper.tail == 300 and desk.keeper.position_known and desk.keeper.barrier is None
    desk.keeper.append(stream(11), PEER)
    assert kinds(desk.taken()) == [e.Persist, e.Resume, e.Append] and desk.keeper.record.incarnation == 1
    desk.keeper.append(stream(12), PEER)
    assert kinds(desk.taken()) == [e.Append], "once"


def test_a_commit_that_the_journal_refuses_is_over_and_comes_back_too() -> None:
    desk = Desk()
    commit = desk.append((f.Commit(1, 50), NEXT_EPOCH))
    desk.keeper.journal_refused(e.JournalRefused(commit.ticket, 0, True, "no space left"))
    assert desk.keeper.position_known and desk.told == [("full", [commit.entry], "no space left")]


def test_a_journal_that_cannot_be_written_is_told_in_words() -> None:
    desk = Desk()
    append = desk.append(stream(11))
    desk.keeper.journal_refused(e.JournalRefused(append.ticket, 0, False, "input/output error"))
    assert desk.told == [("failed", "journal-failed", "the secondary cannot write its journal: input/output error")]


# --- waits ------------------------------------------------------------------------------------------------
def test_a_begin_waits_until_every_append_before_it_is_durable() -> None:
    desk = Desk()
    append = desk.append(stream(11))
    desk.keeper.wait_for_appends()
    desk.advanced()
    assert desk.keeper.barrier is not None
    desk.journalled(append, 5000)
    desk.advanced()
    assert desk.keeper.barrier is None


def test_a_comparison_waits_for_the_stream_and_not_for_the_stage() -> None:
    desk = Desk()
    update, staged = desk.append(stream(11)), desk.append(blocks(1), staged=True)
    assert desk.keeper.streaming
    desk.keeper.wait_for_stream()
    assert desk.journalled(update, 5000) == [e.Apply(5000)] and desk.keeper.barrier is None
    assert not desk.keeper.streaming, "what is left is staged"
    desk.journalled(staged, 9000)


def test_a_connection_that_is_gone_waits_for_nothing_but_what_it_began_ends() -> None:
    desk = Desk()
    for wait in (desk.keeper.wait_for_appends, desk.keeper.wait_for_room, desk.keeper.wait_for_stream):
        wait()
        desk.keeper.leave()
        assert desk.keeper.barrier is None
    commit = desk.append((f.Commit(1, 50), NEXT_EPOCH))
    desk.keeper.leave()
    assert desk.journalled(commit, 5000) == [e.Apply(5000)] and desk.told == [("committed", PEER, 50)]


# --- the checkpoint ---------------------------------------------------------------------------------------
def test_the_checkpoint_moves_after_a_sync_and_the_journal_is_freed_after_the_state_file_has_it() -> None:
    desk = Desk()
    desk.journalled(desk.append(stream(11)), 5000)
    assert desk.keeper.can_free, "it would give room back"
    assert desk.applied(AppliedPoint(5000, EPOCH, 11)) == [] and desk.keeper.record.checkpoint == 0
    assert desk.keeper.deadline() == CONFIG.checkpoint_seconds
    (sync,) = desk.advanced(CONFIG.checkpoint_seconds)
    assert desk.advanced(CONFIG.checkpoint_seconds) == [] and desk.keeper.deadline() is None, "one sync at a time"
    effects = desk.synced(sync, AppliedPoint(5000, EPOCH, 11), 6.0)
    assert kinds(effects) == [e.Persist, e.FreeJournal] and effects[-1] == e.FreeJournal(5000)
    assert (desk.keeper.record.checkpoint, desk.keeper.record.sequence) == (5000, 11)
    assert not desk.keeper.can_free and desk.keeper.drained and desk.keeper.deadline() is None


def test_an_entry_that_was_applied_during_a_sync_gets_a_checkpoint_of_its_own() -> None:
    desk = Desk()
    desk.journalled(desk.append(stream(11)), 5000)
    desk.applied(AppliedPoint(3000, EPOCH, 10))
    (sync,) = desk.advanced(5.0)
    desk.applied(AppliedPoint(5000, EPOCH, 11), 5.5)
    desk.synced(sync, AppliedPoint(3000, EPOCH, 10), 6.0)
    assert desk.keeper.record.checkpoint == 3000 and not desk.keeper.drained
    assert desk.keeper.deadline() == 6.0 + CONFIG.checkpoint_seconds


def test_much_that_is_not_checked_is_synced_before_its_time_and_so_is_the_rest_without_a_primary() -> None:
    desk = Desk()
    desk.journalled(desk.append(stream(11)), 3 << 20)
    assert kinds(desk.applied(AppliedPoint(CONFIG.checkpoint_bytes, EPOCH, 10))) == [e.Sync]
    desk = Desk()
    desk.journalled(desk.append(stream(11)), 5000)
    assert desk.applied(AppliedPoint(3000, EPOCH, 10), peer=None) == [], "the applier has not come to the end"
    assert kinds(desk.applied(AppliedPoint(5000, EPOCH, 11), peer=None)) == [e.Sync]


def test_a_wait_for_room_ends_with_the_next_checkpoint_and_that_is_made_at_once() -> None:
    desk = Desk()
    desk.journalled(desk.append(stream(11)), 5000)
    assert desk.keeper.can_free
    desk.keeper.wait_for_room()
    (sync,) = desk.applied(AppliedPoint(5000, EPOCH, 11))
    assert isinstance(desk.keeper.barrier, Freeing)
    desk.synced(sync, AppliedPoint(5000, EPOCH, 11))
    assert desk.keeper.barrier is None


def test_an_image_that_needs_the_journal_up_to_its_commit_says_that_until_the_commit_is_on_the_target() -> None:
    desk = Desk()
    commit = desk.append((f.Commit(1, 50), NEXT_EPOCH))
    desk.journalled(commit, 5000)
    assert desk.append(stream(51)).unlimited, "no room may be wanting before the checkpoint is behind the COMMIT"
    desk.applied(AppliedPoint(3000, EPOCH, 10))
    (sync,) = desk.advanced(5.0)
    desk.synced(sync, AppliedPoint(3000, EPOCH, 10))
    record = desk.keeper.record
    assert (record.checkpoint, record.must_reach, record.epoch, record.sequence) == (3000, 5000, EPOCH, 10)
    desk.applied(AppliedPoint(5000, NEXT_EPOCH, 50))
    (sync,) = desk.advanced(20.0)
    desk.synced(sync, AppliedPoint(5000, NEXT_EPOCH, 50))
    record = desk.keeper.record
    assert (record.checkpoint, record.must_reach, record.epoch, record.sequence) == (5000, 0, NEXT_EPOCH, 50)
    assert not desk.append(stream(52)).unlimited


# --- past the journal -------------------------------------------------------------------------------------
def test_nothing_goes_past_the_journal_before_the_journal_is_on_the_target_and_the_image_given_up() -> None:
    desk = Desk()
    append = desk.append(stream(11))
    desk.keeper.go_direct(HELLO, PEER)
    assert desk.advanced() == [], "an Append is under way"
    desk.journalled(append, 5000)
    assert desk.advanced() == [] and desk.keeper.record.consistent
    (sync,) = desk.applied(AppliedPoint(5000, EPOCH, 11))
    desk.synced(sync, AppliedPoint(5000, EPOCH, 11))
    assert desk.keeper.record.consistent and isinstance(desk.keeper.barrier, GoingDirect)
    assert kinds(desk.advanced()) == [e.Persist] and desk.keeper.barrier is None
    record = desk.keeper.record
    assert not record.consistent and (record.epoch, record.sequence) == (EPOCH, 11), "it was consistent here last"


def test_a_stage_that_goes_onto_the_target_without_its_commit_is_called_inconsistent_first() -> None:
    desk = Desk()
    desk.journalled(desk.append(f.Begin(1, NEXT_EPOCH, 0), staged=True), 100)
    batch = desk.append(blocks(1), staged=True)
    desk.keeper.go_direct(HELLO, PEER)
    assert not only(desk.taken(), e.Persist).record.consistent
    desk.journalled(batch, 5000)
    assert desk.advanced() == [e.Apply(5000)] and desk.keeper.staged_bytes == 0
    (sync,) = desk.applied(AppliedPoint(5000, EPOCH, 10))
    effects = desk.synced(sync, AppliedPoint(5000, EPOCH, 10))
    record = only(effects, e.Persist).record
    assert (record.checkpoint, record.epoch, record.sequence) == (5000, EPOCH, 10), "of no image that is on the target"


def test_a_target_becomes_a_replica_of_the_volume_that_is_still_connected_and_of_no_other() -> None:
    fresh = replace(ADOPTED, volume=None, size_bytes=0, block_bytes=0, consistent=False, fresh=True)
    desk = Desk(fresh)
    desk.keeper.go_direct(HELLO, PEER)
    assert desk.advanced(peer=PEER + 1) == [] and desk.keeper.record == fresh and desk.keeper.barrier is None
    desk.keeper.go_direct(HELLO, PEER)
    desk.advanced()
    record = desk.keeper.record
    assert (record.volume, record.size_bytes, record.block_bytes, record.fresh) == (VOLUME, SIZE, 4096, False)


def test_a_direct_batch_is_counted_in_the_state_file_and_acknowledged_when_a_sync_made_it_durable() -> None:
    desk = Desk()
    desk.direct()
    desk.write(blocks(1))
    write = only(desk.taken(), e.Write)
    assert desk.advanced() == [] and not desk.keeper.drained
    desk.keeper.written(write.ticket)
    (sync,) = desk.advanced()
    assert desk.told == []
    effects = desk.synced(sync, AppliedPoint(0, EPOCH, 10))
    assert only(effects, e.Persist).record.direct_bytes == entry_bytes(blocks(1)) == desk.keeper.progress
    assert desk.told == [("batch", PEER, 1)] and desk.keeper.drained


def test_a_comparison_makes_the_direct_writes_before_it_durable_too() -> None:
    desk = Desk()
    desk.direct()
    assert not desk.keeper.compared(desk.keeper.ticket()), "there were none"
    desk.write(blocks(1))
    desk.write(stream(20))
    _, later = desk.taken()
    assert isinstance(later, e.Write)
    desk.keeper.written(later.ticket)
    assert desk.keeper.compared(desk.keeper.ticket()) and desk.told == [("batch", PEER, 1)], "a stream is no batch"


def test_a_begin_is_nothing_that_could_be_written_to_the_target() -> None:
    desk = Desk()
    desk.direct()
    desk.write(f.Begin(1, NEXT_EPOCH, 0))
    assert desk.taken() == [] and desk.keeper.drained


def test_a_direct_resync_is_consistent_when_all_of_it_is_durable_and_says_that_before_its_commit_is_acknowledged() -> (
    None
):
    desk = Desk()
    desk.direct()
    desk.write(blocks(1))
    write = only(desk.taken(), e.Write)
    desk.write((f.Commit(1, 50), NEXT_EPOCH))
    assert desk.advanced() == [] and not desk.keeper.position_known, "a block is on its way"
    desk.keeper.written(write.ticket)
    (sync,) = desk.advanced()
    effects = desk.synced(sync, AppliedPoint(0, EPOCH, 10))
    assert kinds(effects) == [e.Persist, e.SetApplied, e.Persist], "first the count of bytes, then the image"
    assert desk.told == [("batch", PEER, 1), ("committed", PEER, 50)]
    record = desk.keeper.record
    assert record.consistent and (record.epoch, record.sequence) == (NEXT_EPOCH, 50)
    assert desk.keeper.applied_to == AppliedPoint(0, NEXT_EPOCH, 50) and desk.keeper.drained


def test_a_direct_commit_is_synced_at_once_though_nothing_was_written() -> None:
    desk = Desk()
    desk.direct()
    desk.write((f.Commit(1, 50), NEXT_EPOCH))
    (sync,) = desk.advanced()
    desk.synced(sync, AppliedPoint(0, EPOCH, 10))
    assert desk.keeper.record.consistent and desk.told == [("committed", PEER, 50)]


# --- the state file ---------------------------------------------------------------------------------------
def test_the_state_file_tells_of_blocks_kept_aside_with_the_sync_that_makes_them_durable() -> None:
    desk = Desk()
    desk.journalled(desk.append(stream(11)), 5000)
    desk.keeper.keep_aside(True)
    assert desk.taken() == [], "they are not durable yet"
    (sync,) = desk.applied(AppliedPoint(5000, EPOCH, 11), peer=None)
    effects = desk.synced(sync, AppliedPoint(5000, EPOCH, 11))
    assert next(effect.record for effect in effects if isinstance(effect, e.Persist)).kept_aside
    desk.keeper.keep_aside(False)
    assert not only(desk.taken(), e.Persist).record.kept_aside


def test_the_generations_of_the_primary_take_the_place_of_what_only_this_side_had() -> None:
    desk = Desk(replace(ADOPTED, handed_to="beta"))
    desk.keeper.take_generations(Generations(9, (8,)))
    record = only(desk.taken(), e.Persist).record
    assert record.generations == Generations(9, (8,)).in_sync() and record.handed_to == ""
    desk.keeper.take_generations(Generations(9, (8,)))
    assert desk.taken() == [], "the state file has it"


@pytest.mark.parametrize("consistent", [True, False])
def test_a_record_is_written_only_when_it_changes(consistent: bool) -> None:
    desk = Desk(replace(ADOPTED, consistent=consistent))
    desk.keeper.persist(desk.keeper.record)
    desk.keeper.keep_aside(False)
    assert desk.taken() == []

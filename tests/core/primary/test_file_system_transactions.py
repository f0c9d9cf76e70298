"""A transaction is held when its commit has completed on the primary and the secondary has everything of it; never before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import Captured, Tick
from pydbt.core.primary.file_system_transactions import MAX_RUNS, MAX_WAITING, FileSystemTransactions
from pydbt.core.primary.flight_watch import LONGEST_FLIGHT_S
from pydbt.core.primary.intake import take_in
from pydbt.core.primary.lost_commits import FAILED, UNSEEN, LostCommits
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.settler import Settler
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.tracking.transaction_log import LogRecordKind
from pydbt.core.transactions.asked_transaction import AskedTransaction
from pydbt.core.transactions.followed_log import EndedTransaction, ReadTransaction
from pydbt.core.transactions.transaction import JournalTransaction, RunsOfTransaction, TransactionState
from pydbt.core.units import Geometry
from tests.core.primary.parts import records, state_of

SUBMIT, COMPLETE = RecordKind.SUBMIT, RecordKind.COMPLETE


def ended(
    index: int, number: int, *blocks: int, state: TransactionState = TransactionState.COMMITTED
) -> EndedTransaction:
    """A transaction that consists of these blocks, and ended with a record of the batch."""
    none = RunsOfTransaction()
    transaction = JournalTransaction(str(number), number, state, 5_000, 0, 1, number, none, none)
    return EndedTransaction(index, transaction, tuple((block * 4096, 4096) for block in blocks), ordinal=number)


def read(number: int, first: int = 0, count: int = 8) -> ReadTransaction:
    """The newest of a log at these blocks, as it is on the disk."""
    return ReadTransaction(ended(0, number).transaction, ((first * 4096, count * 4096),), 3.0, number)


class Story:
    """A stream in normal mode."""

    def __init__(self, **settings: object) -> None:
        self.state = state_of(mode=Mode.NORMAL, **settings)
        self.state.payload_on = True
        self.transactions = FileSystemTransactions(self.state)

    def batch(
        self,
        *rows: tuple[RecordKind, int],
        done: tuple[EndedTransaction, ...] = (),
        flags: dict[int, int] | None = None,
        marked: bool = False,
        renewed: bool = False,
        read: ReadTransaction | None = None,
    ) -> bool:
        made = records(*rows)
        for place, flag in (flags or {}).items():
            made["flags"][place] = flag
        made["time_ns"] = 3_000_000_000
        event = Captured(made, self.state.position + len(rows), 0, done, renewed, read)
        taken = take_in(self.state, event, 4.0)
        self.transactions.heed(event, taken)
        if marked:
            Settler(self.state).mark(taken.report, taken.segment, taken.written(self.state), 4.0)
        good = self.transactions.insert(event, taken, taken.written(self.state))
        self.transactions.advance()
        self.state.tracker.check()
        return good

    def acknowledge(self, sequence: int) -> None:
        self.state.acknowledged = sequence
        self.state.tracker.acknowledge(sequence)
        self.state.unsettled.durable_through(sequence)
        self.transactions.advance()
        self.state.tracker.check()

    def kinds(self) -> list[tuple[str, int]]:
        """The active records of the log: kind and sequence."""
        return [(one.kind.name, one.sequence) for one in self.state.tracker.log.records() if one.active]

    def told(self) -> tuple[str | None, str | None]:
        status = self.transactions.status()
        return status.newest and status.newest.name, status.held and status.held.name


def test_a_transaction_is_committed_when_its_writes_completed_and_held_once_they_are_acknowledged_too() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), (SUBMIT, 9), done=(ended(1, 7, 1, 2),))
    assert story.told() == (None, None)
    story.acknowledge(3)
    assert story.told() == (None, None), "the secondary has it, and the primary perhaps not"
    story.batch((COMPLETE, 2))
    assert story.told() == (None, None), "a block of it is in flight"
    story.batch((COMPLETE, 1))
    assert story.told() == ("7", "7"), "what else is in flight does not matter"
    held = story.transactions.held
    assert held is not None and (held.sequence, held.submitted_at, held.committed_ns) == (2, 3.0, 5_000)


def test_a_committed_transaction_waits_for_the_acknowledgement_of_the_write_that_ended_it() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), (COMPLETE, 1), (COMPLETE, 2), done=(ended(1, 7, 1, 2),))
    assert story.told() == ("7", None)
    story.acknowledge(1)
    assert story.told() == ("7", None)
    story.acknowledge(2)
    assert story.told() == ("7", "7")


def test_figure_2_its_blocks_stand_in_the_log_behind_the_write_that_ended_it_until_it_is_committed_and_acknowledged() -> (
    None
):
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), (SUBMIT, 9), done=(ended(1, 7, 1, 2),))
    assert story.kinds() == [("WRITE", 1), ("WRITE", 2), *[("FILE_SYSTEM", 2)] * 2, ("WRITE", 3)]
    story.acknowledge(3)
    assert story.kinds() == [("FILE_SYSTEM", 2)] * 2, "its commit holds the start of the log"
    story.batch((COMPLETE, 1), (COMPLETE, 2))
    assert story.kinds() == [] and story.state.tracker.log.used_slots == 0


def test_the_blocks_that_a_transaction_names_hold_nothing() -> None:
    story = Story()
    named = RunsOfTransaction()
    named.add_blocks([40, 41], 4096)
    transaction = JournalTransaction("7", 7, TransactionState.COMMITTED, None, 0, 1, 7, named, RunsOfTransaction())
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(EndedTransaction(0, transaction, ((4096, 4096),), 1),))
    assert story.state.tracker.dirty.extents().blocks().tolist() == [1]
    story.acknowledge(1)
    assert story.told() == ("7", "7") and story.kinds() == []


def test_a_later_transaction_is_not_told_before_an_earlier_one() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), done=(ended(0, 7, 1), ended(1, 8, 2)))
    story.batch((COMPLETE, 2))
    story.acknowledge(2)
    assert story.told() == (None, None)
    story.batch((COMPLETE, 1))
    assert story.told() == ("8", "8")


def test_transactions_that_one_write_ended_are_one_transaction_of_the_log() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 7, 1), ended(0, 8, 1)))
    assert story.state.tracker.log.active_transactions == 2
    story.acknowledge(1)
    assert story.told() == ("8", "8")


def test_a_transaction_whose_commit_fails_is_abandoned_and_holds_nothing() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), done=(ended(0, 7, 1), ended(1, 8, 2)))
    story.batch((COMPLETE, 1), (COMPLETE, 2), flags={1: RecordFlag.ERROR})
    story.acknowledge(2)
    assert story.told() == ("7", "7") and story.kinds() == []


def test_a_lost_transaction_stays_lost_by_its_name_until_that_name_is_given_again() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), done=(ended(0, 7, 1), ended(1, 8, 2)))
    story.batch((COMPLETE, 1), flags={0: RecordFlag.ERROR})
    story.batch((COMPLETE, 2))
    story.acknowledge(2)
    assert story.told() == ("8", "8"), "a later one is held"
    assert story_lost(story) == {7: FAILED} and story.transactions.lost.reason(AskedTransaction.parse("7")) == FAILED
    assert story.transactions.lost.reason(AskedTransaction.parse("8")) == ""
    story.batch((SUBMIT, 3), (COMPLETE, 3), done=(replace(ended(0, 7, 3), ordinal=9),))
    assert story_lost(story) == {7: FAILED}, "that one was lost nevertheless"
    assert story.transactions.lost.reason(AskedTransaction.parse("7")) == "", "another one has its name"


def test_a_transaction_whose_end_is_not_shown_is_lost_as_well() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), done=(ended(0, 7, 1), ended(1, 8, 2)))
    story.transactions.ended_unseen(Runs.of_blocks(np.array([1])))
    assert story_lost(story) == {7: UNSEEN}


def test_a_transaction_that_fails_after_the_end_of_the_stream_is_lost_and_one_that_completes_is_not() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), done=(ended(0, 7, 1), ended(1, 8, 2)))
    story.state.payload_on, story.state.mode = False, Mode.UNSYNCHRONIZED
    story.state.tracker.halt()
    story.transactions.advance()
    for block, flags in ((1, {}), (2, {0: RecordFlag.ERROR})):
        made = records((COMPLETE, block))
        for place, flag in flags.items():
            made["flags"][place] = flag
        event = Captured(made, story.state.position + 1, 0)
        story.transactions.heed(event, take_in(story.state, event, 4.0))
        story.transactions.advance()
    assert story_lost(story) == {8: FAILED} and story.told() == (None, None)


def test_a_commit_that_fails_in_the_batch_that_does_not_enter_the_log_is_lost_and_so_is_one_that_ends_there() -> None:
    story = Story()
    story.batch((SUBMIT, 1), done=(ended(0, 7, 1),))
    for number, flags in ((8, {0: RecordFlag.ERROR}), (9, {0: RecordFlag.ERROR})):
        made = records((COMPLETE, number - 7), (SUBMIT, number - 6))
        for place, flag in flags.items():
            made["flags"][place] = flag
        event = Captured(made, story.state.position + 2, 0, (ended(1, number, number - 6),))
        story.transactions.heed(event, take_in(story.state, event, 4.0))
        story.transactions.advance()
    assert story_lost(story) == {7: FAILED, 8: FAILED}


def test_no_transaction_is_told_as_committed_while_one_of_the_ended_stream_is_in_flight() -> None:
    story = Story()
    story.batch((SUBMIT, 1), done=(ended(0, 7, 1),))
    story.state.payload_on, story.state.mode = False, Mode.UNSYNCHRONIZED
    story.transactions.advance()
    story.state.payload_on, story.state.mode = True, Mode.NORMAL
    story.batch((SUBMIT, 2), (COMPLETE, 2), done=(ended(0, 8, 2),))
    assert story.told() == (None, None)
    story.batch((COMPLETE, 1))
    assert story.told() == ("8", None) and story_lost(story) == {}


def test_transactions_of_a_replaced_file_system_whose_end_was_not_seen_are_lost_by_their_names() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), (COMPLETE, 1), done=(ended(0, 7, 1), ended(1, 8, 2)))
    story.batch((SUBMIT, 3), renewed=True)
    assert story_lost(story) == {8: UNSEEN}
    assert story.transactions.lost.reason(AskedTransaction.parse("8")) == ""


def story_lost(story: Story) -> dict[int, str]:
    return story.transactions.lost.by_ordinal()


def test_a_transaction_that_the_file_system_abandoned_is_none() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 7, 1, state=TransactionState.ABANDONED),))
    story.acknowledge(1)
    assert story.told() == (None, None)


def test_nothing_is_held_through_a_write_that_is_unsettled() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), (SUBMIT, 2), (COMPLETE, 2), done=(ended(2, 7, 2),))
    story.state.unsettled.add(np.array([1]), 1, 0.0)
    story.acknowledge(2)
    assert story.told() == ("7", None)


def test_while_it_is_not_certain_what_is_in_flight_no_commit_has_completed() -> None:
    story = Story()
    story.state.in_flight.reset()
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 7, 1),))
    story.acknowledge(1)
    assert story.told() == (None, None)
    story.state.in_flight.trust()
    story.transactions.advance()
    assert story.told() == ("7", "7")


def test_the_held_transaction_stays_known_when_the_stream_ends_and_is_unknown_from_the_next_resync_on() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 7, 1),))
    story.acknowledge(1)
    story.batch((SUBMIT, 2), (COMPLETE, 2), done=(ended(0, 8, 2),))
    story.state.payload_on, story.state.mode = False, Mode.UNSYNCHRONIZED
    story.state.tracker.halt()
    story.transactions.advance()
    assert story.told() == (None, "7") and story.state.tracker.log.used_slots == 0
    story.state.mode = Mode.RESYNCHRONIZING
    story.transactions.advance()
    assert story.told() == (None, None)


@pytest.mark.parametrize("spoil", ["taint", "state"])
def test_nothing_is_held_for_certain_while_writes_may_have_been_missed(spoil: str) -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 7, 1),))
    story.acknowledge(1)
    if spoil == "taint":
        story.state.taints["a write that no program saw"] = 1
    else:
        story.state.replica.state = "inconsistent"
    assert story.told() == ("7", None)


@pytest.mark.parametrize("side", ["source", "target"])
def test_no_later_transaction_is_held_while_a_block_cannot_be_read_or_is_not_taken(side: str) -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 7, 1),))
    story.acknowledge(1)
    assert story.told() == ("7", "7")
    if side == "source":
        story.state.unreadable.add(np.array([3]), 0.0)
    else:
        story.state.replica.unwritable = Runs(np.array([3]), np.array([1]))
    story.batch((SUBMIT, 2), (COMPLETE, 2), done=(ended(0, 8, 2),))
    story.acknowledge(2)
    assert story.told() == ("8", "7"), "of the last one nobody knows"
    tellable = story.transactions.tellable
    assert tellable is not None and tellable.name == "7"


def test_half_of_the_log_is_for_writes_alone() -> None:
    story = Story(log_slots=64)
    for block in range(9):
        assert story.batch((SUBMIT, block), (COMPLETE, block), done=(ended(0, block, block),))
    kinds = [kind for kind, _ in story.kinds()]
    assert kinds.count("WRITE") == 9 and 0 < kinds.count("FILE_SYSTEM") < 9
    story.acknowledge(9)
    assert story.told() == ("8", "8"), "one without a record still has its name"


def test_a_commit_that_never_shows_its_completion_does_not_fill_the_log() -> None:
    story = Story(log_slots=64)
    story.batch((SUBMIT, 1), done=(ended(0, 7, 1),))
    for number in range(2, 100):
        assert story.batch((SUBMIT, 9), (COMPLETE, 9)), f"the log is full at write {number}"
        story.acknowledge(number)
    assert story.told() == (None, None) and story.state.tracker.log.used_slots < 32
    story.batch((COMPLETE, 1))
    assert story.told() == ("7", "7")


def test_a_transaction_in_very_many_pieces_is_not_named_and_the_next_one_stands_for_it() -> None:
    story = Story(blocks=512)
    blocks = range(0, 2 * MAX_RUNS + 2, 2)
    story.batch(*((SUBMIT, block) for block in blocks), done=(ended(len(blocks) - 1, 7, *blocks),))
    assert {kind for kind, _ in story.kinds()} == {"WRITE"}
    story.batch(*((COMPLETE, block) for block in blocks))
    story.acknowledge(len(blocks))
    assert story.told() == (None, None)
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 8, 1),))
    story.acknowledge(len(blocks) + 1)
    assert story.told() == ("8", "8")


def test_a_block_that_its_batch_unsettles_keeps_it_from_being_held_wherever_it_ended_in_the_batch() -> None:
    story = Story()
    rows = ((SUBMIT, 1), (SUBMIT, 1), (SUBMIT, 2), (SUBMIT, 5), (COMPLETE, 1), (COMPLETE, 1), (COMPLETE, 2))
    story.batch(*rows, done=(ended(2, 7, 2),), marked=True)
    assert story.state.unsettled.blocks().tolist() == [1]
    story.acknowledge(4)
    assert story.told() == ("7", None) and story.transactions.tellable is None
    story.state.unsettled.clear()
    story.transactions.advance()
    assert story.told() == ("7", "7")


def test_a_completion_that_was_never_shown_is_no_commit() -> None:
    brain = Primary(PrimaryConfig(Geometry(64 * 4096, 4096), epoch=7, initial=False, scan_used=False), 0.0)
    state = brain.state
    state.in_flight.trust()
    state.mode, state.payload_on = Mode.NORMAL, True
    brain.handle(Captured(records((SUBMIT, 1), (SUBMIT, 2)), 2, 0, (ended(0, 7, 1), ended(1, 8, 2))), 1.0)
    brain.handle(Captured(records((COMPLETE, 2)), 3, 0), 2.0)
    brain.handle(Tick(), 2.5 + LONGEST_FLIGHT_S)
    assert state.in_flight.empty and state.unsettled.blocks().tolist() == [1]
    newest = brain.transactions.newest
    assert newest is not None and newest.name == "8", "the first is abandoned, the second has completed"
    brain.handle(Captured(records((SUBMIT, 3)), 4, 0, (ended(0, 9, 3),)), 40.0)
    brain.handle(Tick(), 41.0 + LONGEST_FLIGHT_S)
    assert state.in_flight.empty and brain.transactions.newest is newest


def test_the_transactions_of_a_replaced_file_system_are_forgotten_with_it() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), (SUBMIT, 2), done=(ended(0, 48211, 1), ended(2, 48212, 2)))
    story.acknowledge(2)
    assert story.told() == ("48211", "48211")
    story.batch((SUBMIT, 3), (COMPLETE, 3), (SUBMIT, 4), done=(ended(2, 2, 4),), renewed=True)
    assert story.told() == (None, None) and story.kinds() == [("WRITE", 3), ("WRITE", 4), ("FILE_SYSTEM", 4)]
    nameless = story.transactions.tellable
    assert nameless is not None and (nameless.name, nameless.sequence) == ("", 2)
    story.batch((COMPLETE, 2), (COMPLETE, 4))
    story.acknowledge(4)
    assert story.told() == ("2", "2")
    story.transactions.held = None
    assert story.transactions.tellable is None


def test_a_transaction_read_from_the_disk_is_held_when_everything_up_to_there_is_acknowledged() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1))
    assert story.transactions.unknown
    story.batch((SUBMIT, 2), (COMPLETE, 2), read=read(48211))
    assert story.told() == ("48211", None) and not story.transactions.unknown
    story.acknowledge(1)
    assert story.told() == ("48211", None), "the read may have seen the second write"
    story.acknowledge(2)
    assert story.told() == ("48211", "48211")
    assert story.transactions.held is not None and story.transactions.held.sequence == 2


def test_a_transaction_read_from_the_disk_counts_when_no_write_to_the_log_is_in_flight() -> None:
    story = Story()
    story.batch((SUBMIT, 3), (SUBMIT, 20), read=read(48211))
    story.acknowledge(2)
    assert story.told() == (None, None) and not story.transactions.unknown
    story.batch((COMPLETE, 3))
    assert story.told() == ("48211", "48211")


def test_a_transaction_read_from_the_disk_waits_for_a_certain_count_in_flight_and_settled_blocks() -> None:
    story = Story()
    story.state.in_flight.reset()
    story.batch((SUBMIT, 1), (COMPLETE, 1), read=read(48211))
    story.acknowledge(1)
    assert story.told() == (None, None)
    story.state.unsettled.add(np.array([9]), 1, 0.0)
    story.state.in_flight.trust()
    story.transactions.advance()
    assert story.told() == ("48211", None)


def test_a_transaction_read_from_the_disk_gives_way_to_a_later_one_and_to_another_file_system() -> None:
    story = Story()
    story.batch((SUBMIT, 3), read=read(48211))
    story.batch((SUBMIT, 4), (COMPLETE, 3), (COMPLETE, 4), done=(ended(0, 48213, 4),))
    assert story.told() == ("48213", None)
    story.batch(read=read(48212))
    story.acknowledge(2)
    assert story.told() == ("48213", "48213"), "what is known is newer"
    story = Story()
    story.batch((SUBMIT, 3), read=read(48211))
    story.batch((COMPLETE, 3), renewed=True)
    assert story.told() == (None, None) and story.transactions.unknown


@pytest.mark.parametrize("mode", [Mode.UNSYNCHRONIZED, Mode.RESYNCHRONIZING])
def test_outside_of_normal_mode_nothing_that_was_read_counts(mode: Mode) -> None:
    story = Story()
    story.batch((SUBMIT, 3), read=read(48211))
    story.state.mode, story.state.payload_on = mode, False
    story.transactions.advance()
    assert not story.transactions.unknown
    story.state.mode, story.state.payload_on = Mode.NORMAL, True
    story.batch((COMPLETE, 3))
    assert story.told() == (None, None) and story.transactions.unknown


def test_a_log_that_is_full_is_told() -> None:
    story = Story(log_slots=8)
    assert story.batch(*((SUBMIT, block) for block in range(4)))
    assert not story.batch((SUBMIT, 9), done=(ended(0, 7, 9),))


def test_the_oldest_of_too_many_waiting_transactions_are_forgotten() -> None:
    story = Story(blocks=MAX_WAITING + 64, log_slots=64 * MAX_WAITING)
    blocks = range(MAX_WAITING + 10)
    story.batch(*((SUBMIT, block) for block in blocks), done=tuple(ended(block, block + 1, block) for block in blocks))
    story.batch(*((COMPLETE, block) for block in blocks))
    story.acknowledge(len(blocks))
    assert story.told() == (str(len(blocks)),) * 2 and story.kinds() == []


def test_the_log_tells_rows_of_each_kind_apart() -> None:
    story = Story()
    story.batch((SUBMIT, 1), done=(ended(0, 7, 1),))
    kinds = [one.kind for one in story.state.tracker.log.records()]
    assert kinds == [LogRecordKind.WRITE, LogRecordKind.FILE_SYSTEM]
    assert story.state.tracker.log.active_transactions == 2


def test_a_secondary_is_told_the_newest_that_it_will_hold_at_its_position_and_none_while_that_is_not_sure() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (COMPLETE, 1), done=(ended(0, 7, 1),))
    story.batch((SUBMIT, 2), (COMPLETE, 2), done=(ended(0, 8, 2),))

    def tellable() -> str | None:
        one = story.transactions.tellable
        return one and one.name

    assert tellable() == "8", "committed; the secondary finds out itself when it is there"
    story.state.unsettled.add(np.array([9]), 2, 0.0)
    assert tellable() == "7"
    story.acknowledge(1)
    story.state.taints["a write that no program saw"] = 1
    assert tellable() is None
    story.state.taints.clear()
    story.state.mode = Mode.RESYNCHRONIZING
    assert tellable() is None


def test_a_lost_commit_is_known_to_a_secondary_that_is_added_later() -> None:
    """The one that saw it may be removed, and it is not committed by that."""
    first, later = LostCommits(), LostCommits()
    first.add(NamedTransaction("8", 8, None, 1.0, 8, 3, 8), "a write of it failed")
    later.learn(first)
    later.learn(first)
    assert later.by_ordinal() == {3: "a write of it failed"} and len(later._lost) == 1

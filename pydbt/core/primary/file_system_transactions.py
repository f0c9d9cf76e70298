"""The file system's transactions of one secondary: which are committed on the primary, and which the secondary holds (¶62, ¶77).

A transaction is *held* when its commit has completed on the primary, the secondary has acknowledged the stream through the
write that ended it, and no block that was written by then is unsettled. Both are told in order alone: the newest one that is
told stands for all before it. The numbers are for people; what is promised is the position in the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.primary.completed_transactions import CompletedTransactions
from pydbt.core.primary.events import Captured
from pydbt.core.primary.intake import NANOSECONDS, Taken
from pydbt.core.primary.lost_commits import FAILED, UNSEEN, LostCommits
from pydbt.core.primary.modes import SYNCING_MODES, Mode
from pydbt.core.primary.named_transaction import NamedTransaction
from pydbt.core.primary.state import State
from pydbt.core.tracking.transaction_log import LogRecordKind, LogRecordKinds
from pydbt.core.tracking.update_list import Sequences
from pydbt.core.transactions.followed_log import ReadTransaction
from pydbt.core.transactions.transaction import TransactionState

MAX_WAITING = 4_096
"""Transactions that are not held, about 2 MiB. Above it the oldest is forgotten, and the next one stands for it."""

MAX_RUNS = 64
"""A log is in a few pieces. A transaction in more pieces is not named: the next one, which waits for it, stands for it."""

SHOWN_NAMES = 256
"""The newest names are kept for who looks at the log, also of those that are held."""

LogRows = tuple[Sequences, BlockNumbers, BlockNumbers, LogRecordKinds]


@dataclass(frozen=True, slots=True)
class TransactionsStatus:
    """``newest``: committed on the primary; ``held``: the secondary holds it and all before it. None: unknown. ``lost``: ordinals
    of those that nobody will hold, and why."""

    newest: NamedTransaction | None
    held: NamedTransaction | None
    lost: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommittedTransaction:
    """A committed one of a batch: the place of the write that ended it, and the blocks that it consists of."""

    place: int
    named: NamedTransaction
    blocks: Runs


class FileSystemTransactions:
    """Told of each batch that enters the log, and looked at after every event."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._submitted: deque[CommittedTransaction] = deque()
        self._committed: deque[NamedTransaction] = deque()
        self._given_up: deque[CommittedTransaction] = deque(maxlen=MAX_WAITING)  # with the stream
        self._left_out: tuple[Captured, Taken] | None = None  # the batch that has not entered the log, so far
        self.lost = LostCommits()
        self._read: ReadTransaction | None = None  # from the disk, when the stream has told none
        self.newest: NamedTransaction | None = None
        self.held: NamedTransaction | None = None
        self.for_history = CompletedTransactions(state)
        self._inserted: deque[NamedTransaction] = deque(maxlen=SHOWN_NAMES)
        self._none_yet: NamedTransaction | None = None  # without a name: those before were of another file system

    # --- what ended ---------------------------------------------------------------------------------------
    def insert(self, event: Captured, taken: Taken, written: Runs) -> bool:
        """INSERT of a batch of writes, with the transactions that ended in it (Fig. 2). False: the log is full."""
        if not len(written.firsts):
            self._left_out = None
            self.failed(taken.report.failed)
            return True
        last_sequences = taken.segment.last_sequences.astype(np.uint64)
        found = self._found(event, taken) if event.ended else []
        if found:
            self._read = None  # it is newer
        writes: LogRows = (last_sequences, *written, np.full(len(last_sequences), LogRecordKind.WRITE, np.uint8))
        log = self._state.tracker.log
        if log.free_slots - 2 * len(writes[0]) < log.capacity_slots // 2:
            log.abandon_uncommitted(
                self._state.acknowledged
            )  # writes alone may fill it, and no commit that does not show
        rows = self._with_transactions(writes, found)
        if self._state.tracker.insert_all(*rows, uncommitted=True) < len(rows[0]):
            return False
        self._left_out = None
        self._submitted.extend(found)
        names = [one.named for one in found]
        self._inserted.extend(names)
        self.lost.given_again(names)
        self.for_history.ended(names, taken.report)
        while len(self._submitted) > MAX_WAITING:
            self._submitted.popleft()
        self.failed(taken.report.failed)
        return True

    def _found(self, event: Captured, taken: Taken) -> list[CommittedTransaction]:
        found = []
        numbers = np.cumsum(taken.is_write) - 1
        block_bytes = self._state.geometry.block_bytes
        for one in event.ended:
            transaction, place = one.transaction, int(numbers[one.index])
            if transaction.state is not TransactionState.COMMITTED or len(one.runs) > MAX_RUNS:
                continue
            submitted_at = int(event.records["time_ns"][one.index]) / NANOSECONDS or self._state.now
            sequence = int(taken.segment.last_sequences[place])
            named = NamedTransaction(
                transaction.name, transaction.number, transaction.committed_ns, submitted_at, sequence, one.ordinal,
                self._state.sequence,
            )  # fmt: skip
            found.append(CommittedTransaction(place, named, _blocks_of(one.runs, block_bytes)))
        return found

    def _with_transactions(self, writes: LogRows, found: list[CommittedTransaction]) -> LogRows:
        """The rows of a batch with those of its transactions, each behind the write that ended it.

        The writes alone where more than half of the log would be used: it is there for them.
        """
        log = self._state.tracker.log
        counts = [len(one.blocks.firsts) for one in found]
        extra = sum(counts)
        if not extra or log.free_slots - 2 * (len(writes[0]) + extra) < log.capacity_slots // 2:
            return writes
        places = np.repeat([one.place + 1 for one in found], counts)
        sequences = np.repeat(np.array([one.named.sequence for one in found], np.uint64), counts)
        firsts = np.concatenate([one.blocks.firsts for one in found])
        lengths = np.concatenate([one.blocks.counts for one in found])
        return (
            np.insert(writes[0], places, sequences),
            np.insert(writes[1], places, firsts),
            np.insert(writes[2], places, lengths),
            np.insert(writes[3], places, np.uint8(LogRecordKind.FILE_SYSTEM)),
        )

    def names(self) -> dict[int, str]:
        """Of the newest ones in the log, by the sequence number of their records; where several ended with a write, the last."""
        return {one.sequence: one.name for one in self._inserted}

    @property
    def unknown(self) -> bool:
        """Whether the log on the disk would tell more than is known: after a resynchronization, until the next commit."""
        named = self.newest or self.held or self._read or self._submitted
        return self._state.mode is Mode.NORMAL and self._state.payload_on and not named

    def heed(self, event: Captured, taken: Taken) -> None:
        """Those before this batch are forgotten where they were of another file system: its numbers begin again.

        One that was read from the disk counts where no other is known.
        """
        self._left_out = (event, taken)
        if event.renewed:
            self._renew(taken)
        if event.read is not None and self.unknown:
            self._read = event.read

    def _renew(self, taken: Taken) -> None:
        state, before = self._state, taken.segment.first_sequence - 1
        state.tracker.log.abandon_uncommitted(state.acknowledged)
        for one in (*self._given_up, *self._submitted):
            self.lost.add(one.named, UNSEEN)
        self.lost.forget_names()
        self._given_up.clear()
        self._submitted.clear()
        self._committed.clear()
        self.for_history.forget()
        self.newest = self.held = self._read = None
        self._none_yet = NamedTransaction("", 0, None, state.now, before, 0, before)

    def failed(self, blocks: Runs) -> None:
        """Writes to these blocks have failed: no transaction with such a block is complete."""
        self._abandon(blocks, FAILED)

    def ended_unseen(self, blocks: Runs) -> None:
        """Writes to these blocks have ended, nobody knows how: no transaction with such a block is known to be complete."""
        self._abandon(blocks, UNSEEN)

    def _abandon(self, blocks: Runs, reason: str) -> None:
        state = self._state
        for one in self._taken(self._given_up, blocks):
            self.lost.add(one.named, reason)
        for one in self._taken(self._submitted, blocks):
            sequence = one.named.sequence
            state.tracker.log.committed_through(sequence, state.acknowledged, first=sequence)
            self.lost.add(one.named, reason)

    @staticmethod
    def _taken(waiting: deque[CommittedTransaction], blocks: Runs) -> list[CommittedTransaction]:
        """Those with one of these blocks, taken away."""
        if not waiting or not len(blocks.firsts):
            return []
        touched = _touched(blocks, waiting).tolist()
        every = list(waiting)
        waiting.clear()
        waiting.extend(one for one, hit in zip(every, touched, strict=True) if not hit)
        return [one for one, hit in zip(every, touched, strict=True) if hit]

    # --- what becomes of them -----------------------------------------------------------------------------
    def advance(self) -> None:
        """After every event: which commits have completed, and which transactions are acknowledged."""
        state = self._state
        if state.mode in SYNCING_MODES:
            self.held = None  # nobody knows which transaction the image of this resynchronization will hold
        if self._left_out is not None:
            self._pass_over(*self._left_out)
        if self._given_up:
            _take_completed(state, self._given_up)
        if not state.payload_on:  # the stream was discarded, and the log is not seen
            self._given_up.extend(self._submitted)
            self._submitted.clear()
            self._committed.clear()
            self.for_history.forget()
            self.newest = self._read = None
            return
        if not self._given_up:  # else an earlier one is in flight
            if self._read is not None:
                self._take_read(self._read)
            if self._submitted:
                self._commit()
        self.for_history.advance()
        waiting = self._committed
        if not waiting or state.mode is not Mode.NORMAL or waiting[0].sequence > state.acknowledged:
            return
        if not self._is_whole:
            return
        oldest = state.unsettled.oldest_sequence()
        while waiting and waiting[0].sequence <= state.acknowledged and _is_settled(waiting[0], oldest):
            self.held, self._none_yet = waiting.popleft(), None

    def _pass_over(self, event: Captured, taken: Taken) -> None:
        """A batch that does not enter the log: the stream is given up with it, or is another secondary's. What it tells of
        commits that fail counts all the same: who is complete to a later transaction one day lacks these."""
        self._left_out = None
        if event.ended:
            self._given_up.extend(self._found(event, taken))
        self.failed(taken.report.failed)

    def _take_read(self, read: ReadTransaction) -> None:
        """Everything that the read has seen was submitted by now, and of the log all has completed: it is a write like any other.

        The image that a resynchronization has landed on, with the stream up to here, holds this transaction and all before it.
        """
        state, block_bytes = self._state, self._state.geometry.block_bytes
        if not state.in_flight.certain:
            return
        one, sequence = read.transaction, state.sequence
        named = NamedTransaction(
            one.name, one.number, one.committed_ns, read.submitted_at, sequence, read.ordinal, sequence
        )
        log = CommittedTransaction(0, named, _blocks_of(read.log, block_bytes))
        if state.in_flight.empty or not _touched(state.in_flight.extents(), [log])[0]:
            self.newest, self._read = named, None
            self._committed.append(named)

    def _commit(self) -> None:
        state = self._state
        if named := _take_completed(state, self._submitted):
            self._committed.extend(named)
            self.for_history.completed(named)
            while len(self._committed) > MAX_WAITING:
                self._committed.popleft()
            self.newest = self._committed[-1]
            state.tracker.log.committed_through(self.newest.sequence, state.acknowledged)

    @property
    def tellable(self) -> NamedTransaction | None:
        """The newest that a secondary holds as soon as it has everything up to its sequence number; None: none for certain.

        One without a name: from there on those that it was told before are of no file system that the volume has.
        """
        state = self._state
        if state.mode is not Mode.NORMAL or not self._is_sure:
            return None
        oldest = state.unsettled.oldest_sequence()
        settled = (one for one in reversed(self._committed) if self._is_whole and _is_settled(one, oldest))
        return next(settled, self.held or self._none_yet)

    @property
    def _is_sure(self) -> bool:
        return not self._state.told_taints and self._state.replica.state != "inconsistent"

    @property
    def _is_whole(self) -> bool:
        """A block that the source cannot read, or the target does not take, may be of any transaction that is not held yet."""
        return not len(self._state.unreadable) and not self._state.replica.lacking().total()

    def status(self) -> TransactionsStatus:
        """What may be told. Nothing is held for certain while writes may have been missed."""
        return TransactionsStatus(self.newest, self.held if self._is_sure else None, self.lost.by_ordinal())


def _take_completed(state: State, waiting: deque[CommittedTransaction]) -> list[NamedTransaction]:
    """The first of them up to one of which a write is in flight, taken away."""
    if not state.in_flight.certain:
        return []
    completed = len(waiting)
    if not state.in_flight.empty:
        busy = _touched(state.in_flight.extents(), waiting)
        completed = int(busy.argmax()) if busy.any() else completed
    return [waiting.popleft().named for _ in range(completed)]


def _blocks_of(runs: Sequence[tuple[int, int]], block_bytes: int) -> Runs:
    """Runs of bytes as runs of the blocks that they touch, one for one."""
    firsts = np.array([offset // block_bytes for offset, _ in runs], np.int64)
    ends = np.array([-(-(offset + length) // block_bytes) for offset, length in runs], np.int64)
    return Runs(firsts, ends - firsts)


def _is_settled(named: NamedTransaction, oldest: int | None) -> bool:
    """Whether no block that was written by then is unsettled; ``oldest``: what the oldest of the unsettled goes back to."""
    return oldest is None or named.batch_end < oldest


def _touched(extents: Runs, waiting: Sequence[CommittedTransaction]) -> npt.NDArray[np.bool_]:
    """Of each transaction, whether one of its blocks is in the extents."""
    firsts = np.concatenate([one.blocks.firsts for one in waiting])
    ends = firsts + np.concatenate([one.blocks.counts for one in waiting])
    place = np.searchsorted(extents.ends(), firsts, side="right")
    meets = (place < len(extents.firsts)) & (extents.firsts[np.minimum(place, len(extents.firsts) - 1)] < ends)
    sizes = np.array([len(one.blocks.firsts) for one in waiting])
    before = np.append(0, np.cumsum(meets))
    last = np.cumsum(sizes)
    touched: npt.NDArray[np.bool_] = before[last] > before[last - sizes]
    return touched

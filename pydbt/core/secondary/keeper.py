"""Journal, target, checkpoint and state file of the secondary, in an order that no crash can hurt.

Invariants:

* Nothing is applied before it is durable in the journal.
* While a resync is staged, the target stays the last consistent image; staged records are applied once their
  COMMIT is durable, or after the state file says that the image is inconsistent.
* The state file says ``consistent: false`` before the first byte is written directly; the journal is applied, synced
  and passed by the checkpoint before that, so that no replay can put old data over new.
* The checkpoint moves only after a sync of the target.
* What the target does not take is kept aside, durably, before a sync is reported; and the state file says that it is.
* The checkpoint passes the record of a mark only after the file of marks has it.
* ``progress`` includes everything that was acknowledged: the state file counts direct writes before their acknowledgement.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.completed import Completed
from pydbt.core.protocol.generations import Generations
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary import events as e
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.direct_writes import DirectWrite, DirectWrites
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.core.secondary.journal import JournalEntry, entry_bytes, needs_history
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import PLAIN_JOURNAL, TIMED_JOURNAL, AppliedPoint, ReplicaRecord
from pydbt.core.units import Geometry


@dataclass(frozen=True, slots=True)
class AwaitingAppends:
    """The stream before a BEGIN has to be durable, so that later comparisons see it."""


@dataclass(frozen=True, slots=True)
class Journalling:
    """The stream so far has to be durable and given to the applier, so that a comparison sees it."""


@dataclass(frozen=True, slots=True)
class Freeing:
    """A checkpoint has to free room in the journal."""


@dataclass(frozen=True, slots=True)
class GoingDirect:
    """The journal has to be on the target and passed by the checkpoint; then this volume is adopted."""

    hello: f.Hello
    connection: int


@dataclass(frozen=True, slots=True)
class CommittingStaged:
    """The COMMIT has to be durable in the journal."""

    commit: f.Commit
    epoch: int
    connection: int


@dataclass(frozen=True, slots=True)
class CommittingDirect:
    """Everything written directly has to be durable; then the state file can say that the image is consistent."""

    commit: f.Commit
    epoch: int
    connection: int


Barrier = AwaitingAppends | Journalling | Freeing | GoingDirect | CommittingStaged | CommittingDirect
"""What has to end before the next frame may be looked at."""


@dataclass(frozen=True, slots=True)
class Appending:
    """An Append that was handed to the journal for a connection; ``staged``: into the stage."""

    ticket: int
    entry: JournalEntry
    connection: int
    staged: bool


class Owner(Protocol):
    """The owner of a Keeper, which is told the results of the work."""

    def batch_ended(self, connection: int, batch: int) -> None: ...
    def committed(self, connection: int, commit: f.Commit) -> None: ...
    def journal_full(self, refused: list[JournalEntry], error: str) -> None: ...
    def failed(self, code: str, message: str) -> None: ...


class Keeper:
    """The half of the secondary's brain that knows disks and not the conversation.

    ``epoch`` and ``sequence`` are those of the consistent image; ``tail`` the end of the durable journal; ``limit`` how
    far it may be applied; ``stage_from`` where an unfinished resync begins in it, None when there is none; ``applied_to`` how
    far the target has come; ``marks`` all that are held durably. Effects are appended to ``effects``, which is the owner's.
    """

    def __init__(
        self,
        owner: Owner,
        effects: list[e.Effect],
        config: SecondaryConfig,
        record: ReplicaRecord,
        recovery: Recovery,
        staged: StagedBlocks,
    ) -> None:
        self._owner = owner
        self._config = config
        self.effects = effects
        self.record = record
        self.epoch, self.sequence = recovery.epoch, recovery.sequence
        self.tail, self.limit = recovery.tail, recovery.limit
        self.stage_from = recovery.stage_from
        self.marks = recovery.marks
        self._marks_saved: HeldMarks | None = None  # of an earlier process: perhaps not all of them
        self.applied_to = AppliedPoint(record.checkpoint, record.epoch, record.sequence)
        self.barrier: Barrier | None = None
        self._must_reach = max(record.must_reach, recovery.committed_at)
        self._staged = staged
        self._ticket = 0
        self._appends: deque[Appending] = deque()
        self._writes = DirectWrites(config)
        self._sync_ticket: int | None = None
        self._checkpoint_due: float | None = None
        self._journal_halted = False
        self._kept_aside = record.kept_aside
        if self.limit > self.applied_to.position:
            self.effects.append(e.Apply(self.limit))

    @property
    def position_known(self) -> bool:
        """Is it known where the image stands, with no Append or COMMIT under way?"""
        return not self._appends and not isinstance(self.barrier, (CommittingStaged, CommittingDirect))

    @property
    def drained(self) -> bool:
        """Is everything that may be applied applied, and durable on the target?"""
        idle = self._writes.none_left and self.barrier is None and self._sync_ticket is None
        return self.record.checkpoint >= self.limit and self.position_known and idle

    @property
    def staged_bytes(self) -> int:
        return 0 if self.stage_from is None else self.tail - self.stage_from

    @property
    def progress(self) -> int:
        """Bytes that ever became durable here: the end of the journal, plus all direct writes.

        A replica whose progress is lower than it once was has lost something.
        """
        return self.tail + self.record.direct_bytes

    def continues(self, epoch: int) -> bool:
        """Whether a stream of that epoch may follow the image without a resync."""
        return self.record.consistent and self.stage_from is None and self.epoch == epoch

    def ticket(self) -> int:
        """A new number for work."""
        self._ticket += 1
        return self._ticket

    def staged_units_of(self, units: Runs, unit_bytes: int) -> BlockNumbers:
        """The units whose newest content is not on the target."""
        return self._staged.of(units, unit_bytes)

    # --- work in ------------------------------------------------------------------------------------------
    def append(self, entry: JournalEntry, connection: int, *, geometry: Geometry | None = None) -> None:
        """Have an entry journalled; with ``geometry`` it belongs to the stage."""
        if self._journal_halted:
            self._journal_halted = False
            self.persist(replace(self.record, incarnation=self.record.incarnation + 1))
            self.effects.append(e.Resume(self.record.incarnation))
        if needs_history(entry):
            self.persist(replace(self.record, journal_layout=TIMED_JOURNAL))
        if geometry is not None and isinstance(entry, (f.Blocks, f.Stream)):
            self._staged.add(entry.extents, geometry)
        if isinstance(entry, tuple):
            self.barrier = CommittingStaged(*entry, connection)
        append = Appending(self.ticket(), entry, connection, staged=geometry is not None)
        self._appends.append(append)
        unlimited = append.staged or self.record.checkpoint < self._must_reach
        self.effects.append(e.Append(append.ticket, entry, unlimited))

    def write(self, entry: JournalEntry, connection: int) -> None:
        """Have an entry written directly, after ``go_direct``."""
        if isinstance(entry, tuple):
            self.barrier = CommittingDirect(*entry, connection)
        elif isinstance(entry, (f.Blocks, f.Stream)):
            write = DirectWrite(self.ticket(), entry, connection)
            self._writes.add(write)
            self.effects.append(e.Write(write.ticket, entry))

    def go_direct(self, hello: f.Hello, connection: int) -> None:
        """Bring everything to the target, so that entries may be written past the journal from then on."""
        self.barrier = GoingDirect(hello, connection)
        if self.stage_from is not None or any(append.staged for append in self._appends):
            # The stage goes onto the target without its COMMIT: the state file has to call the image inconsistent first.
            self._give_up_image()

    def wait_for_appends(self) -> None:
        """Nothing more until every Append is durable."""
        self.barrier = AwaitingAppends()

    def wait_for_room(self) -> None:
        """The journal was full: nothing more until a checkpoint has freed some of it."""
        self.barrier = Freeing()

    @property
    def streaming(self) -> bool:
        """Are there updates of the image itself (not of a stage) that the applier was not given yet?"""
        return any(not append.staged for append in self._appends)

    def wait_for_stream(self) -> None:
        """Nothing more until every update so far was given to the applier, ahead of the next frame."""
        self.barrier = Journalling()

    def leave(self) -> None:
        """The connection is gone: waits for room and for comparisons end. All other work ends by itself."""
        if isinstance(self.barrier, (Freeing, AwaitingAppends, Journalling)):
            self.barrier = None

    @property
    def can_free(self) -> bool:
        """Would a checkpoint give room back?"""
        return self.tail > self.record.checkpoint

    def take_generations(self, generations: Generations) -> None:
        """The image is of these generations, and the primary knows that it is."""
        self.persist(replace(self.record, generations=generations.in_sync(), divergence=None, handed_to=""))

    def forget_handover(self) -> None:
        """A primary goes on: nobody has to ask who took this side's place, or whether this side is to take one."""
        self.persist(replace(self.record, handed_to=""))
        self.effects.append(e.KeepHandover(None))

    def keep_aside(self, kept: bool) -> None:
        """Whether there are blocks that the target does not take. The state file tells of them from when they are saved on."""
        self._kept_aside = kept
        if not kept:
            self.persist(replace(self.record, kept_aside=False))

    def persist(self, record: ReplicaRecord) -> None:
        """Change the state file, before any effect that comes later."""
        if record != self.record:
            self.record = record
            self.effects.append(e.Persist(record))

    # --- work done ----------------------------------------------------------------------------------------
    def journal_durable(self, event: e.JournalDurable) -> None:
        limit = self.limit
        for ticket, end in zip(event.tickets, event.ends, strict=True):
            append = self._appends.popleft()
            assert append.ticket == ticket, "the journal works in order"
            self._appended(append, end)
        if self.limit != limit:
            self.effects.append(e.Apply(self.limit))
        if isinstance(self.barrier, Journalling) and not self.streaming:
            self.barrier = None

    def _appended(self, append: Appending, end: int) -> None:
        start, self.tail = self.tail, end
        match append.entry:
            case f.Begin():
                self.stage_from = start if self.stage_from is None else self.stage_from
            case f.Blocks(batch=batch):
                self._owner.batch_ended(append.connection, batch)
            case f.Stream(last=last) if not append.staged:
                self.sequence, self.limit = last, end
            case NamedMark() as mark:
                self.sequence, self.limit = mark.sequence, end
                self.marks = self.marks.with_mark(mark, self.epoch)
            case Completed():
                self.limit = end
            case (f.Commit() as commit, int() as epoch):
                self.epoch, self.sequence, self.limit = epoch, commit.sequence, end
                self.stage_from, self._must_reach = None, end
                self._staged.clear()
                self._committed(append.connection, commit)

    def _committed(self, connection: int, commit: f.Commit) -> None:
        """The image is consistent at the COMMIT's sequence, and durably so."""
        self.barrier = None
        self._owner.committed(connection, commit)

    def journal_refused(self, event: e.JournalRefused) -> None:
        """Everything before the refused Append was reported durable before. The rest comes back."""
        assert not self._appends or self._appends[0].ticket >= event.ticket, "the journal reports in order"
        refused, self._appends = [append.entry for append in self._appends], deque()
        self.tail, self._journal_halted = event.position, True
        if isinstance(self.barrier, (CommittingStaged, Journalling)):
            self.barrier = None  # the entries that came back go in again, ahead of the frames that wait
        if event.full:
            self._owner.journal_full(refused, event.error)
        else:
            self._owner.failed("journal-failed", f"the secondary cannot write its journal: {event.error}")

    def applied(self, point: AppliedPoint, now: float) -> None:
        self.applied_to = point
        if self._checkpoint_due is None:
            self._checkpoint_due = now + self._config.checkpoint_seconds

    def written(self, ticket: int) -> None:
        self._writes.written(ticket)

    def synced(self, ticket: int, point: AppliedPoint, now: float) -> None:
        self._sync_ticket = None
        self._writes.synced(now)
        behind = self.applied_to.position > point.position
        self._checkpoint_due = now + self._config.checkpoint_seconds if behind else None
        self._made_durable(ticket)
        if point.position > self.record.checkpoint:
            self._checkpoint(point)
        if isinstance(self.barrier, CommittingDirect) and self._writes.none_left:
            commit, connection = self.barrier.commit, self.barrier.connection
            self.epoch, self.sequence = self.barrier.epoch, commit.sequence
            self.applied_to = AppliedPoint(self.tail, self.epoch, self.sequence)
            self.effects.append(e.SetApplied(self.applied_to))
            self.persist(replace(self.record, consistent=True, epoch=self.epoch, sequence=self.sequence))
            self._committed(connection, commit)

    def compared(self, ticket: int) -> bool:
        """A Compare has made the direct writes before it durable. Whether there were any."""
        return self._made_durable(ticket)

    def _made_durable(self, ticket: int) -> bool:
        """Direct writes before this ticket are on the disk: count them, then let them be acknowledged."""
        ended = self._writes.made_durable(ticket)
        count = sum(entry_bytes(write.frame) for write in ended)
        direct_bytes = self.record.direct_bytes + count
        self.persist(replace(self.record, direct_bytes=direct_bytes, kept_aside=self._kept_aside))
        for write in ended:
            if isinstance(write.frame, f.Blocks):
                self._owner.batch_ended(write.connection, write.frame.batch)
        return bool(ended)

    def _checkpoint(self, point: AppliedPoint) -> None:
        if self.marks != self._marks_saved and (self.marks.newest is not None):
            self.effects.append(e.KeepMarks(self.marks))
            self._marks_saved = self.marks
        moved = replace(self.record, checkpoint=point.position)
        if not self.record.consistent:
            self.persist(moved)
        elif point.position >= self._must_reach:
            self.persist(replace(moved, epoch=point.epoch, sequence=point.sequence, must_reach=0))
        else:
            self.persist(replace(moved, must_reach=self._must_reach))
        self.effects.append(e.FreeJournal(point.position))
        if isinstance(self.barrier, Freeing):
            self.barrier = None

    # --- after every event --------------------------------------------------------------------------------
    def advance(self, now: float, peer: int | None) -> None:
        """Do the work that has become possible. ``peer``: the connection of the primary, if there is one."""
        match self.barrier:
            case AwaitingAppends() if not self._appends:
                self.barrier = None
            case GoingDirect() as going if not self._appends:
                self._advance_to_direct(going, peer)
        if peer is None and self.drained and self.record.checkpoint == self.tail:
            self.persist(replace(self.record, journal_layout=PLAIN_JOURNAL))  # earlier versions can go on from here
        if self._sync_ticket is None and self._wants_sync(now, peer is not None):
            self._sync_ticket = self.ticket()
            self.effects.append(e.Sync(self._sync_ticket))

    def _advance_to_direct(self, going: GoingDirect, peer: int | None) -> None:
        if not self.record.consistent and self.limit != self.tail:
            self.limit, self.stage_from = self.tail, None
            self._staged.clear()
            self.effects.append(e.Apply(self.limit))
        if self.record.checkpoint != self.tail or not self._writes.none_left:
            return
        self.barrier = None
        if going.connection == peer:
            self._give_up_image()
            self._adopt(going.hello)

    def _adopt(self, hello: f.Hello) -> None:
        """From here on this is a replica of that volume, with some content."""
        size, block = hello.size_bytes, hello.block_bytes
        self.persist(replace(self.record, fresh=False, volume=hello.volume, size_bytes=size, block_bytes=block))

    def _give_up_image(self) -> None:
        """The image is a mixture from here on. The position where it was last consistent stays known, for the primary."""
        self.persist(replace(self.record, consistent=False, must_reach=0, epoch=self.epoch, sequence=self.sequence))

    def _wants_sync(self, now: float, connected: bool) -> bool:
        if isinstance(self.barrier, CommittingDirect) and not self._writes.under_way:
            return True
        if self._writes.wants_sync(now):
            return True
        unchecked = self.applied_to.position - self.record.checkpoint
        if not unchecked:
            return False
        hurry = not connected or isinstance(self.barrier, (Freeing, GoingDirect))
        if hurry and self.applied_to.position >= self.limit:
            return True
        due = self._checkpoint_due is not None and now >= self._checkpoint_due
        return due or unchecked >= self._config.checkpoint_bytes

    def deadline(self) -> float | None:
        """When ``advance`` is due by time alone."""
        if self._sync_ticket is not None:
            return None
        due = (self._checkpoint_due, self._writes.deadline())
        return min((time for time in due if time is not None), default=None)

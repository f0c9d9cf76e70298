"""How the secondary keeps what it is given: journal, target, checkpoint and state file, in an order no crash can hurt.

Invariants:

* Nothing is applied before it is durable in the journal.
* While a resync is staged, the target stays the last consistent image; staged records are applied once their
  COMMIT is durable, or after the state file says that the image is inconsistent.
* The state file says ``consistent: false`` before the first byte is written directly; the journal is applied, synced
  and passed by the checkpoint before that, so that no replay can put old data over new.
* The checkpoint moves only after a sync of the target.
* ``progress`` never falls behind what was acknowledged: what is written directly is counted in the state file before it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Protocol

from pydbt.core.blocks.runs import Blocks, Runs
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.secondary import events as e
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.journal import Entry, entry_bytes
from pydbt.core.secondary.replica import Mark, Recovery, ReplicaRecord
from pydbt.core.units import Geometry


class Barrier(StrEnum):
    """What has to happen before the next frame may be looked at."""

    SETTLING = "the stream before a BEGIN is durable, so that what is compared later is compared behind it"
    TO_DIRECT = "the journal is on the target and passed by the checkpoint"
    COMMIT_DIRECT = "what was written directly is durable and the state file says so"
    COMMIT_STAGED = "the COMMIT is durable in the journal"
    FREEING = "a checkpoint has freed room in the journal"
    JOURNALLED = "the stream so far is durable and given to the applier, so that a comparison sees it"


@dataclass(frozen=True, slots=True)
class Job:
    """Work handed out for a connection: an Append (``staged``: into the stage), a Write or a Compare.

    ``staged_blocks``: the blocks of a Compare that are wanted anyway.
    """

    ticket: int
    entry: Entry | f.Digests
    connection: int
    staged: bool = False
    staged_blocks: Blocks | None = None


class Owner(Protocol):
    """Whom a Keeper tells what became of the work."""

    def batch_ended(self, connection: int, batch: int) -> None: ...
    def committed(self, connection: int, commit: f.Commit) -> None: ...
    def journal_full(self, refused: list[Entry], error: str) -> None: ...
    def failed(self, code: str, message: str) -> None: ...


class Keeper:
    """The half of the secondary's brain that knows disks and not the conversation.

    ``epoch`` and ``sequence`` are those of the consistent image; ``tail`` the end of the durable journal; ``limit`` how
    far it may be applied; ``stage_from`` where an unfinished resync begins in it.
    """

    def __init__(
        self, owner: Owner, config: SecondaryConfig, record: ReplicaRecord, recovery: Recovery, staged: StagedBlocks
    ) -> None:
        self._owner = owner
        self._config = config
        self.record = record
        self.epoch, self.sequence = recovery.epoch, recovery.sequence
        self.tail, self.limit = recovery.tail, recovery.limit
        self.stage_from = recovery.stage_from
        self.mark = Mark(record.checkpoint, record.epoch, record.sequence)
        self.barrier: Barrier | None = None
        self.effects: list[e.Effect] = []
        self.checkpoint_due: float | None = None
        self._must_reach = max(record.must_reach, recovery.committed_at)
        self._staged = staged
        self._ticket = 0
        self._appends: deque[Job] = deque()
        self._writes: deque[Job] = deque()
        self._unsynced: deque[Job] = deque()
        self._unsynced_bytes = 0
        self._commit: tuple[f.Commit, int, int] | None = None  # the commit, its epoch, its connection
        self._adopting: tuple[f.Hello, int] | None = None
        self._sync: int | None = None
        self._resting_until = -inf  # until then little that was written directly is not made durable
        self._journal_halted = False
        if self.limit > self.mark.position:
            self.effects.append(e.Apply(self.limit))

    @property
    def settled(self) -> bool:
        """Is it known where the image stands, with no Append or COMMIT under way?"""
        return not self._appends and self._commit is None

    @property
    def drained(self) -> bool:
        """Is everything that may be applied applied, and durable on the target?"""
        under_way = self._writes or self._unsynced or self.barrier or self._sync
        return self.record.checkpoint >= self.limit and self.settled and not under_way

    @property
    def staged_bytes(self) -> int:
        return 0 if self.stage_from is None else self.tail - self.stage_from

    @property
    def progress(self) -> int:
        """Bytes that ever became durable here: the journal's end, as if nothing had been written past it.

        A replica whose number is lower than it once was lacks something that it had.
        """
        return self.tail + self.record.direct_bytes

    def ticket(self) -> int:
        """A new number for work."""
        self._ticket += 1
        return self._ticket

    def staged_units_of(self, units: Runs, unit_bytes: int) -> Blocks:
        """The units whose newest content is not on the target."""
        return self._staged.of(units, unit_bytes)

    # --- work in ------------------------------------------------------------------------------------------
    def append(self, entry: Entry, connection: int, *, geometry: Geometry | None = None) -> None:
        """Have an entry journalled; with ``geometry`` it belongs to the stage."""
        if self._journal_halted:
            self._journal_halted = False
            self.persist(incarnation=self.record.incarnation + 1)
            self.effects.append(e.Resume(self.record.incarnation))
        staged = geometry is not None
        if staged and isinstance(entry, (f.Blocks, f.Stream)):
            self._staged.add(entry.extents, geometry)
        if isinstance(entry, tuple):
            self._commit, self.barrier = (*entry, connection), Barrier.COMMIT_STAGED
        job = Job(self.ticket(), entry, connection, staged)
        self._appends.append(job)
        unlimited = staged or self.record.checkpoint < self._must_reach
        self.effects.append(e.Append(job.ticket, entry, unlimited))

    def write(self, entry: Entry, connection: int) -> None:
        """Have an entry written directly, after ``go_direct``."""
        if isinstance(entry, tuple):
            self._commit, self.barrier = (*entry, connection), Barrier.COMMIT_DIRECT
        elif isinstance(entry, (f.Blocks, f.Stream)):
            job = Job(self.ticket(), entry, connection)
            self._writes.append(job)
            self.effects.append(e.Write(job.ticket, entry))

    def go_direct(self, hello: f.Hello, connection: int) -> None:
        """Bring everything to the target, so that entries may be written past the journal from then on."""
        self._adopting, self.barrier = (hello, connection), Barrier.TO_DIRECT
        if self.stage_from is not None or any(job.staged for job in self._appends):
            # What is staged goes onto the target without its COMMIT: say so first.
            self._give_up_image()

    def settle(self) -> None:
        """Nothing more until every Append is durable."""
        self.barrier = Barrier.SETTLING

    def wait_for_room(self) -> None:
        """The journal was full: nothing more until a checkpoint has freed some of it."""
        self.barrier = Barrier.FREEING

    @property
    def streaming(self) -> bool:
        """Are there updates of the image itself (not of a stage) that the applier was not given yet?"""
        return any(not job.staged for job in self._appends)

    def wait_for_stream(self) -> None:
        """Nothing more until every update so far is on its way to the target, ahead of what comes next."""
        self.barrier = Barrier.JOURNALLED

    def leave(self) -> None:
        """The connection is gone: nobody waits for room or to compare any more. Everything else ends by itself."""
        if self.barrier in (Barrier.FREEING, Barrier.SETTLING, Barrier.JOURNALLED):
            self.barrier = None

    @property
    def can_free(self) -> bool:
        return self.tail > self.record.checkpoint

    def persist(self, **changes: object) -> None:
        """Change the state file, before any effect that comes later."""
        record = replace(self.record, **changes)
        if record != self.record:
            self.record = record
            self.effects.append(e.Persist(record))

    # --- work done ----------------------------------------------------------------------------------------
    def journal_durable(self, event: e.JournalDurable) -> None:
        limit = self.limit
        for ticket, end in zip(event.tickets, event.ends, strict=True):
            job = self._appends.popleft()
            assert job.ticket == ticket, "the journal works in order"
            self._appended(job, end)
        if self.limit != limit:
            self.effects.append(e.Apply(self.limit))
        if self.barrier is Barrier.JOURNALLED and not self.streaming:
            self.barrier = None

    def _appended(self, job: Job, end: int) -> None:
        start, self.tail = self.tail, end
        match job.entry:
            case f.Begin():
                self.stage_from = start if self.stage_from is None else self.stage_from
            case f.Blocks(batch=batch):
                self._owner.batch_ended(job.connection, batch)
            case f.Stream(last=last) if not job.staged:
                self.sequence, self.limit = last, end
            case (f.Commit() as commit, int() as epoch):
                self.epoch, self.sequence, self.limit = epoch, commit.sequence, end
                self.stage_from, self._must_reach = None, end
                self._staged.clear()
                self._committed()

    def _committed(self) -> None:
        """The image is consistent at the COMMIT's sequence, and durably so."""
        assert self._commit is not None
        (commit, _, connection), self._commit, self.barrier = self._commit, None, None
        self.effects.append(e.Log("info", f"consistent at sequence {self.sequence}"))
        self._owner.committed(connection, commit)

    def journal_refused(self, event: e.JournalRefused) -> None:
        """What comes before the refused Append has been reported durable; the rest comes back."""
        assert not self._appends or self._appends[0].ticket >= event.ticket, "the journal reports in order"
        refused, self._appends = [job.entry for job in self._appends], deque()
        self.tail, self._journal_halted = event.position, True
        if self.barrier is Barrier.COMMIT_STAGED:
            self._commit = self.barrier = None
        if self.barrier is Barrier.JOURNALLED:
            self.barrier = None  # what came back goes in again ahead of the comparison
        if event.full:
            self._owner.journal_full(refused, event.error)
        else:
            self._owner.failed("journal-failed", f"the secondary cannot write its journal: {event.error}")

    def applied(self, mark: Mark, now: float) -> None:
        self.mark = mark
        if self.checkpoint_due is None:
            self.checkpoint_due = now + self._config.checkpoint_seconds

    def written(self, ticket: int) -> None:
        while self._writes and self._writes[0].ticket <= ticket:
            self._unsynced.append(self._writes.popleft())
            self._unsynced_bytes += self._unsynced[-1].entry.payload_bytes

    def synced(self, ticket: int, mark: Mark, now: float) -> None:
        self._sync, self._unsynced_bytes = None, 0
        self._resting_until = now + self._config.sync_seconds
        behind = self.mark.position > mark.position
        self.checkpoint_due = now + self._config.checkpoint_seconds if behind else None
        self._made_durable(ticket)
        if mark.position > self.record.checkpoint:
            self._checkpoint(mark)
        if self.barrier is Barrier.COMMIT_DIRECT and not self._writes and not self._unsynced:
            commit, self.epoch, _ = self._commit
            self.sequence = commit.sequence
            self.mark = Mark(self.tail, self.epoch, self.sequence)
            self.effects.append(e.SetMark(self.mark))
            self.persist(consistent=True, epoch=self.epoch, sequence=self.sequence)
            self._committed()

    def compared(self, ticket: int) -> bool:
        """A Compare has made durable what was written before it; whether there was anything."""
        return self._made_durable(ticket)

    def _made_durable(self, ticket: int) -> bool:
        """What was written directly before this ticket is on the disk: count it, then let it be acknowledged."""
        ended: list[Job] = []
        while self._unsynced and self._unsynced[0].ticket < ticket:
            ended.append(self._unsynced.popleft())
        self.persist(direct_bytes=self.record.direct_bytes + sum(entry_bytes(job.entry) for job in ended))
        for job in ended:
            if isinstance(job.entry, f.Blocks):
                self._owner.batch_ended(job.connection, job.entry.batch)
        return bool(ended)

    def _checkpoint(self, mark: Mark) -> None:
        if not self.record.consistent:
            self.persist(checkpoint=mark.position)
        elif mark.position >= self._must_reach:
            self.persist(checkpoint=mark.position, epoch=mark.epoch, sequence=mark.sequence, must_reach=0)
        else:
            self.persist(checkpoint=mark.position, must_reach=self._must_reach)
        self.effects.append(e.FreeJournal(mark.position))
        if self.barrier is Barrier.FREEING:
            self.barrier = None

    # --- after every event --------------------------------------------------------------------------------
    def advance(self, now: float, peer: int | None) -> None:
        """Do what has become possible."""
        if self.barrier is Barrier.SETTLING and not self._appends:
            self.barrier = None
        if self.barrier is Barrier.TO_DIRECT and not self._appends:
            self._advance_to_direct(peer)
        if self._sync is None and self._sync_wanted(now, peer is not None):
            self._sync = self.ticket()
            self.effects.append(e.Sync(self._sync))

    def _advance_to_direct(self, peer: int | None) -> None:
        if not self.record.consistent and self.limit != self.tail:
            self.limit, self.stage_from = self.tail, None
            self._staged.clear()
            self.effects.append(e.Apply(self.limit))
        if self.record.checkpoint != self.tail or self._writes or self._unsynced:
            return
        (hello, connection), self._adopting, self.barrier = self._adopting, None, None
        if connection == peer:
            self._give_up_image()
            self.persist(
                fresh=False,
                volume=hello.volume,
                size_bytes=hello.size_bytes,
                block_bytes=hello.block_bytes,
            )

    def _give_up_image(self) -> None:
        """The image is a mixture from here on; where it was last consistent stays known, to tell the primary."""
        self.persist(consistent=False, must_reach=0, epoch=self.epoch, sequence=self.sequence)

    def _sync_wanted(self, now: float, connected: bool) -> bool:
        if self.barrier is Barrier.COMMIT_DIRECT and not self._writes:
            return True
        much = self._config.sync_bytes if self._writes else self._config.sync_bytes // 4
        rested = not self._writes and now >= self._resting_until
        if self._unsynced and (rested or self._unsynced_bytes >= much):
            return True
        unchecked = self.mark.position - self.record.checkpoint
        if not unchecked:
            return False
        hurry = not connected or self.barrier in (Barrier.FREEING, Barrier.TO_DIRECT)
        if hurry and self.mark.position >= self.limit:
            return True
        due = self.checkpoint_due is not None and now >= self.checkpoint_due
        return due or unchecked >= self._config.checkpoint_bytes

    def deadline(self) -> float | None:
        if self._sync is not None:
            return None
        due = self._resting_until if self._unsynced and not self._writes else None
        return min((time for time in (self.checkpoint_due, due) if time is not None), default=None)

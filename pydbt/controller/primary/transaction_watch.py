"""Follows the log of the volume's file system in what is captured, so that transactions have names.

It never keeps replication from anything: a log that is not understood, and a fault of the parser, are words in the status.
Where the log is, is read from the device in a thread: at the start, and when what tells it was written.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from pydbt.controller.primary.job import Job
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import PydbtError
from pydbt.core.tracking.capture_record import Records
from pydbt.core.transactions.asked_transaction import AskedTransaction
from pydbt.core.transactions.captured_blocks import Payload
from pydbt.core.transactions.ext4_volume import Read
from pydbt.core.transactions.followed_log import NO_FOOTING, EndedTransaction, FollowedLog, ReadTransaction
from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.transactions.likely_changes import likely_changes
from pydbt.core.transactions.log_place import LogPlace, find_log
from pydbt.core.transactions.on_disk import read_newest
from pydbt.core.transactions.transaction import JournalTransaction, NamedParts, RunsOfTransaction, TransactionState
from pydbt.core.units import Geometry
from pydbt.device.block import DirectReader, aligned_buffer

_log = logging.getLogger("pydbt")

LOOK_AGAIN_S = (0.0, 2.0, 10.0)
"""A write that was captured may not be on the disk yet when the device is read."""
_LOOK_PAUSE_S = 0.1
UNFOLLOWED_LOOK_S = 30.0
"""Where nothing is followed: a file system may have come without a write that tells it, or the device may be readable again."""
READ_PAUSE_S = 10.0
"""Between two reads of the whole log. Where it is written all the time the next commit is there before."""
KEPT = 512
"""The last transactions, for people."""
KEPT_RUNS = 64
_MAX_NAMED = 256  # of one that names more only the first are kept: of 512 transactions 5 MiB at most
_RATE_WINDOW_S = 5.0
_NOT_READ = "the device has not been read yet"


@dataclass(frozen=True, slots=True)
class KnownTransaction:
    """One that ended. ``length_bytes`` of the log are what it is; ``named``: what it names, or the first of that."""

    ordinal: int
    name: str
    state: TransactionState
    committed_ns: int | None
    submitted_at: float
    length_bytes: int
    changed_count: int
    named: NamedParts
    reason: str

    @property
    def changed(self) -> list[tuple[int, int]]:
        """The first runs of the volume that it names: offset and length in bytes."""
        return [(offset, length) for offset, length in self.named.together()[:KEPT_RUNS].tolist()]


class TransactionWatch:
    """Called from the loop's thread alone. ``problem``: why transactions are not told, as the end of a sentence."""

    def __init__(self, read: Read, size_bytes: int, *, unfollowed: str = "") -> None:
        """``unfollowed``: why there is nothing to follow in this run, or empty."""
        self._read, self._size_bytes = read, size_bytes
        self._followed: FollowedLog | None = None
        self._unfollowed = unfollowed
        self._problem = _NOT_READ
        self._faulty = False
        self._renewed = False
        self._begun = (0, 0)  # of what was followed: from which ordinal on, and how many logs it has seen begin
        self._job: Job | None = None
        self._looks: deque[float] = deque()
        self._looked_at = -inf
        if not unfollowed:
            self._look_soon(time.monotonic())
        self._newest = _NewestOnDisk(read, size_bytes)
        self._next_ordinal = 1
        self._recent: deque[KnownTransaction] = deque(maxlen=KEPT)
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._committed = 0

    @property
    def file_system(self) -> str | None:
        """``ext4`` or ``xfs``; None where neither was found."""
        return self._followed.place.file_system if self._followed is not None else None

    @property
    def problem(self) -> str:
        if self._unfollowed:
            return self._unfollowed
        return self._followed.problem if self._followed is not None else self._problem

    # --- events -------------------------------------------------------------------------------------------
    def captured(self, records: Records, payload: Payload, newly_lost: int) -> tuple[EndedTransaction, ...]:
        """A batch from the ring, in its order, before its data is released: the transactions that ended in it."""
        self.advance(time.monotonic())
        followed = self._followed
        if followed is None:
            return ()
        try:
            if newly_lost:
                self._note((), followed.lost("records of writes were lost"))
            ended = followed.captured(records, payload)
        except Exception as error:  # a fault of ours must not keep replication from anything
            _log.exception("the file system's log is not followed any more")
            self._unfollow(f"a fault of this program: {error!r}")
            self._faulty = True
            self._looks.clear()
            return ()
        self._next_ordinal = followed.next_ordinal
        if followed.moved:
            self._look_soon(time.monotonic())
        self._note(tuple(ended), [])
        if (followed.renewed_from, followed.logs_begun) != self._begun:
            self._renewed, self._begun = True, (followed.renewed_from, followed.logs_begun)
        return tuple(one for one in ended if one.ordinal >= followed.renewed_from)

    def take_renewed(self) -> bool:
        """Once, behind ``captured``: whether those that were told before that batch are of another file system, or its log."""
        renewed, self._renewed = self._renewed, False
        return renewed

    # --- the log on the disk ------------------------------------------------------------------------------
    def read_log(self, now: float, then: Callable[[], None]) -> None:
        """Begin to read the newest transaction of the log in a thread, which calls ``then`` at its end; unless that goes on, or
        was done a moment ago, or there is no log to follow."""
        if self._followed is not None and (not self.problem or self.problem == NO_FOOTING):
            self._newest.begin(now, self._followed, then)

    @property
    def has_read(self) -> bool:
        """Whether ``take_read`` has something to do."""
        return self._newest.has_ended

    def take_read(self, producer: Callable[[], int], drained: int) -> ReadTransaction | None:
        """The newest transaction of the log, once, when every write that the read may have seen was drained from the ring."""
        found = self._newest.take(producer, drained)
        followed = self._followed
        if found is None or followed is None or not self._newest.was_of(followed):
            return None
        now = time.monotonic()
        submitted_at = None
        if found.committed_ns is not None:  # never later than the read, whatever the clocks tell
            age_s = (time.time_ns() - found.committed_ns) / 1_000_000_000
            submitted_at = min(now - max(0.0, age_s), self._newest.begun_at)
        earlier = [one.ordinal for one in self._recent if one.ordinal >= followed.renewed_from and _reaches(found, one)]
        return ReadTransaction(found, followed.place.extents, submitted_at, max(earlier, default=0))

    def likely_changes(self, geometry: Geometry) -> Runs:
        """Where this volume differs from a replica most likely, by its log on the disk. From any thread: it reads the device."""
        try:
            return likely_changes(self._read, geometry)
        except (NotUnderstood, PydbtError, OSError):
            return Runs.none()

    def _unfollow(self, problem: str) -> None:
        self._renewed |= self._followed is not None
        self._followed, self._problem = None, problem

    def _look_soon(self, now: float) -> None:
        if self._job is None and now >= self._looked_at + _LOOK_PAUSE_S:
            self._looks = deque(now + later for later in LOOK_AGAIN_S)

    def advance(self, now: float) -> None:
        """Take what the last look has found, and begin one that is due."""
        if self._job is not None:
            if not self._job.ended.is_set():
                return
            job, self._job = self._job, None
            self._take(job)
        unfollowed = self._followed is None and not self._unfollowed and not self._faulty
        if unfollowed and not self._looks and now >= self._looked_at + UNFOLLOWED_LOOK_S:
            self._looks.append(now)
        if self._looks and now >= self._looks[0]:
            self._looks.popleft()
            self._looked_at = now
            self._job = Job("log place", self._look)

    def _look(self) -> LogPlace | str:
        try:
            return find_log(self._read, self._size_bytes)
        except NotUnderstood as why:
            return str(why)

    def _take(self, job: Job) -> None:
        found = job.result
        if not isinstance(found, LogPlace):
            self._unfollow(found or f"the device cannot be read: {job.error}")
            return
        followed = self._followed
        if followed is not None and followed.place == found and not followed.is_behind(found):
            followed.moved = False
            return
        try:
            self._followed = FollowedLog(found, self._next_ordinal, followed)
            self._begun = self._begun if self._followed.goes_on else (0, 0)
        except NotUnderstood as why:
            self._unfollow(str(why))

    # --- for people ---------------------------------------------------------------------------------------
    def _note(self, ended: tuple[EndedTransaction, ...], lost: list[JournalTransaction]) -> None:
        if not ended and not lost:
            return
        now = time.monotonic()
        for one in ended[-KEPT:]:
            self._recent.append(_known(one.transaction, one.ordinal, now, sum(length for _, length in one.runs)))
        self._committed += sum(one.transaction.state is TransactionState.COMMITTED for one in ended)
        for transaction in lost:
            self._recent.append(_known(transaction, self._next_ordinal, now, 0))
            self._next_ordinal += 1
            if self._followed is not None:
                self._followed.next_ordinal = self._next_ordinal

    def recent(self, after: int = 0) -> list[KnownTransaction]:
        """Those with a higher ordinal, as far as they are kept, in their order."""
        return [one for one in self._recent if one.ordinal > after]

    @property
    def oldest_kept(self) -> int:
        """The ordinal of the oldest one that is kept, or of the next one: those before it are not told any more."""
        return self._recent[0].ordinal if self._recent else self._next_ordinal

    def per_second(self, now: float) -> float:
        """Commits per second over the last seconds."""
        if now - self._samples[-1][0] >= 0.5:
            self._samples.append((now, self._committed))
            while now - self._samples[0][0] > _RATE_WINDOW_S and len(self._samples) > 2:
                self._samples.popleft()
        then, count = self._samples[0]
        return (self._committed - count) / max(now - then, 0.5)


class _NewestOnDisk:
    """The newest transaction of the log on the disk, read in a thread. ``begun_at``: when, by the monotonic clock."""

    def __init__(self, read: Read, size_bytes: int) -> None:
        self._read, self._size_bytes = read, size_bytes
        self._job: Job | None = None
        self._of: tuple[FollowedLog, int] | None = None  # and how many logs it had seen begin
        self._until: int | None = None
        self.begun_at = -inf

    def begin(self, now: float, followed: FollowedLog, then: Callable[[], None]) -> None:
        if self._job is None and now >= self.begun_at + READ_PAUSE_S:
            self.begun_at, self._of, self._until = now, (followed, followed.logs_begun), None
            self._job = Job("newest transaction", self._find, then)

    def was_of(self, followed: FollowedLog) -> bool:
        """Whether it was read of this log, and no other one has begun in its place since."""
        return self._of is not None and self._of[0] is followed and self._of[1] == followed.logs_begun

    def _find(self) -> JournalTransaction | None:
        try:
            return read_newest(self._read, self._size_bytes)
        except NotUnderstood:
            return None

    @property
    def has_ended(self) -> bool:
        return self._job is not None and self._job.ended.is_set()

    def take(self, producer: Callable[[], int], drained: int) -> JournalTransaction | None:
        job = self._job
        if job is None or not job.ended.is_set():
            return None
        if self._until is None:
            self._until = producer()
        if drained < self._until:
            return None
        self._job = None
        found: JournalTransaction | None = job.result
        return found


def _reaches(found: JournalTransaction, one: KnownTransaction) -> bool:
    """Whether a transaction of the same log that was told before is not later than the one that was found."""
    try:
        return AskedTransaction.parse(one.name).reached_by(found.name)
    except ValueError:
        return False


def followed_transactions(reader: DirectReader, size_bytes: int, *, with_data: bool) -> TransactionWatch:
    """Of a volume that is replicated. ``with_data``: the data of writes is captured."""

    def read(offset_bytes: int, length_bytes: int) -> bytes:
        into = aligned_buffer(length_bytes)
        reader.read_extent(offset_bytes, length_bytes, into)
        return bytes(into)

    return TransactionWatch(
        read, size_bytes, unfollowed="" if with_data else "only the addresses of writes are captured"
    )


def _known(transaction: JournalTransaction, ordinal: int, now: float, length_bytes: int) -> KnownTransaction:
    named: NamedParts = transaction.named_parts.kept()
    count = named.count
    if count > _MAX_NAMED:
        first = RunsOfTransaction()
        first.add_runs(named.together()[:KEPT_RUNS])
        named = first
    return KnownTransaction(
        ordinal,
        transaction.name,
        transaction.state,
        transaction.committed_ns,
        now,
        length_bytes,
        count,
        named,
        transaction.reason,
    )

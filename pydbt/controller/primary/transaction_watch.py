"""Follows the log of the volume's file system in what is captured, so that transactions have names.

It never keeps replication from anything: a log that is not understood, and a fault of the parser, are words in the status.
Where the log is, is read from the device in a thread: at the start, and when what tells it was written.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass
from math import inf

from pydbt.controller.primary.job import Job
from pydbt.core.tracking.capture_record import Records
from pydbt.core.transactions.ext4_volume import Read
from pydbt.core.transactions.followed_log import EndedTransaction, FollowedLog, Payload
from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.transactions.log_place import LogPlace, find_log
from pydbt.core.transactions.transaction import JournalTransaction, RunsOfTransaction, TransactionState
from pydbt.device.block import DirectReader, aligned_buffer

_log = logging.getLogger("pydbt")

LOOK_AGAIN_S = (0.0, 2.0, 10.0)
"""A write that was captured may not be on the disk yet when the device is read."""
_LOOK_PAUSE_S = 0.1
UNFOLLOWED_LOOK_S = 30.0
"""Where nothing is followed: a file system may have come without a write that tells it, or the device may be readable again."""
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
    named: RunsOfTransaction
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
        self._renewed_from = 0
        self._job: Job | None = None
        self._looks: deque[float] = deque()
        self._looked_at = -inf
        if not unfollowed:
            self._look_soon(time.monotonic())
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
        if followed.renewed_from > self._renewed_from:
            self._renewed, self._renewed_from = True, followed.renewed_from
        return tuple(one for one in ended if one.ordinal >= followed.renewed_from)

    def take_renewed(self) -> bool:
        """Once, behind ``captured``: whether those that were told before that batch are of another file system, or its log."""
        renewed, self._renewed = self._renewed, False
        return renewed

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
        except NotUnderstood as why:
            self._unfollow(str(why))

    # --- for people ---------------------------------------------------------------------------------------
    def _note(self, ended: tuple[EndedTransaction, ...], lost: list[JournalTransaction]) -> None:
        if not ended and not lost:
            return
        now = time.monotonic()
        for one in ended:
            self._recent.append(_known(one.transaction, one.ordinal, now, sum(length for _, length in one.runs)))
            self._committed += one.transaction.state is TransactionState.COMMITTED
        for transaction in lost:
            self._recent.append(_known(transaction, self._next_ordinal, now, 0))
            self._next_ordinal += 1
            if self._followed is not None:
                self._followed.next_ordinal = self._next_ordinal

    def recent(self, after: int = 0) -> list[KnownTransaction]:
        """Those with a higher ordinal, as far as they are kept, in their order."""
        return [one for one in self._recent if one.ordinal > after]

    def per_second(self, now: float) -> float:
        """Commits per second over the last seconds."""
        if now - self._samples[-1][0] >= 0.5:
            self._samples.append((now, self._committed))
            while now - self._samples[0][0] > _RATE_WINDOW_S and len(self._samples) > 2:
                self._samples.popleft()
        then, count = self._samples[0]
        return (self._committed - count) / max(now - then, 0.5)


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
    named = transaction.named_parts
    count = named.count
    if count > _MAX_NAMED:
        named = RunsOfTransaction()
        for run in transaction.named[:KEPT_RUNS].tolist():
            named.add_run(*run)
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

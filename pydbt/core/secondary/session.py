"""The conversation with one primary, from its WELCOME to its end: which frames may come now, and which answers are due.

A session knows no disk. The brain asks the session whether a frame may come, hands the content to the keeper, and reports the
result to the session. After a ProtocolError the conversation ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from pydbt.core.blocks.runs import BlockNumbers
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.completed import Completed
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.protocol.heartbeat import FRESH_S, OLD_HEARTBEAT_S, SILENT_S
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary.acknowledger import AckFilter, BatchOrder
from pydbt.core.secondary.journal import JournalEntry
from pydbt.core.units import SECTOR_BYTES, Geometry

_ANSWERS_MAX = 1024
"""Behind this many answers that are under way a heartbeat is old: they are some seconds apart, or a fraction of one in tests."""


class ProtocolError(Exception):
    """The primary sent a legal frame where it may not."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Neither BEGIN nor STREAM was received yet; or the last COMMIT is one that no stream follows."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """Updates arrive in order, and the image follows them."""


@dataclass(frozen=True, slots=True)
class Staging:
    """A resync that is kept in the journal, beside the last consistent image, until its COMMIT."""

    begin: f.Begin


@dataclass(frozen=True, slots=True)
class Direct:
    """A resync that is written to the target as it arrives: the image is inconsistent until its COMMIT."""

    begin: f.Begin


SessionState = Ready | Streaming | Staging | Direct


@dataclass(frozen=True, slots=True)
class Deferred:
    """A frame that arrived while something had to end first, and was not looked at."""

    frame: f.Frame


@dataclass(frozen=True, slots=True)
class Returned:
    """An entry that was accepted, and came back from the journal for want of room."""

    entry: JournalEntry


@dataclass(frozen=True, slots=True)
class Comparison:
    """A DIGESTS frame that the applier compares; ``staged_units`` are wanted whatever it finds."""

    ticket: int
    frame: f.Digests
    staged_units: BlockNumbers


class Session:
    """One connected primary. ``committed`` is the last resync whose COMMIT is durable, 0 for none."""

    def __init__(self, connection: int, hello: f.Hello, sequence: int, digest_key: bytes, now: float) -> None:
        """``sequence``: where the image stands, behind which the stream may continue.

        ``digest_key`` is used only with a primary that asks for it.
        """
        self.connection = connection
        self.heard_at = now
        # (time at which it was made, position) of heartbeats. Replaced and never changed: a status is made by another thread.
        self._heartbeats: tuple[tuple[float, int], ...] = ()
        # (token, time) of answers that the primary may have had last; 0 is the WELCOME.
        self._answers: deque[tuple[int, float]] = deque([(0, now)], maxlen=_ANSWERS_MAX)
        self.hello = hello
        self.digest_key = digest_key if f.KEYED_DIGESTS in hello.features else None
        self.digest = UnitDigest(digest_key) if self.digest_key is not None else None
        self.generations = hello.generations
        self.committed = 0
        self.small_blocks = Geometry(hello.size_bytes, hello.block_bytes).compared
        self.state: SessionState = Ready()
        # The last sequence received; None behind a BEGIN, where the stream may continue anywhere.
        self._received: int | None = sequence
        self._waiting: deque[Deferred | Returned] = deque()
        self._comparisons: deque[Comparison] = deque()
        self._batches = BatchOrder()
        self._acks = AckFilter()

    # --- frames that have to wait -------------------------------------------------------------------------
    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def defer(self, frame: f.Frame) -> None:
        """Behind everything that waits already."""
        self._waiting.append(Deferred(frame))

    def defer_first(self, frame: f.Frame) -> None:
        """Ahead of everything else: it was its turn, and something has to end before it."""
        self._waiting.appendleft(Deferred(frame))

    def take_back(self, entries: list[JournalEntry]) -> None:
        """Accepted entries, in their order, ahead of everything else."""
        self._waiting.extendleft(Returned(entry) for entry in reversed(entries))

    def next_waiting(self) -> Deferred | Returned:
        return self._waiting.popleft()

    # --- frames -------------------------------------------------------------------------------------------
    def accept_in_order(self, frame: NamedMark | Completed) -> bool:
        """Whether a part of the stream that changes nothing is at its place in it, behind the update before it."""
        if not isinstance(self.state, Streaming) or self._received is None:
            raise ProtocolError("a mark or a transaction came outside of the stream")
        before = frame.after if isinstance(frame, Completed) else frame.sequence - 1
        if before < self._received:
            return False
        if before > self._received:
            raise ProtocolError(f"a frame for the place behind sequence {before} came behind {self._received}")
        if isinstance(frame, NamedMark):
            self._received = frame.sequence
        return True

    def accept_stream(self, frame: f.Stream, *, continues: bool) -> bool:
        """Whether it brings anything new. ``continues``: a stream may follow the image without a resync."""
        self._check_bounds(frame)
        if isinstance(self.state, Ready):
            if not continues:
                raise ProtocolError("a STREAM frame came before a BEGIN, though the replica is not where it continues")
            self.state = Streaming()
        if self._received is not None:
            if frame.last <= self._received:
                return False
            if frame.first > self._received + 1:
                raise ProtocolError(f"sequence {frame.first} came after {self._received}")
        self._received = frame.last
        return True

    def accept_blocks(self, frame: f.Blocks) -> None:
        self._in_resync("BLOCKS", frame.batch)
        self._check_bounds(frame)

    def accept_digests(self, frame: f.Digests) -> Geometry:
        """The units of the comparison. In a stream DIGESTS may come too."""
        if not isinstance(self.state, Streaming):
            self._in_resync("DIGESTS", frame.batch)
        elif not self._batches.begin(frame.batch):
            raise ProtocolError(f"the number {frame.batch} of a DIGESTS frame is not above those before it")
        if frame.unit_bytes < self.small_blocks.block_bytes:
            raise ProtocolError("a DIGESTS frame has units smaller than a block")
        units = Geometry(self.hello.size_bytes, frame.unit_bytes)
        if int(frame.units.ends().max(initial=0)) > units.block_count:
            raise ProtocolError("a DIGESTS frame names blocks past the end of the volume")
        return units

    def accept_commit(self, frame: f.Commit) -> int:
        """The epoch of its BEGIN."""
        if not isinstance(self.state, (Staging, Direct)) or frame.resync != self.state.begin.resync:
            raise ProtocolError("a COMMIT frame belongs to no BEGIN")
        if self._received is not None and frame.sequence != self._received:
            raise ProtocolError(f"a COMMIT at sequence {frame.sequence} after a stream up to {self._received}")
        if self._comparisons:
            raise ProtocolError("a COMMIT came before the answer to a DIGESTS frame")
        return self.state.begin.epoch

    def _in_resync(self, name: str, batch: int) -> None:
        if not isinstance(self.state, (Staging, Direct)):
            raise ProtocolError(f"a {name} frame came outside of a resync")
        if not self._batches.begin(batch):
            raise ProtocolError(f"the number {batch} of a {name} frame is not above those before it")

    def _check_bounds(self, frame: f.Stream | f.Blocks) -> None:
        if frame.extents.end_sector > self.hello.size_bytes // SECTOR_BYTES:
            raise ProtocolError("data past the end of the volume")

    # --- the course of a resync ---------------------------------------------------------------------------
    def begin(self, state: Staging | Direct) -> None:
        self.state, self._received = state, None

    def commit_durable(self, commit: f.Commit) -> None:
        """The stream follows; or the next BEGIN, where the primary said that no stream does."""
        self.committed, self._received = commit.resync, commit.sequence
        self.state = Ready() if self.by_snapshots else Streaming()

    @property
    def by_snapshots(self) -> bool:
        """Whether the resynchronization under way is a snapshot: after its COMMIT no stream follows."""
        match self.state:
            case Staging(begin) | Direct(begin):
                return bool(begin.flags & f.BeginFlag.NO_STREAM)
        return False

    # --- heartbeats ---------------------------------------------------------------------------------------
    def beat(self, ping: f.Ping, now: float) -> None:
        """The primary told its position, and is answered. Everything that it had sent before was received."""
        made_at = self._made_at(ping, now)
        self._answers.append((ping.token, now))
        kept = [(at, told) for at, told in self._heartbeats if now - at <= FRESH_S]
        self._heartbeats = (*kept, (made_at, ping.sequence))

    def _made_at(self, ping: f.Ping, now: float) -> float:
        """The earliest moment at which it can have been made: it may have waited behind the stream for minutes.

        That is the moment of the answer that the primary had last, and the time that it counted since, by its own clock: only
        the way of that answer is left out. Of an earlier version nothing but the arrival is known.
        """
        if ping.answered is None:
            return now
        while len(self._answers) > 1 and self._answers[0][0] < ping.answered:
            self._answers.popleft()
        token, at = self._answers[0]
        return min(at + ping.since_ms / 1000, now) if token == ping.answered else -inf

    @property
    def _tells_position(self) -> bool:
        return f.HEARTBEAT in self.hello.features

    def silence_s(self, now: float) -> float:
        """How long the primary has not been heard."""
        return max(now - self.heard_at, 0.0)

    def is_there(self, now: float) -> bool:
        """Whether the primary was heard a moment ago."""
        return self.silence_s(now) <= (SILENT_S if self._tells_position else OLD_HEARTBEAT_S + FRESH_S)

    def is_fresh(self, sequence: int, now: float) -> bool:
        """Whether ``sequence``, which is durable here, was all that the primary had a moment ago.

        A primary that does not tell its position is only heard; then that counts.
        """
        if not self._tells_position:
            return self.is_there(now)
        return any(now - at <= FRESH_S and told <= sequence for at, told in self._heartbeats)

    # --- batches and answers ------------------------------------------------------------------------------
    def compare(self, comparison: Comparison) -> None:
        """It was handed to the applier."""
        self._comparisons.append(comparison)

    def compared(self, ticket: int) -> Comparison | None:
        """The comparison of a ticket, which is over; None for one of an earlier session."""
        if not self._comparisons or ticket < self._comparisons[0].ticket:
            return None
        comparison = self._comparisons.popleft()
        assert comparison.ticket == ticket, "the applier works in order"
        return comparison

    def batch_ended(self, batch: int) -> None:
        """BLOCKS are durable, or DIGESTS answered."""
        self._batches.end(batch)

    @property
    def ended_batches(self) -> int:
        """The highest number up to which every batch has ended."""
        return self._batches.through

    @property
    def asks_progress(self) -> bool:
        return f.PROGRESS in self.hello.features

    @property
    def asks_unwritable(self) -> bool:
        return f.UNWRITABLE in self.hello.features

    def is_news(self, ack: f.Ack) -> bool:
        """Whether the primary waits for something in it. Before a BEGIN or STREAM it waits for nothing."""
        return (not isinstance(self.state, Ready) or bool(self.committed)) and self._acks.news(ack)

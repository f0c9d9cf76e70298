"""Verification in normal mode: both sides are read and compared by digests, while writes go on.

A difference in free space that the secondary was never given (``left_out``) does not count: it is filled in, and counted apart.

As in ``settler``, a comparison counts only for blocks that nothing touched while they were read, and the secondary
compares behind every update that was captured by the end of the read: then a difference is one. It is looked at a
second time all the same before it is called so. Repair is the settler's: it reads, compares and sends once more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks import compared
from pydbt.core.blocks.runs import Integers, Runs, among, distinct
from pydbt.core.primary.events import BlocksRead, DropReading, ReadBlocks, SendDigests, VerifyEnded
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.rate_limit import RateLimit
from pydbt.core.primary.state import State
from pydbt.core.primary.unread import failed_as_a_whole, set_apart
from pydbt.core.protocol.frames import Want
from pydbt.core.tracking.unsettled import FREE_SPACE, SETTLE_DELAY_S
from pydbt.core.units import MIB, Geometry, format_bytes

# Large, because a reading costs both loops the same whatever it holds. With a rate limit a sixteenth of a second's
# worth, but not less than a disk reads well, so that the limit is kept evenly.
COMPARISON_BYTES = 4 * MIB
LEAST_COMPARISON_BYTES = 1 * MIB
COMPARISONS_PER_S = 16
# On their way at once: enough for both disks to be busy.
COMPARISON_WINDOW_BYTES = 24 * MIB
# Blocks to be looked at again wait for this long, and no more than this many of them are kept waiting before the rest.
AGAIN_DELAY_S = 0.5
AGAIN_LIMIT_BLOCKS = 65536
# Blocks that could not be read wait for this long.
READ_AGAIN_S = 5.0
# Free space on its way to the secondary; more of it would only wait.
FILLING_BLOCKS = 4096
# Of this many differing runs the places are kept for the report.
SHOWN_RUNS = 16
NO_KEY = "the secondary's version compares blocks by digests without a key, which prove nothing: update it"


@dataclass(slots=True)
class _Comparison:
    """Runs being read and compared. ``doubtful``: written or in flight meanwhile; ``suspected``: differed once before."""

    blocks: Integers
    doubtful: npt.NDArray[np.bool_]
    suspected: bool
    position: int | None = None
    behind: int | None = None
    batch: int | None = None  # number of the DIGESTS frame, once it is sent

    def leave_out(self, unreadable: Runs) -> None:
        """These could not be read."""
        kept = ~unreadable.mask(self.blocks)
        self.blocks, self.doubtful = self.blocks[kept], self.doubtful[kept]


@dataclass(slots=True)
class Verification:
    """One verification: what was asked, how far it is, what it found. ``runs`` are (first block, blocks) left to look at.

    ``answers``: numbers of the taints that its end answers.
    """

    repair: bool
    total_blocks: int
    runs: deque[tuple[int, int]]
    limit: RateLimit
    reading_bytes: int
    answers: tuple[int, ...]
    done_blocks: int = 0
    differing_blocks: int = 0
    filled_blocks: int = 0
    unreadable_blocks: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(
        cls, asked: Runs, repair: bool, rate_limit_bytes: int | None, answers: tuple[int, ...], now: float
    ) -> Verification:
        reading_bytes = COMPARISON_BYTES
        if rate_limit_bytes:
            reading_bytes = min(max(rate_limit_bytes // COMPARISONS_PER_S, LEAST_COMPARISON_BYTES), COMPARISON_BYTES)
        return cls(
            repair=repair,
            total_blocks=asked.total(),
            runs=deque(zip(asked.firsts.tolist(), asked.counts.tolist(), strict=True)),
            limit=RateLimit(rate_limit_bytes, reading_bytes, now),
            reading_bytes=reading_bytes,
            answers=answers,
        )

    def progress(self, geometry: Geometry) -> VerifyProgress:
        block = geometry.block_bytes
        sizes = self.total_blocks, self.done_blocks, self.differing_blocks, self.filled_blocks
        return VerifyProgress(self.repair, *(blocks * block for blocks in sizes))


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far a verification is. ``filled_bytes``: free space that was never on the secondary, and is now."""

    repair: bool
    total_bytes: int
    done_bytes: int
    differing_bytes: int
    filled_bytes: int


@dataclass(frozen=True, slots=True)
class Findings:
    """A verification has looked at everything, and what differed is copied. ``answers``: numbers of taints."""

    compared_blocks: int
    differing_blocks: int
    filled_blocks: int
    places: tuple[tuple[int, int], ...]
    answers: tuple[int, ...]
    unreadable_blocks: int = 0

    def ended(self) -> VerifyEnded:
        """The outcome for the operator: the verification is complete."""
        found = self.differing_blocks, self.places, self.filled_blocks
        return VerifyEnded(self.compared_blocks, *found, self.unreadable_blocks)


class Verifier:
    """At most one verification is under way, in ``current``; it rests while the mode is not normal."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._readings: dict[int, _Comparison] = {}
        self._again: deque[tuple[float, Integers, bool]] = deque()
        self.current: Verification | None = None

    # --- begin and end ------------------------------------------------------------------------------------
    def begin(
        self, asked: Runs, repair: bool, rate_limit_bytes: int | None, now: float, answers: tuple[int, ...] = ()
    ) -> None:
        """Compare these runs; one that is under way already is dropped for it. Nothing, if the secondary compares nothing."""
        self.cancel()
        if not may_verify(self._state):
            return
        self.current = Verification.of(asked, repair, rate_limit_bytes, answers, now)

    def cancel(self) -> None:
        """Forget the verification under way, if any."""
        self._drop_all()
        self._again.clear()
        self.current = None

    def pause(self, now: float) -> None:
        """Replication halts: what was being compared is looked at again later."""
        self._again.extend((now, comparison.blocks, comparison.suspected) for comparison in self._readings.values())
        self._drop_all()

    def _drop_all(self) -> None:
        for identifier, comparison in self._readings.items():
            if comparison.batch is None:
                self._state.effects.add(DropReading(identifier))
        self._readings.clear()

    @property
    def awaiting(self) -> bool:
        """Whether the secondary owes an answer."""
        return any(comparison.batch is not None for comparison in self._readings.values())

    def deadline(self) -> float:
        """When ``advance`` can do more without another event."""
        if self.current is None or self._state.mode is not Mode.NORMAL:
            return inf
        due = [self._again[0][0]] if self._again else []
        allowed = self.current.limit.next_allowed()
        return min([*due, *([] if allowed is None else [allowed])], default=inf)

    # --- events -------------------------------------------------------------------------------------------
    def touch(self, written: Runs) -> None:
        """Blocks were submitted for writing: what is being read of them says nothing."""
        for comparison in self._readings.values():
            if comparison.batch is not None:
                continue  # later writes come behind the comparison
            # Runs of writes against sorted blocks: the blocks between the places where a run begins and ends.
            low = np.searchsorted(comparison.blocks, written.firsts)
            high = np.searchsorted(comparison.blocks, written.ends())
            for start, end in zip(low[high > low].tolist(), high[high > low].tolist(), strict=True):
                comparison.doubtful[start:end] = True

    def read(self, event: BlocksRead, now: float) -> bool:
        """A read is over; False when it is not one of these."""
        comparison = self._readings.get(event.reading)
        if comparison is None:
            return False
        comparison.position = event.position
        if failed_as_a_whole(self._state, event):
            self._state.effects.log("error", f"{event.error}; the blocks are compared again later")
            del self._readings[event.reading]
            self._again.append((now + READ_AGAIN_S, comparison.blocks, comparison.suspected))
        elif event.unreadable.total() and self.current is not None:
            set_apart(self._state, event, now)
            comparison.leave_out(event.unreadable)
            self.current.done_blocks += event.unreadable.total()
            self.current.unreadable_blocks += event.unreadable.total()
            if not len(comparison.blocks):
                del self._readings[event.reading]
                self._state.effects.add(DropReading(event.reading))
        return True

    def want(self, want: Want, now: float) -> Integers | None:
        """The secondary compared. The blocks that are to be repaired; None when the answer is not to one of these."""
        identifier = next((key for key, comparison in self._readings.items() if comparison.batch == want.batch), None)
        if identifier is None or self.current is None:
            return None
        comparison = self._readings.pop(identifier)
        wanted = compared.blocks_wanted(want.units, self._state.geometry)
        differs = among(comparison.blocks, wanted)
        self._look_again(comparison.blocks[comparison.doubtful], comparison.suspected, now)
        differs &= ~comparison.doubtful
        equal = comparison.blocks[~differs & ~comparison.doubtful]
        free = differs & self._state.left_out.mask(comparison.blocks)
        self._state.left_out.given(Runs.of_blocks(equal))
        self._fill(self.current, comparison.blocks[free], now)
        differing = comparison.blocks[differs & ~free]
        self.current.done_blocks += len(equal)
        self._state.unreadable.remove(equal)
        if not comparison.suspected:
            self._look_again(differing, True, now)
            return differing[:0]
        self._found(self.current, differing)
        return differing

    def _fill(self, current: Verification, blocks: Integers, now: float) -> None:
        """Free space is read once more and sent, without a word: the image is the same before and after."""
        if len(blocks):
            current.done_blocks += len(blocks)
            current.filled_blocks += len(blocks)
            self._state.unsettled.add(blocks, FREE_SPACE, now - SETTLE_DELAY_S)

    def _look_again(self, blocks: Integers, suspected: bool, now: float) -> None:
        if len(blocks):
            self._again.append((now + AGAIN_DELAY_S, blocks, suspected))

    def _found(self, current: Verification, blocks: Integers) -> None:
        """These differ, seen twice with nothing in between."""
        current.done_blocks += len(blocks)
        current.differing_blocks += len(blocks)
        runs = Runs.of_blocks(blocks)
        room = SHOWN_RUNS - len(current.places)
        current.places += zip(runs.firsts[:room].tolist(), runs.counts[:room].tolist(), strict=True)

    # --- going on -----------------------------------------------------------------------------------------
    def advance(self, now: float) -> Findings | None:
        """In normal mode: have blocks read, and offer what was read. The findings, once everything was compared."""
        current = self.current
        if current is not None and not may_verify(self._state):
            self.cancel()  # it was begun while the secondary had a newer program
            return None
        if current is None:
            return None
        self._offer()
        filling = self._state.unsettled.count_free()
        window = max(2, COMPARISON_WINDOW_BYTES // current.reading_bytes) if filling < FILLING_BLOCKS else 0
        while len(self._readings) < window and current.limit.allows(now):
            taken = self._next(current, now)
            if taken is None:
                break
            self._read(current, *taken)
        repairing = self._state.unsettled.repairing
        if self._readings or self._again or current.runs or repairing or filling:
            return None
        return self._end(current)

    def _offer(self) -> None:
        state = self._state
        for identifier, comparison in self._readings.items():
            read = comparison.position is not None and state.position_reached(comparison.position)
            if not read or comparison.batch is not None:
                continue
            # Every write submitted by the end of the read must be on its way before the secondary compares.
            if comparison.behind is None:
                comparison.behind = state.sequence
            if state.queue.all_sent or state.queue.sent_through >= comparison.behind:
                comparison.batch = state.next_batch()
                units, unit_bytes = compared.all_units(Runs.of_blocks(comparison.blocks), state.geometry)
                state.effects.add(SendDigests(identifier, comparison.batch, units, unit_bytes))
                state.effects.add(DropReading(identifier))  # what differs is read anew

    def _next(self, current: Verification, now: float) -> tuple[Integers, bool] | None:
        """The next blocks to look at, and whether they differed before."""
        waiting = sum(len(blocks) for _, blocks, _ in self._again)
        limit = max(1, current.reading_bytes // self._state.geometry.block_bytes)
        if self._again and self._again[0][0] <= now and (waiting > AGAIN_LIMIT_BLOCKS or not current.runs):
            return self._take_again(limit, now)
        if current.runs and waiting <= AGAIN_LIMIT_BLOCKS:
            return _take_runs(current.runs, limit), False
        return None

    def _take_again(self, limit: int, now: float) -> tuple[Integers, bool]:
        """Several of those that wait, of one kind, as one reading."""
        _, blocks, suspected = self._again.popleft()
        while self._again and self._again[0][0] <= now and self._again[0][2] == suspected and len(blocks) < limit:
            blocks = np.concatenate((blocks, self._again.popleft()[1]))
        blocks = distinct(blocks)
        if len(blocks) > limit:
            self._again.appendleft((now, blocks[limit:], suspected))
        return blocks[:limit], suspected

    def _read(self, current: Verification, blocks: Integers, suspected: bool) -> None:
        state = self._state
        identifier = state.next_reading()
        # An unsettled block is known to be in doubt, and the settler's to look after.
        doubtful = state.in_flight.blocks_in_flight(blocks) | among(blocks, state.unsettled.blocks())
        self._readings[identifier] = _Comparison(blocks, doubtful, suspected)
        current.limit.take(len(blocks) * state.geometry.block_bytes)
        state.effects.add(ReadBlocks(identifier, Runs.of_blocks(blocks)))

    def _end(self, current: Verification) -> Findings:
        self.current = None
        block_bytes = self._state.geometry.block_bytes
        size = current.differing_blocks * block_bytes
        log = self._state.effects.log
        compared_blocks = current.total_blocks - current.unreadable_blocks
        if current.unreadable_blocks:
            unreadable_bytes = current.unreadable_blocks * block_bytes
            log(
                "error",
                f"verified: {format_bytes(unreadable_bytes)} of the source cannot be read, and were not compared",
            )
        if not current.differing_blocks:
            compared_bytes = compared_blocks * block_bytes
            log("info", f"verified: {format_bytes(compared_bytes)} were compared and are the same on both sides")
        else:
            log("warning", f"verified: {format_bytes(size)} differed and are copied")
        if current.filled_blocks:
            filled = format_bytes(current.filled_blocks * block_bytes)
            log("info", f"{filled} of free space, never copied before, are filled in")
        found = current.differing_blocks, current.filled_blocks, tuple(current.places)
        return Findings(compared_blocks, *found, current.answers, current.unreadable_blocks)

    # --- how far it is ------------------------------------------------------------------------------------
    def resume_block(self) -> int:
        """Every block before this one has been looked at: where a verification cut off now may go on."""
        left = [first for first, _ in self.current.runs] if self.current is not None else []
        left = left[:1]
        left += [int(comparison.blocks[0]) for comparison in self._readings.values()]
        left += [int(blocks[0]) for _, blocks, _ in self._again]
        return min(left, default=self._state.geometry.block_count)

    def progress(self) -> VerifyProgress | None:
        """None when none is under way."""
        return None if self.current is None else self.current.progress(self._state.geometry)


def may_verify(state: State) -> bool:
    """Whether the secondary can compare; a line for the operator where it cannot."""
    if not state.replica.compares:
        state.effects.log("error", f"nothing is verified: {NO_KEY}")
    return state.replica.compares


def _take_runs(runs: deque[tuple[int, int]], room: int) -> Integers:
    taken: list[Integers] = []
    while room and runs:
        first, count = runs.popleft()
        part = min(count, room)
        taken.append(np.arange(first, first + part, dtype=np.int64))
        if part < count:
            runs.appendleft((first + part, count - part))
        room -= part
    return np.concatenate(taken)

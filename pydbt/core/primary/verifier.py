"""Verification in normal mode: both sides are read and compared by digests, while writes go on.

As in ``settler``, a comparison counts only for blocks that nothing touched while they were read, and the secondary
compares behind every update that was captured by the end of the read: then a difference is one. It is looked at a
second time all the same before it is called so. Repair is the settler's: it reads, compares and sends once more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from pydbt.core.blocks import compared
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import BlocksRead, DropReading, ReadBlocks, SendDigests, VerifyEnded
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.rate_limit import RateLimit
from pydbt.core.protocol.frames import Want
from pydbt.core.units import MIB

if TYPE_CHECKING:
    from pydbt.core.primary.brain import Primary

# Large, because a reading costs both loops the same whatever it holds. With a rate limit a sixteenth of a second's
# worth, but not less than a disk reads well, so that the limit is kept evenly.
COMPARISON_BYTES = 4 * MIB
LEAST_COMPARISON_BYTES = 1 * MIB
COMPARISONS_PER_S = 16
# On their way at once: enough for both disks to be busy.
COMPARISON_WINDOW_BYTES = 24 * MIB
# Blocks to be looked at again wait for so long, and no more than this many of them are kept waiting before the rest.
AGAIN_DELAY_S = 0.5
AGAIN_LIMIT_BLOCKS = 65536
# Of so many differing runs the places are kept for the report.
SHOWN_RUNS = 16


@dataclass(slots=True)
class _Comparison:
    """Runs being read and compared. ``doubtful``: written or in flight meanwhile; ``suspected``: differed once before."""

    blocks: np.ndarray
    doubtful: np.ndarray
    suspected: bool
    position: int | None = None
    behind: int | None = None
    batch: int | None = None  # number of the DIGESTS frame, once it is sent


@dataclass(slots=True)
class Verification:
    """One verification: what was asked, how far it is, what it found. ``runs`` are (first block, blocks) left to look at."""

    repair: bool
    total_blocks: int
    runs: deque[tuple[int, int]]
    limit: RateLimit
    reading_bytes: int
    taints: tuple[str, ...]
    done_blocks: int = 0
    differing_blocks: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)


class Verifier:
    """Part of the primary's brain. At most one verification is under way; it rests while the mode is not normal."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._readings: dict[int, _Comparison] = {}
        self._again: deque[tuple[float, np.ndarray, bool]] = deque()
        self.current: Verification | None = None

    # --- begin and end ------------------------------------------------------------------------------------
    def begin(self, asked: Runs, repair: bool, rate_limit_bytes: int | None, now: float) -> None:
        """Compare these runs; one that is under way already is dropped for it."""
        self.cancel()
        runs = deque(zip(asked.firsts.tolist(), asked.counts.tolist(), strict=True))
        reading_bytes = _reading_bytes(rate_limit_bytes)
        self.current = Verification(
            repair=repair,
            total_blocks=asked.total(),
            runs=runs,
            limit=RateLimit(rate_limit_bytes, reading_bytes, now),
            reading_bytes=reading_bytes,
            taints=tuple(self._primary.taints),
        )

    def cancel(self) -> None:
        """Forget the verification under way, if any."""
        self._drop_all()
        self._again.clear()
        self.current = None

    def rest(self, now: float) -> None:
        """Replication halts: what was being compared is looked at again later."""
        self._again.extend((now, comparison.blocks, comparison.suspected) for comparison in self._readings.values())
        self._drop_all()

    def _drop_all(self) -> None:
        for identifier, comparison in self._readings.items():
            if comparison.batch is None:
                self._primary.effects.add(DropReading(identifier))
        self._readings.clear()

    @property
    def awaiting(self) -> bool:
        """Whether the secondary owes an answer."""
        return any(comparison.batch is not None for comparison in self._readings.values())

    def deadline(self) -> float:
        """When ``advance`` can do more without another event."""
        if self.current is None or self._primary.mode is not Mode.NORMAL:
            return inf
        due = [self._again[0][0]] if self._again else []
        allowed = self.current.limit.next_allowed()
        return min([*due, *([] if allowed is None else [allowed])], default=inf)

    # --- events -------------------------------------------------------------------------------------------
    def touch(self, first_blocks: np.ndarray, block_counts: np.ndarray) -> None:
        """Blocks (as runs) were submitted for writing: what is being read of them says nothing."""
        if not self._readings:
            return
        for comparison in self._readings.values():
            if comparison.batch is not None:
                continue  # later writes come behind the comparison
            # Runs of writes against sorted blocks: the blocks between the places where a run begins and ends.
            low = np.searchsorted(comparison.blocks, first_blocks)
            high = np.searchsorted(comparison.blocks, first_blocks + block_counts)
            for start, end in zip(low[high > low].tolist(), high[high > low].tolist(), strict=True):
                comparison.doubtful[start:end] = True

    def read(self, event: BlocksRead, now: float) -> bool:
        """A read is over; False when it is not one of these."""
        comparison = self._readings.get(event.reading)
        if comparison is None:
            return False
        comparison.position = event.position
        if event.error:
            self._primary.effects.log("error", f"{event.error}; the blocks are compared again later")
            del self._readings[event.reading]
            self._again.append((now + 5.0, comparison.blocks, comparison.suspected))
        return True

    def want(self, want: Want, now: float) -> bool:
        """The secondary compared; False when the answer is not to one of these."""
        identifier = next((key for key, comparison in self._readings.items() if comparison.batch == want.batch), None)
        if identifier is None:
            return False
        comparison = self._readings.pop(identifier)
        wanted = compared.blocks_wanted(want.units, self._primary.geometry)
        differs = np.isin(comparison.blocks, wanted, assume_unique=True)
        self._look_again(comparison.blocks[comparison.doubtful], comparison.suspected, now)
        differing = comparison.blocks[differs & ~comparison.doubtful]
        self.current.done_blocks += int((~differs & ~comparison.doubtful).sum())
        if comparison.suspected:
            self._found(differing, now)
        else:
            self._look_again(differing, True, now)
        return True

    def _look_again(self, blocks: np.ndarray, suspected: bool, now: float) -> None:
        if len(blocks):
            self._again.append((now + AGAIN_DELAY_S, blocks, suspected))

    def _found(self, blocks: np.ndarray, now: float) -> None:
        """These differ, seen twice with nothing in between."""
        if not len(blocks):
            return
        current = self.current
        current.done_blocks += len(blocks)
        current.differing_blocks += len(blocks)
        if len(current.places) < SHOWN_RUNS:
            runs = Runs.of_blocks(blocks)
            found = list(zip(runs.firsts.tolist(), runs.counts.tolist(), strict=True))
            current.places += found[: SHOWN_RUNS - len(current.places)]
        if current.repair:
            self._primary.settler.repair(blocks, now)

    # --- going on -----------------------------------------------------------------------------------------
    def advance(self, now: float) -> None:
        """In normal mode: have blocks read, offer what was read, and end."""
        if self.current is None:
            return
        primary = self._primary
        for identifier, comparison in self._readings.items():
            if (
                comparison.position is None
                or comparison.batch is not None
                or not primary.position_reached(comparison.position)
            ):
                continue
            # Every write submitted by the end of the read must be on its way before the secondary compares.
            if comparison.behind is None:
                comparison.behind = primary.sequence
            if primary.queue.all_sent or primary.queue.sent_through >= comparison.behind:
                comparison.batch = primary.next_batch()
                table, unit = compared.all_units(Runs.of_blocks(comparison.blocks), primary.geometry)
                primary.effects.add(SendDigests(identifier, comparison.batch, table, unit))
                primary.effects.add(DropReading(identifier))  # what differs is read anew
        window = max(2, COMPARISON_WINDOW_BYTES // self.current.reading_bytes)
        while len(self._readings) < window and self.current.limit.allows(now):
            taken = self._next(now)
            if taken is None:
                break
            self._read(*taken)
        if not (self._readings or self._again or self.current.runs or primary.settler.repairing):
            self._end()

    def _next(self, now: float) -> tuple[np.ndarray, bool] | None:
        """The next blocks to look at, and whether they differed before."""
        waiting = sum(len(blocks) for _, blocks, _ in self._again)
        if self._again and self._again[0][0] <= now and (waiting > AGAIN_LIMIT_BLOCKS or not self.current.runs):
            return self._take_again(now)
        if self.current.runs and waiting <= AGAIN_LIMIT_BLOCKS:
            return self._take_runs(), False
        return None

    def _take_again(self, now: float) -> tuple[np.ndarray, bool]:
        """Several of those that wait, of one kind, as one reading."""
        limit = self._reading_blocks
        _, blocks, suspected = self._again.popleft()
        while self._again and self._again[0][0] <= now and self._again[0][2] == suspected and len(blocks) < limit:
            blocks = np.concatenate((blocks, self._again.popleft()[1]))
        blocks = np.unique(blocks)
        if len(blocks) > limit:
            self._again.appendleft((now, blocks[limit:], suspected))
        return blocks[:limit], suspected

    def _take_runs(self) -> np.ndarray:
        room, runs, taken = self._reading_blocks, self.current.runs, []
        while room and runs:
            first, count = runs.popleft()
            part = min(count, room)
            taken.append(np.arange(first, first + part))
            if part < count:
                runs.appendleft((first + part, count - part))
            room -= part
        return np.concatenate(taken)

    @property
    def _reading_blocks(self) -> int:
        return max(1, self.current.reading_bytes // self._primary.geometry.block_bytes)

    def _read(self, blocks: np.ndarray, suspected: bool) -> None:
        primary = self._primary
        identifier = primary.next_reading()
        # An unsettled block is known to be in doubt, and the settler's to look after.
        doubtful = primary.in_flight.blocks_in_flight(blocks) | np.isin(blocks, primary.settler.blocks())
        self._readings[identifier] = _Comparison(blocks, doubtful, suspected)
        self.current.limit.take(len(blocks) * primary.geometry.block_bytes)
        primary.effects.add(ReadBlocks(identifier, Runs.of_blocks(blocks)))

    def _end(self) -> None:
        """All was compared. What the volume was tainted with before is answered, if nothing differs any more."""
        primary, current = self._primary, self.current
        self.current = None
        size = current.differing_blocks * primary.geometry.block_bytes
        compared_bytes = current.total_blocks * primary.geometry.block_bytes
        if not current.differing_blocks:
            primary.effects.log(
                "info", f"verified: {compared_bytes} bytes were compared and are the same on both sides"
            )
        elif current.repair:
            primary.effects.log("warning", f"verified: {size} bytes differed and are copied")
        else:
            primary.effects.log("error", f"verified: {size} bytes differ (controller verify --repair copies them)")
        if current.repair or not current.differing_blocks:
            primary.clear_taints(current.taints)
        else:
            primary.taint("a verification found blocks that differ")
        primary.effects.add(
            VerifyEnded(current.repair, current.total_blocks, current.differing_blocks, tuple(current.places))
        )

    def resume_block(self) -> int:
        """Every block before this one has been looked at: where a verification cut off now may go on."""
        left = [first for first, _ in list(self.current.runs)[:1]]
        left += [int(comparison.blocks[0]) for comparison in self._readings.values()]
        left += [int(blocks[0]) for _, blocks, _ in self._again]
        return min(left, default=self._primary.geometry.block_count)

    def report(self) -> dict[str, object] | None:
        """How far it is, in bytes; None when none is under way."""
        if self.current is None:
            return None
        block = self._primary.geometry.block_bytes
        return {
            "repair": self.current.repair,
            "total_bytes": self.current.total_blocks * block,
            "done_bytes": self.current.done_blocks * block,
            "differing_bytes": self.current.differing_blocks * block,
        }


def _reading_bytes(rate_limit_bytes: int | None) -> int:
    return (
        min(max(rate_limit_bytes // COMPARISONS_PER_S, LEAST_COMPARISON_BYTES), COMPARISON_BYTES)
        if rate_limit_bytes
        else COMPARISON_BYTES
    )

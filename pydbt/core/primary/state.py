"""The data that the parts of the primary's brain share, and mechanical moves on it. Nothing is decided here.

A part is given the state, changes the data that is its business, adds effects, and returns an outcome. The brain alone
changes mode and phase, taints the maps, and halts replication.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.primary.config import PrimaryConfig, SavedMaps
from pydbt.core.primary.events import BrainEffect, Log, ReleasePayload, SetPayload
from pydbt.core.primary.excursions import Excursions
from pydbt.core.primary.left_out import LeftOut
from pydbt.core.primary.likely import Likely
from pydbt.core.primary.modes import FOLLOWING_MODES, MODE_MOVES, PHASE_MOVES, Mode, Phase
from pydbt.core.primary.statistics import Statistics
from pydbt.core.primary.unwritten import Unwritten
from pydbt.core.protocol.generations import Generations, first_generations
from pydbt.core.tracking.capture_record import Records
from pydbt.core.tracking.in_flight import InFlight
from pydbt.core.tracking.replica_queue import StreamQueue
from pydbt.core.tracking.tracker import Tracker
from pydbt.core.tracking.uncompleted import Uncompleted
from pydbt.core.tracking.unreadable import Unreadable
from pydbt.core.tracking.unsettled import MAX_UPDATE_BLOCKS, Unsettled
from pydbt.core.units import MIB, SECTOR_BYTES, Geometry

# Settled blocks go out as one update, which must fit into one frame.
MAX_SETTLED_BYTES = 4 * MIB

assert MAX_SETTLED_BYTES % SECTOR_BYTES == 0


@dataclass(slots=True)
class KnownReplica:
    """What is known of the secondary and of its image.

    ``position`` is the (epoch, sequence) that it acknowledged last; ``progress`` the most bytes that it ever told to be
    durable; ``later_epochs`` the runs since ``position``; ``unfinished``: it has acknowledged blocks of a
    resynchronization whose COMMIT is still to come, and those are on no map. ``initial``: it was never in sync;
    ``scanned``: the blocks in use are on the map. ``fresh``: it holds nothing. ``goes_back``: it reports an
    earlier image, to which a promotion would go back. ``taken_at``: its position when it was found to be elsewhere, until it
    is in sync. ``compares``: blocks can be compared with it by keyed digests. ``unwritable``: blocks that its target does not
    take, by its last report; it keeps what is to be there. ``doubtful``: those of them that were not compared since that report.
    ``keeps_history``: it understands times, marks and transactions in the stream. ``recalls``: it can tell what it got last.
    """

    identifier: str
    position: tuple[int, int]
    progress: int
    later_epochs: tuple[int, ...]
    unfinished: bool
    initial: bool
    scanned: bool
    state: str
    fresh: bool = False
    goes_back: bool = False
    taken_at: tuple[int, int] | None = None
    compares: bool = True
    keeps_history: bool = False
    recalls: bool = False
    unwritable: Runs = field(default_factory=Runs.none)
    doubtful: Runs = field(default_factory=Runs.none)

    @classmethod
    def of(cls, config: PrimaryConfig) -> KnownReplica:
        """As the last run left it."""
        return cls(
            identifier=config.replica,
            position=(config.replica_epoch, config.replica_sequence),
            progress=config.replica_progress,
            later_epochs=config.later_epochs,
            unfinished=config.unfinished,
            initial=config.initial,
            scanned=not config.scan_used,
            state="inconsistent" if config.initial else "outdated",
            goes_back=not config.initial,
        )

    def lacking(self) -> Runs:
        """Blocks that its target may lack, by its last report or by an earlier one that nobody has looked into."""
        if not len(self.doubtful.firsts):
            return self.unwritable
        return Runs.of_blocks(np.concatenate((self.unwritable.blocks(), self.doubtful.blocks())))

    def take_doubtful(self) -> BlockNumbers:
        """Blocks of which the secondary may lack a part: the caller has them compared."""
        blocks = self.doubtful.blocks()
        if len(blocks):
            self.doubtful = Runs.none()
        return blocks


@dataclass(slots=True)
class Effects:
    """A list of effects under construction."""

    items: list[BrainEffect] = field(default_factory=list)

    def add(self, effect: BrainEffect) -> None:
        self.items.append(effect)

    def log(self, level: str, message: str) -> None:
        self.items.append(Log(level, message))


class State:
    """One volume and one secondary. ``now`` is when the event came that is being handled, or the last one that was.

    ``mode_since`` and ``phase_since`` are when mode and phase began, and ``mode_reason`` is why the mode did.
    ``sequence`` is the number of the last captured update, ``acknowledged`` that of the last one that is durable on the
    secondary, ``position`` the ring position behind the last record, ``lost`` the kernel's count of records it lost.
    Until ``reads_rest_until`` no block is read for a resynchronization, because a read has failed. ``taints``: each reason with
    the number of the last time that it came up, of which ``last_taint`` is the highest so far. ``likely``: where a
    resynchronization begins.
    """

    def __init__(self, config: PrimaryConfig, now: float, maps: SavedMaps | None = None) -> None:
        self.config = config
        self.geometry: Geometry = config.geometry
        self.now = now
        self.mode, self.phase = Mode.UNSYNCHRONIZED, Phase.IDLE
        self.mode_since, self.mode_reason = now, "a controller has started"
        self.phase_since = now
        self.excursions = Excursions()
        self.tracker = Tracker(config.geometry, config.log_slots)
        # Blocks of a resynchronization that are durable on the secondary, and part of no image before the COMMIT.
        self.staged = DirtyMap(config.geometry.block_count)
        self.in_flight = InFlight(config.geometry)
        self.queue = StreamQueue()
        self.uncompleted = Uncompleted()
        self.unsettled = Unsettled(max(1, min(MAX_UPDATE_BLOCKS, MAX_SETTLED_BYTES // config.geometry.block_bytes)))
        self.left_out = LeftOut(config.geometry)
        if maps is not None:
            self._take_over(maps)
        self.unreadable = Unreadable()
        self.likely = Likely(config.geometry)
        self.statistics = Statistics(now)
        self.replica = KnownReplica.of(config)
        self.generations: Generations = (
            config.generations if config.generations.current else first_generations(config.generation_seed)
        )
        self.taints: dict[str, int] = {reason: number for number, reason in enumerate(config.taints, 1)}
        self.last_taint = len(config.taints)
        self.unwritten = Unwritten()
        self.sequence = self.acknowledged = self.position = self.lost = 0
        self.payload_on = False
        self.reads_rest_until = 0.0
        self.effects = Effects()
        self._batch = self._reading = 0

    def _take_over(self, maps: SavedMaps) -> None:
        own = (self.tracker.pending, self.staged, self.left_out.blocks)
        for mine, saved in zip(own, (maps.pending, maps.staged, maps.left_out), strict=True):
            if saved is not None:
                mine.merge(saved)

    def enter_mode(self, mode: Mode, now: float, reason: str, *, by_load: bool = False) -> None:
        """For the brain alone. ``by_load``: only the rate of writes is to blame."""
        if mode is self.mode:
            return
        assert mode in MODE_MOVES[self.mode], f"{self.mode} -> {mode}"
        for level, line in self.excursions.moved(self.mode, mode, reason, now, by_load=by_load):
            self.effects.log(level, line)
        self.mode, self.mode_since, self.mode_reason = mode, now, reason
        self.statistics.mode_changed(mode in FOLLOWING_MODES, now)

    def enter_phase(self, phase: Phase) -> None:
        """For the brain alone."""
        if phase is self.phase:
            return
        assert phase in PHASE_MOVES[self.phase], f"{self.phase} -> {phase}"
        self.effects.log("debug", f"phase {self.phase} -> {phase}")
        self.phase, self.phase_since = phase, self.now

    @property
    def taint_numbers(self) -> tuple[int, ...]:
        """Of what taints the volume now: a comparison that begins now answers these."""
        return tuple(self.taints.values())

    @property
    def told_taints(self) -> tuple[str, ...]:
        """What taints the volume as far as anybody is told: also what is answered, until that is on the disk."""
        return tuple(dict.fromkeys((*self.taints, *self.unwritten.taints)))

    @property
    def rolled_back(self) -> DirtyMap | None:
        """The staged blocks, which a promotion would give up; None where there is no earlier image to go back to."""
        return self.staged if self.replica.goes_back else None

    def position_reached(self, position: int) -> bool:
        """Whether everything before a ring position has been taken in."""
        return self.position >= position

    def next_batch(self) -> int:
        """The number of the next BLOCKS or DIGESTS frame; one count for both, in the order they are queued."""
        self._batch += 1
        return self._batch

    def next_reading(self) -> int:
        """Names blocks to be read; never used twice, so that a late answer meets nothing."""
        self._reading += 1
        return self._reading

    def mark_in_flight_pending(self) -> None:
        """A sweep reads again the blocks that a write is in flight to."""
        self.tracker.mark_pending(*self.in_flight.extents())

    def release(self, writes: Records) -> None:
        """The captured data of these writes is of no use any more."""
        with_data = writes[writes["data"] != 0]
        if len(with_data):
            self.effects.add(ReleasePayload(with_data))

    def switch_payload(self, on: bool) -> None:
        """Have data captured with the addresses, or addresses only."""
        if on != self.payload_on:
            self.payload_on = on
            self.effects.add(SetPayload(on))

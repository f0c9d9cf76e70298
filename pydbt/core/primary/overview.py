"""The state of all parts at a glance: the maps that must be on disk, the blocks out of sync, and the status."""

from __future__ import annotations

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.forecast import NO_PACE
from pydbt.core.primary.modes import Phase
from pydbt.core.primary.parts import Parts
from pydbt.core.primary.quiet_bitmap import FindingUsed
from pydbt.core.primary.reported_state import behind_since, is_fresh
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.standing import Shortage
from pydbt.core.primary.status import LogStatus, PrimaryStatus


class Overview:
    """Looks, and changes nothing. ``resync``: the resynchronization under way."""

    def __init__(self, parts: Parts) -> None:
        self._state, self._parts = parts.state, parts

    def unsynchronized_map(self, resync: Resync | None) -> DirtyMap:
        """The blocks that must be on disk for a crash to lose nothing that the kernel bitmaps do not hold."""
        return self.out_of_sync_map(resync, on_the_way=self._parts.quiet.maps_unacknowledged)

    def out_of_sync_map(self, resync: Resync | None, *, on_the_way: bool = True) -> DirtyMap:
        """Every block known here to differ or not yet known to be equal; on request without those whose updates are merely on
        the way."""
        tracker, unsettled = self._state.tracker, self._state.unsettled
        combined = tracker.pending.copy()
        for transit in [] if resync is None else resync.in_transit():
            combined.set_extents(*transit.runs)
        if len(unsettled):
            combined.set_blocks(unsettled.blocks())
        combined.set_blocks(self._state.unreadable.blocks())
        combined.set_blocks(self._state.replica.lacking().blocks())
        for unproved in self._parts.landing.unproved:
            combined.merge(unproved)
        if on_the_way:
            combined.merge(tracker.dirty)
        return combined

    def out_of_sync_blocks(self, resync: Resync | None) -> int:
        """Blocks known to differ or not yet known to be equal (the kernel's active bitmap comes on top)."""
        transit = 0 if resync is None else sum(transit.runs.total() for transit in resync.in_transit())
        state, staged = self._state, self._state.rolled_back
        before_commit = 0 if staged is None else staged.count()
        known = state.tracker.out_of_sync_blocks() + len(state.unsettled) + len(state.unreadable)
        if (lacking := state.replica.lacking()).total():
            blocks, tracker = lacking.blocks(), state.tracker
            counted = tracker.dirty.test_blocks(blocks) | tracker.pending.test_blocks(blocks)
            known += int((~counted).sum())
        return known + transit + before_commit + self._parts.landing.kept_blocks

    def out_of_sync_bytes(self, resync: Resync | None) -> int:
        return self._size(self.out_of_sync_blocks(resync))

    def on_the_way_bytes(self, resync: Resync | None) -> int:
        """Of ``out_of_sync_bytes`` the blocks that only wait for an acknowledgement of their updates: a healthy stream has some.

        Those that are out of sync for another reason as well do not count, so that the rest is never too small.
        """
        tracker, blocks = self._state.tracker, self.out_of_sync_blocks(resync)
        on_the_way = tracker.out_of_sync_blocks() - tracker.pending.count()
        return self._size(blocks) - self._size(blocks - on_the_way)

    def _size(self, blocks: int) -> int:
        """In bytes; blocks may have been counted twice, and no more is out of sync than there is."""
        geometry = self._state.geometry
        return min(blocks * geometry.block_bytes, geometry.size_bytes)

    @property
    def is_known(self) -> bool:
        """Whether all blocks that may differ are counted: the blocks in use are on the map, and no taint waits for an answer."""
        return self._state.replica.scanned and not self._parts.taints.unanswered

    def shortage(self, resync: Resync | None) -> Shortage:
        """What of the status tells how much the secondary lacks: this is asked for each second."""
        return Shortage(self.is_known, self.out_of_sync_bytes(resync), self._state.queue.unacknowledged_bytes)

    def waiting_for(self, resync: Resync | None) -> str:
        """What keeps the resynchronization from going on, in words; empty when nothing does."""
        phase = self._state.phase
        if resync is None:
            searched = self._parts.quiet.request == FindingUsed()
            return "the blocks in use to be found, and written out by their file system" if searched else ""
        if phase in (Phase.SWEEPING, Phase.SETTLING) and not resync.map_on_disk:
            return "the maps to be written"
        if phase is Phase.COMMITTING:
            return "the secondary to make the new image durable"
        return self._parts.landing.waiting_for()

    def status(self, resync: Resync | None, now: float) -> PrimaryStatus:
        """Everything that a report on this secondary tells."""
        parts, state, log = self._parts, self._state, self._state.tracker.log
        done, total, pace = (
            (0, 0, NO_PACE) if resync is None else resync.progress(now, parts.link.interruption.delivery_rate_bytes)
        )
        silence = parts.link.silence(now)
        return PrimaryStatus(
            mode=state.mode,
            mode_since=state.mode_since,
            phase=state.phase,
            connected=parts.link.up and not silence,
            connection_problem=parts.link.problem(now),
            waiting_for=self.waiting_for(resync),
            replica_state=state.replica.state,
            taints=state.told_taints,
            sequence=state.sequence,
            acknowledged=state.acknowledged,
            replica_position=state.replica.position,
            known=self.is_known,
            out_of_sync_bytes=self.out_of_sync_bytes(resync),
            unsettled_bytes=len(state.unsettled) * state.geometry.block_bytes,
            unreadable=Runs.of_blocks(state.unreadable.blocks()),
            unwritable=state.replica.unwritable,
            repairing=parts.settler.repairing,
            unacknowledged_bytes=state.queue.unacknowledged_bytes,
            on_the_way_bytes=self.on_the_way_bytes(resync),
            fresh=is_fresh(behind_since(state), None if silence else parts.link.answered_at, now)
            and not state.unwritten.waits,
            log=LogStatus(log.capacity_bytes, log.used_bytes, log.start, log.end, log.active_transactions),
            done_bytes=done,
            total_bytes=total,
            pace=pace,
            persist_problem=parts.quiet.error,
            verify=parts.verifier.progress(),
            snapshots=parts.landing.status(now, clean=not self.out_of_sync_blocks(resync)),
            transactions=parts.transactions.status(),
            statistics=state.statistics.figures(now, times_out_of_normal=state.excursions.count),
        )

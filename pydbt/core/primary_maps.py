"""The part of the primary's brain that decides what must be on disk, and when the kernel's quiet bitmap has done its work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydbt.core import primary_events as ev
from pydbt.core.dirty_map import DirtyMap
from pydbt.core.modes import SYNCING_MODES, Mode

if TYPE_CHECKING:
    from pydbt.core.primary import Primary

PERSIST_RETRY_S = 5.0


class KeepsMaps:
    """Mixed into ``Primary``. ``quiet_held``: the kernel's quiet bitmap may hold bits that nothing else covers yet.

    ``quiet_due``: an effect that answers ``QuietTaken`` or ``Persisted`` is under way. ``retire_at``: the sequence number
    whose acknowledgement covers the quiet bitmap.
    """

    def _begin_maps(self: Primary) -> None:
        self.quiet_held = self.config.quiet_held
        self.quiet_due = False
        self.retire_at: int | None = None
        self.persist_error = ""
        self._retry_persist_at = 0.0

    def unsynchronized_map(self: Primary) -> DirtyMap:
        """What must be on disk for a crash to lose nothing that the kernel bitmaps do not hold."""
        combined = self.tracker.pending.copy()
        for batch in self.resync.in_transit():
            combined.set_extents(batch.first_blocks, batch.block_counts)
        blocks = self.settler.blocks()
        if len(blocks):
            combined.set_blocks(blocks)
        self.epochs.add_unproved(combined)
        return combined

    def request_quiet(self: Primary) -> None:
        """Ask for the quiet bitmap: the one held from before first, else after a flip."""
        self.quiet_due = True
        self._fx.add(ev.TakeQuiet(flip=not self.quiet_held))

    def _quiet_taken(self: Primary, event: ev.QuietTaken, now: float) -> None:
        self.quiet_held = True
        if event.flipped:
            self.resync.note_flip()
        if self.mode is Mode.NORMAL:
            self.quiet_due = False
            self.retire_at = self.sequence
            return
        self.tracker.pending.merge_words(event.words)
        self.epochs.comparison.touched(event.words)
        if not self.epochs.flipped(event, now):
            self._fx.add(ev.Persist(zero_quiet=True))

    def _persisted(self: Primary, event: ev.Persisted, now: float) -> None:
        self.quiet_due = False
        if event.error:
            if event.error != self.persist_error:
                self._fx.log("error", f"the maps could not be written: {event.error}")
            self.persist_error = event.error
            self._retry_persist_at = now + PERSIST_RETRY_S
            if self.mode is Mode.NORMAL and self.quiet_held and self.retire_at is None:
                self.retire_at = self.sequence
            return
        self.persist_error = ""
        if self._remember_due and self.scanned:
            self._remember_due = False
            self._fx.add(ev.RememberReplica(self.known_replica, *self.replica_position, not self.initial))
        if event.zeroed:
            self.quiet_held = False
            if self.mode in SYNCING_MODES:
                self.resync.map_persisted(now)

    def may_retry_persist(self: Primary, now: float) -> bool:
        return now >= self._retry_persist_at

"""The part of the primary's brain that decides what must be on disk, and when the kernel's quiet bitmap has done its work.

Several secondaries share the kernel's two bitmaps (``bitmap_share``): a flip that another one's brain asked for is taken by
this one too. What it names is then covered here by the log until it is acknowledged, or by the pending map once that is
on disk; and when others cannot wait for a slow secondary, by a map on disk that has everything on its way as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary import events as ev
from pydbt.core.primary.modes import SYNCING_MODES, Mode, Phase

if TYPE_CHECKING:
    from pydbt.core.primary.brain import Primary

PERSIST_RETRY_S = 5.0


class KeepsMaps:
    """Mixed into ``Primary``. ``quiet_held``: the kernel's quiet bitmap may hold bits that nothing else covers yet.

    ``quiet_due``: an effect that answers ``QuietTaken`` or ``Persisted`` is under way. ``retire_at``: the sequence number
    whose acknowledgement covers the quiet bitmap. ``mapped``: the map on disk, if there is one, may be gone by.
    """

    def _begin_maps(self: Primary) -> None:
        self.quiet_held = self.config.quiet_held
        self.quiet_due = False
        self.retire_at: int | None = None
        self.mapped = not self.config.scan_used
        self.persist_error = ""
        self._retry_persist_at = 0.0
        self._unasked = False  # the quiet bitmap was taken because another secondary's brain asked for it
        self._in_map_through = 0  # what is on its way up to here must be in every map that is written

    def unsynchronized_map(self: Primary) -> DirtyMap:
        """What must be on disk for a crash to lose nothing that the kernel bitmaps do not hold."""
        combined = self.tracker.pending.copy()
        for transit in self.resync.in_transit():
            combined.set_extents(*transit.runs)
        blocks = self.settler.blocks()
        if len(blocks):
            combined.set_blocks(blocks)
        self.epochs.add_unproved(combined)
        if self.acknowledged < self._in_map_through:
            combined.merge(self.tracker.dirty)
        return combined

    def out_of_sync_map(self: Primary) -> DirtyMap:
        """Every block known here to differ or not yet known to be equal."""
        combined = self.unsynchronized_map()
        combined.merge(self.tracker.dirty)
        return combined

    def request_quiet(self: Primary) -> None:
        """Ask for the quiet bitmap: the one held from before first, else after a flip."""
        self.quiet_due = True
        self._fx.add(ev.TakeQuiet(flip=not self.quiet_held))

    def _quiet_taken(self: Primary, event: ev.QuietTaken, now: float) -> None:
        self.quiet_held, self._unasked = True, not event.asked
        if event.flipped and event.asked:
            self.resync.note_flip()
        # From the landing's last sweep on, the log has every write that a flip for another secondary can name.
        in_log = self.logging and self.phase is not Phase.SETTLING
        if self.mode is Mode.NORMAL or (in_log and not event.asked):
            self.quiet_due = self.quiet_due and not event.asked
            self.retire_at = self.sequence
            return
        self.tracker.pending.merge_words(event.words)
        self.epochs.comparison.touched(event.words)
        if not (event.asked and self.epochs.flipped(event, now)):
            self.quiet_due = True
            self._fx.add(ev.Persist(zero_quiet=True))

    def cover_quiet(self: Primary) -> ev.Persist:
        """Others cannot wait for this secondary: what covers the quiet bitmap for it then. Carry it out next."""
        self._in_map_through = self.sequence
        return ev.Persist(zero_quiet=True, cover=True)

    def _persisted(self: Primary, event: ev.Persisted, now: float) -> None:
        self.quiet_due = self.quiet_due and event.cover
        if event.error:
            self._not_persisted(event.error, now)
            return
        self.persist_error = ""
        if self._remember_due and self.scanned:
            self._remember_due = False
            self.remember_replica()
        if not event.zeroed:
            return
        self.quiet_held, self.retire_at = False, None
        asked, self._unasked = not (self._unasked or event.cover), False
        if asked and self.mode in SYNCING_MODES:
            self.resync.map_persisted(now)

    def _not_persisted(self: Primary, error: str, now: float) -> None:
        if error != self.persist_error:
            self._fx.log("error", f"the maps could not be written: {error}")
        self.persist_error = error
        self._retry_persist_at = now + PERSIST_RETRY_S
        if self.mode is Mode.NORMAL and self.quiet_held and self.retire_at is None:
            self.retire_at = self.sequence

    def remember_replica(self: Primary) -> None:
        """Have written down which replica this is, and what is known of it."""
        known = self.known_replica, *self.replica_position, self.replica_progress
        self._fx.add(ev.RememberReplica(*known, in_sync=not self.initial))

    def may_retry_persist(self: Primary, now: float) -> bool:
        return now >= self._retry_persist_at

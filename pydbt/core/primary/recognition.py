"""The secondary that answers is taken for the one that the maps were kept for, or everything is compared anew."""

from __future__ import annotations

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.events import Connected, RememberReplica, SendFrame
from pydbt.core.primary.mark_events import MarksTold
from pydbt.core.primary.modes import SYNCING_MODES, Mode
from pydbt.core.primary.position_check import doubt_about
from pydbt.core.primary.state import State
from pydbt.core.protocol.frame_checks import REPLICA_STATE_NAMES
from pydbt.core.protocol.frames import Ack, Unwritable
from pydbt.core.protocol.recent import Recent
from pydbt.core.units import format_bytes


class Recognition:
    """Keeps ``state.replica``, and what is written down of it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._remember_due = False
        # The first write of the map that has all that the replica lacks; None: one that has it is on disk.
        self._mapped_by: int | None = None
        self.scan_whole = state.config.scan_whole

    def connected(self, event: Connected) -> str:
        """Take in what the secondary tells of itself. Why everything is compared, when it is in doubt; else empty."""
        replica, config, at = self._state.replica, self._state.config, (event.epoch, event.sequence)
        doubt = ""
        if replica.scanned:
            doubt = doubt_about(
                replica.identifier, at if at == replica.taken_at else replica.position, event, config.assumed_in_sync,
                replica.later_epochs, replica.unfinished, replica.progress,
            )  # fmt: skip
        if doubt:
            self._state.effects.log("warning", f"{doubt}; every block in use is compared or copied")
            if event.replica == replica.identifier:
                self.remember()  # so that the next run sees it too, if this one dies before the map has everything
            replica.initial, replica.scanned = True, False
        if not replica.scanned:  # it is taken as it is: the map will have all that it lacks
            replica.taken_at, replica.progress = at, 0
        replica.progress = max(replica.progress, event.progress or 0)
        self.scan_whole = config.scan_whole or event.of_this_volume
        replica.state = "inconsistent" if replica.initial or event.state == "inconsistent" else "outdated"
        replica.goes_back = event.state != "inconsistent"  # also where ours counts as the first copy still
        replica.fresh, replica.identifier = event.fresh, event.replica
        replica.compares, replica.keeps_history, replica.recalls = event.compares, event.keeps_history, event.recalls
        if event.marks is not None:
            self._state.effects.add(MarksTold(event.marks, all_of_them=True))
        # What its target does not take it says in a moment. A crash may have left less of such a block than there was.
        replica.doubtful, replica.unwritable = replica.unwritable, Runs.none()
        return doubt

    def replica_says(self, ack: Ack) -> None:
        """The state of the image that the secondary reports counts when it is worse than ours."""
        state, replica, mode = REPLICA_STATE_NAMES[ack.replica_state], self._state.replica, self._state.mode
        replica.progress = max(replica.progress, ack.progress)
        # With blocks that its target does not take it may have an image all the same, and go back to that once it has.
        replica.goes_back = state != "inconsistent" or replica.unwritable.total() > 0
        if state == "inconsistent":
            replica.state = "inconsistent"
        elif mode in SYNCING_MODES:
            replica.state = "consistent" if mode is Mode.SNAPSHOTS else "outdated"
        elif mode is Mode.NORMAL and replica.state == "inconsistent":
            replica.state = "up-to-date"  # its target has taken everything by now

    def search_begins(self) -> bool:
        """The blocks in use are asked for, since everything is compared. Whether all blocks are meant."""
        replica = self._state.replica
        if replica.recalls and not replica.fresh:
            self._state.effects.add(SendFrame(self._state.likely.question))
        return self.scan_whole

    def told(self, told: Unwritable | Recent) -> None:
        """What the secondary tells of blocks of its own."""
        if isinstance(told, Unwritable):
            self.cannot_write(told)
        else:
            self._state.likely.written_last(told)

    def cannot_write(self, told: Unwritable) -> None:
        """Blocks that the secondary's target does not take: out of sync, also for the next run, until it says otherwise."""
        state, replica = self._state, self._state.replica
        geometry = state.geometry
        firsts = told.units.firsts * told.unit_bytes // geometry.block_bytes
        ends = -(-told.units.ends() * told.unit_bytes // geometry.block_bytes)
        blocks = Runs.of_ranges(firsts, np.minimum(ends, geometry.block_count))
        new = blocks.minus(replica.unwritable)
        replica.doubtful = Runs.of_blocks(np.concatenate((replica.doubtful.blocks(), new.blocks())))
        replica.unwritable = blocks
        replica.goes_back |= blocks.total() > 0
        if new.total():
            state.unreadable.unsaved = True
            size = format_bytes(blocks.total() * geometry.block_bytes)
            state.effects.log("error", f"{size} of the secondary's target cannot be written; everything else goes on")

    def landed(self, image: str) -> None:
        """A COMMIT is durable: the secondary has an image of the volume, and nothing of before is in doubt any more."""
        replica = self._state.replica
        if replica.initial:
            self._state.unwritten.add()
        replica.unfinished = replica.initial = False
        replica.taken_at, replica.later_epochs = None, (self._state.config.epoch,)
        replica.state = image

    def halted(self) -> None:
        """Replication halts: from here on the image is of an earlier time."""
        if self._state.replica.state != "inconsistent":
            self._state.replica.state = "outdated"

    def left(self, *, unusable: bool) -> None:
        """The connection is gone. An image that cannot be used now stays so until the secondary says otherwise."""
        if unusable:
            self._state.replica.state = "inconsistent"

    def remember(self) -> None:
        """Have written down which replica this is, and what is known of it."""
        replica = self._state.replica
        known = replica.identifier, *replica.position, replica.progress
        self._state.effects.add(RememberReplica(*known, in_sync=not replica.initial))

    def remember_when_mapped(self) -> None:
        """After ``connected``: a new replica is written down only after the map that holds all it lacks."""
        self._remember_due = not self._state.replica.scanned or self._mapped_by is not None
        if not self._remember_due:
            self.remember()

    def scanned(self, write: int) -> None:
        """The blocks in use are known; they are in this write of the map, and in all later ones."""
        self._mapped_by = write

    def map_written(self, write: int) -> None:
        """A map is on disk. One that was on its way there when the secondary answered says nothing of what that lacks."""
        if not self._state.replica.scanned or (self._mapped_by is not None and write < self._mapped_by):
            return
        self._mapped_by = None
        if self._remember_due:
            self._remember_due = False
            self.remember()

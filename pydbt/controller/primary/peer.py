"""One secondary of a volume, as the running primary has it: its brain, its connection, its record, its map on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydbt.controller.primary.block_reader import BlockReader
from pydbt.controller.primary.era_recovery import Since
from pydbt.controller.primary.handshake import Refused
from pydbt.controller.primary.holder import Holder
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.peer_connection import PeerConnection
from pydbt.controller.primary.peer_maps import PeerMaps
from pydbt.controller.primary.verification import VolumeVerification
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode
from pydbt.core.primary.reported_state import behind_since
from pydbt.core.volume.saves import Resting
from pydbt.store.intent_file import IntentKeeper
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase


class Peer:
    """Called from the loop's thread alone. ``number`` is the number of its brain, and the slot of its record.

    ``since``: the bound of what is compared with it, where dm-era gives one.
    """

    def __init__(
        self,
        number: int,
        brain: Primary,
        metadata: Metadata,
        maps: PeerMaps,
        connection: PeerConnection,
        blocks: BlockReader,
        holder: Holder,
        verification: VolumeVerification,
        since: Since | None,
    ) -> None:
        self.number, self.brain, self.maps = number, brain, maps
        self.connection, self.blocks, self.holder, self.verification = connection, blocks, holder, verification
        self._metadata = metadata
        self.era = IntentKeeper(metadata.state_dir / metadata.record(number).intent_name)
        self.since = since
        self.refusal: Refused | None = None  # no waiting mends it
        self.in_sync_at: float | None = None
        self.scanned_whole: bool | None = None
        self._resting = Resting()

    @property
    def record(self) -> SecondaryRecord:
        """What is written down of it."""
        return self._metadata.record(self.number)

    @property
    def address(self) -> str:
        return self.record.address

    def note_in_sync(self, heard_until: float) -> None:
        """Remember the last moment of which the secondary has everything. The brain has heard of each write before
        ``heard_until``: a later one may lie in the ring."""
        if self.brain.state.taints:  # what was missed may be older than any such moment
            self.in_sync_at = None
        elif self.brain.state.unwritten.waits:
            pass  # of nothing that a crash forgets
        elif self.brain.mode is Mode.NORMAL:
            until = max(heard_until, self.in_sync_at or heard_until)  # what was true of a moment stays true
            since = behind_since(self.brain.state)
            self.in_sync_at = until if since is None else min(since, until)
        elif self.brain.state.replica.initial:
            # Another replica, or one that was put back: it lacks what the earlier one had.
            self.in_sync_at = None

    def close(self, *, wait: bool = True) -> None:
        """Say goodbye, and let go of what is held. Without ``wait`` the threads end by themselves, and hold nobody up."""
        self.holder.close()
        self.connection.close(wait=wait)
        self.blocks.close(wait=wait)

    def fail(self, reason: str) -> ev.Disconnected:
        """Close its connection, which cannot be used any more; the event for the brain."""
        self.connection.disconnect(reason, farewell=False)
        return ev.Disconnected(reason)

    def forget_era(self) -> None:
        """Forget, durably, the era that was remembered for it. StateError when that fails."""
        self.era.forget()

    # --- its record ---------------------------------------------------------------------------------------
    def remember(self, effect: ev.RememberReplica) -> None:
        """Have it written down which replica this is and how far it is; a failure is logged, and tried again."""
        record, epoch = self.record, self.brain.config.epoch
        scanned = self.scanned_whole
        self._metadata.change_record(
            self.number,
            replica=effect.replica,
            epoch=effect.epoch,
            sequence=effect.sequence,
            progress=effect.progress,
            phase=SyncPhase.REPLICATING if effect.in_sync else record.phase,
            compared_whole=record.compared_whole if scanned is None else scanned and effect.in_sync,
            later_epochs=[epoch] if effect.in_sync and effect.epoch == epoch else record.later_epochs,
            unfinished=self.brain.state.replica.unfinished,
        )
        self._metadata.save()

    def write_down(self, effect: ev.WriteDown) -> None:
        """Have it written down what is known now."""
        self.note()
        self._resting.rest(self._metadata.save().number, effect.number)

    def written_down(self) -> list[ev.WrittenDown]:
        """For the brain: what is on the disk, and was not at the last look."""
        return [ev.WrittenDown(number) for number in self._resting.take(self._metadata.saves.durable)]

    def note(self) -> None:
        """Take down what has changed: taints, a verification that is cut off, how far the replica is. Not written yet."""
        brain = self.brain
        since = {entry["reason"]: entry["since"] for entry in self.record.taints}
        changes: dict[str, Any] = {
            "taints": [{"reason": reason, "since": since.get(reason) or _now()} for reason in brain.state.taints],
            "verify": self.verification.kept(),
            "progress": self.maps.progress(),
        }
        if brain.mode in FOLLOWING_MODES:  # so that one that goes back is noticed
            changes["epoch"], changes["sequence"] = brain.state.replica.position
        self._metadata.change_record(self.number, **changes)

    def taints_changed(self) -> bool:
        """Whether there is a taint that is not written down yet, or one written down that is answered."""
        return [entry["reason"] for entry in self.record.taints] != list(self.brain.state.taints)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

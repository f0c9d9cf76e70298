"""One secondary of a volume, as the running primary has it: its brain, its connection, its record, its map on disk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydbt.controller.primary.configuring import Joining
from pydbt.controller.primary.epoch_shell import EpochShell
from pydbt.controller.primary.handshake import Refused, hello_of
from pydbt.controller.primary.peer_shell import PeerShell
from pydbt.controller.primary.used_blocks import scan
from pydbt.controller.primary.verification import Verification
from pydbt.controller.primary.write_intent import forget
from pydbt.core.errors import PeerError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode
from pydbt.core.protocol.frames import Hello
from pydbt.network.address import split_address
from pydbt.store.map_file import MapHeader, save_map
from pydbt.store.secondary_record import SecondaryRecord, SyncPhase

if TYPE_CHECKING:
    from pydbt.controller.primary.loop import PrimaryLoop


class Peer:
    """Called from the loop's thread alone. ``number`` is that of its brain, and the slot of its record."""

    def __init__(self, loop: PrimaryLoop, slot: int, brain: Primary, joining: Joining) -> None:
        self.number, self.brain, self._loop = slot, brain, loop
        self.since = joining.since
        self.shell = PeerShell(
            loop.options, split_address(self.record.address), joining.secure, loop.capture, loop.reader, loop.geometry,
            self._hello, lambda item: loop.post((self, item)),
        )  # fmt: skip
        self.epochs = EpochShell(
            loop.device, loop.kept.volume, loop.room, self.shell.blocks,
            loop.capture.producer_position, lambda event: loop.post((self, event)),
        )  # fmt: skip
        self.verification = Verification(loop, self)
        self.refusal: Refused | None = None  # it said that no waiting mends it
        self.in_sync_at: float | None = None
        self.remembered_in_sync: str | None = None
        self._scanned_whole: bool | None = None

    @property
    def record(self) -> SecondaryRecord:
        """What is written down of it."""
        return self._loop.kept.record(self.number)

    @property
    def address(self) -> str:
        return self.record.address

    def _hello(self) -> Hello:
        loop = self._loop
        return hello_of(
            loop.kept.volume, loop.device.logical_block_bytes, self.brain.config.epoch, self.record.generations
        )

    def note_in_sync(self, now: float) -> None:
        if self.brain.mode is Mode.NORMAL:
            oldest = self.brain.queue.oldest_arrival()
            self.in_sync_at = now if oldest is None else oldest

    def close(self, *, wait: bool = True) -> None:
        """Say goodbye, and let go of what is held; without ``wait`` what takes its time goes on by itself."""
        self.epochs.close()
        self.shell.close(wait=wait)

    # --- effects ------------------------------------------------------------------------------------------
    def carry_out(self, effect: ev.Effect, answers: list[tuple[int | None, ev.Event]]) -> bool:
        """Do what concerns this secondary alone; False when the effect does not. PeerError: its connection is of no use."""
        if self.shell.carry_out(effect) or self.epochs.carry_out(effect):
            return True
        match effect:
            case ev.Persist():
                answers.append((self.number, self._persist(effect)))
            case ev.ScanUsed(whole=whole):
                self._forget_era()
                used, self._scanned_whole = scan(self._loop.device, self._loop.geometry, whole)
                answers.append((self.number, used))
            case ev.RememberReplica():
                self._remember(effect)
            case ev.VerifyEnded():
                self.verification.ended(effect)
            case _:
                return False
        return True

    def _forget_era(self) -> None:
        """Everything is compared: no power loss from here on may make less of it. PeerError when that cannot be written down."""
        self.since = None
        try:
            forget(self._loop, self)
        except StateError as error:
            raise PeerError(str(error)) from None

    def fail(self, error: PeerError) -> ev.Disconnected:
        """Its connection is of no use any more; what to tell the brain."""
        self.shell.disconnect(str(error), farewell=False)
        return ev.Disconnected(str(error))

    def _persist(self, effect: ev.Persist) -> ev.Persisted:
        try:
            self.write_map()
        except StateError as error:
            return ev.Persisted(zeroed=False, error=str(error), cover=effect.cover)
        return ev.Persisted(zeroed=effect.zero_quiet, cover=effect.cover)

    def write_map(self) -> None:
        """The map to disk; StateError when it cannot be written. Before the scan there is nothing to trust."""
        brain, loop = self.brain, self._loop
        if brain.mapped:
            record, unfinished = self.record, brain.resync.unfinished
            # What would show that the secondary lost what has arrived, before a map that lacks it.
            loop.kept.change_record(self.number, unfinished=unfinished or record.unfinished, progress=self._progress())
            if loop.kept.unsaved or self.record != record:
                loop.kept.save()
            header = MapHeader(loop.kept.volume.uuid, loop.geometry, brain.config.epoch, brain.acknowledged)
            save_map(loop.options.state_dir / self.record.map_name, header, brain.unsynchronized_map())
            loop.kept.change_record(self.number, unfinished=unfinished)

    def _remember(self, effect: ev.RememberReplica) -> None:
        record, epoch = self.record, self.brain.config.epoch
        scanned = self._scanned_whole
        self._loop.kept.change_record(
            self.number,
            replica=effect.replica,
            epoch=effect.epoch,
            sequence=effect.sequence,
            progress=effect.progress,
            phase=SyncPhase.REPLICATING if effect.in_sync else record.phase,
            compared_whole=record.compared_whole if scanned is None else scanned and effect.in_sync,
            later_epochs=[epoch] if effect.in_sync and effect.epoch == epoch else record.later_epochs,
            unfinished=self.brain.resync.unfinished,
        )
        self._loop.kept.save_if_possible()

    def write_intent(self) -> dict[str, Any] | None:
        """For the status: what is remembered of dm-era for this secondary, and what it bounded when this run began."""
        return self._loop.intent.report(self, self.since)

    # --- what lasts ---------------------------------------------------------------------------------------
    def _progress(self) -> int:
        """To be written down: what the replica of the record has told at most. Another one's is remembered with its name."""
        record, brain = self.record, self.brain
        return (
            max(record.progress, brain.replica_progress) if record.replica == brain.known_replica else record.progress
        )

    def note(self) -> bool:
        """Take down what has changed: taints, a verification that is cut off, how far the replica is. True: something has."""
        record, brain = self.record, self.brain
        since = {entry["reason"]: entry["since"] for entry in record.taints}
        changes = {
            "taints": [{"reason": reason, "since": since.get(reason) or _now()} for reason in brain.taints],
            "verify": self.verification.kept(),
            "progress": self._progress(),
        }
        if brain.mode in FOLLOWING_MODES:  # so that one that goes back is noticed
            changes["epoch"], changes["sequence"] = brain.replica_position
        self._loop.kept.change_record(self.number, **changes)
        return self.record != record

    def taints_changed(self) -> bool:
        """Whether there is a taint that is not written down yet, or one written down that is answered."""
        return [entry["reason"] for entry in self.record.taints] != self.brain.taints


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

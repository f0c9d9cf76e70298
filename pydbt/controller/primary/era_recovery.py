"""Bounds what is compared after writes that no program saw, by the eras of dm-era under the volume. Asked when a run begins."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.errors import PydbtError, StateError
from pydbt.core.primary.era_bound import region, why_everything
from pydbt.core.primary.flight_watch import IDLE_AGAIN_S, LONGEST_FLIGHT_S
from pydbt.device.era import EraLayer, era_layer_of
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.atomic import remove_file
from pydbt.store.intent_file import load_intent, save_intent
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VolumeState

# After a power loss, after another system has had the disk, and after a controller that could not detach.
UNTRACKED = "writes may have gone untracked while no program was there to see them"
_LOOK_S = 0.01
_LINK = ": "

_log = logging.getLogger("pydbt")


def untracked_by(link: str) -> str:
    """The taint of a volume whose writes may be missing, with the link of the chain that is missing, where that is known."""
    return UNTRACKED + _LINK + link if link else UNTRACKED


def is_untracked(reason: str) -> bool:
    """Whether a taint is ``UNTRACKED``, whichever link was missing: dm-era bounds what it stands for."""
    return reason == UNTRACKED or reason.startswith(UNTRACKED + _LINK)


@dataclass(frozen=True, slots=True)
class Since:
    """The bound of a comparison: blocks that were written since an era, or were known to differ when it began."""

    era: int
    blocks: DirtyMap
    bytes: int


class EraRecovery:
    """Ask it once the programs are attached: later writes are in their bitmaps, and earlier ones in those of dm-era.

    ``layer`` is the volume's, None where it has no write-intent; ``problem``: why its layer cannot be relied on.
    """

    def __init__(self, device: BlockDevice, state_dir: Path) -> None:
        self._device, self._state_dir = device, state_dir
        self.layer: EraLayer | None = None
        self.problem = ""
        self._waited = False
        try:
            self.layer = era_layer_of(device)
        except (PydbtError, OSError) as error:
            self.problem = str(error)

    def begin(self, records: Collection[SecondaryRecord]) -> None:
        """Before anything is sent. Raises StateError.

        Without a layer nothing stays remembered: a write of this run may reach a secondary before the disk. An era that
        stays remembered gets the name of this run. So the next run sees whether a version without eras ran in between.
        """
        for record in records:
            path = self._state_dir / record.intent_name
            try:
                kept = load_intent(path)
            except StateError:
                kept = None
            if kept is not None and self.layer is not None:
                intent, header, dirty = kept
                save_intent(path, intent, replace(header, epoch=record.later_epochs[-1]), dirty)
            elif path.exists():
                remove_file(path)
        if self.problem:
            _log.warning("the eras that are recorded under the volume cannot be used: %s", self.problem)

    def of(self, state: VolumeState, record: SecondaryRecord) -> Since | None:
        """The blocks to compare with this secondary; None for everything, and then no era is remembered for it any more.

        Raises StateError.
        """
        if self.layer is None and not self.problem:
            return None
        since, reason = self._look(state, record)
        if since is None:
            remove_file(self._state_dir / record.intent_name)
            _log.warning(
                "every block is compared with %s, although dm-era is under the volume: %s", record.address, reason
            )
            return None
        _log.warning(
            "only blocks that may differ from %s are compared: since era %d, %d of %d bytes",
            record.address,
            since.era,
            since.bytes,
            state.size_bytes,
        )
        return since

    def _look(self, state: VolumeState, record: SecondaryRecord) -> tuple[Since | None, str]:
        """The blocks to compare, or the reason why it is everything."""
        if self.layer is None:
            return None, self.problem
        try:
            kept = load_intent(self._state_dir / record.intent_name)
            others = [entry["reason"] for entry in record.taints if not is_untracked(entry["reason"])]
            now = self.layer.now()
            reason = why_everything(kept and kept[0], now, record.replica, others)
            if kept is None or reason:
                return None, reason
            intent, header, dirty = kept
            if header.volume != state.uuid or header.geometry != state.geometry:
                return None, "the era that was remembered was that of another volume"
            if header.epoch not in record.later_epochs[-1:]:
                return None, "a controller that did not know of eras has run since"
            self._let_old_writes_land()
            written = self.layer.written_since(intent.era)
            blocks = region(written, intent.region_bytes, dirty, state.geometry)
        except (PydbtError, ValueError) as error:
            return None, str(error)
        length = min(blocks.count() * state.block_bytes, state.size_bytes)
        return Since(intent.era, blocks, length), ""

    def _let_old_writes_land(self) -> None:
        """A write that was submitted before the programs were attached must have come to dm-era before dm-era is asked.

        The kernel counts none in flight, twice, some time apart; or more time has passed than a write may be in flight.
        """
        if self._waited:
            return
        self._waited = True
        let_land(self._may_have_writes_in_flight, time.monotonic, time.sleep)

    def _may_have_writes_in_flight(self) -> bool:
        # A kernel that keeps no counts of the device says none.
        return not self._device.counts_io() or self._device.in_flight_writes() > 0


def let_land(in_flight: Callable[[], bool], clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Wait for two idle instants that lie apart, or for as long as a write may be in flight at all."""
    until = clock() + LONGEST_FLIGHT_S
    idle_since: float | None = None
    while clock() < until:
        if not in_flight():
            if idle_since is None:
                idle_since = clock()
            elif clock() - idle_since > IDLE_AGAIN_S:
                return
        sleep(_LOOK_S)


def was_bounded(state_dir: Path, record: SecondaryRecord) -> bool:
    """Whether a run that was killed had begun to compare the blocks that dm-era names, and no others.

    When everything is to be compared, the remembered era is removed first.
    """
    try:
        kept = load_intent(state_dir / record.intent_name)
    except StateError:
        return False
    return kept is not None and kept[0].replica == record.replica

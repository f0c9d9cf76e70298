"""Watches what lies below the volume of a run, and keeps the last look for the next start."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from pydbt.controller.primary.era_recovery import UNTRACKED
from pydbt.core.errors import DeviceError
from pydbt.core.tracking.below import Below, change_while_held
from pydbt.device.below import changed_below, look_below
from pydbt.device.sysfs import BlockDevice
from pydbt.store.volume_state import VolumeState

KEY = "below"
"""In ``VolumeState.more``: the last look of a run. In the marker of a clean stop: the look of that moment."""
_ROLLED_BACK = "the content may have changed below the device while no controller ran"

_log = logging.getLogger("pydbt")


def changed_since(state: VolumeState, device: BlockDevice) -> str:
    """Why the content may have changed below the device since the last run; empty when nothing shows that."""
    return changed_below(_kept_of(state), device)


def without_look(more: dict[str, Any]) -> dict[str, Any]:
    """The entries of a volume that no programs track."""
    return {name: value for name, value in more.items() if name != KEY}


def _kept_of(state: VolumeState) -> dict[str, Any] | None:
    kept = state.clean.get(KEY) if state.clean else state.more.get(KEY)
    return kept if isinstance(kept, dict) else None


class BelowWatch:
    """Called from the loop's thread alone. The device is held open, from before the first look to after the last.

    ``changed``: why the content may have changed below the device since the last run. ``kept``: what is to be written down.
    """

    def __init__(self, device: BlockDevice, state: VolumeState) -> None:
        self._device = device
        self._told = ""
        self._last = self._look(groups=True, patient=True)
        self.kept: Below | None = self._last
        self.changed = changed_since(state, device)

    @property
    def untracked(self) -> str:
        """Why writes may be missing from the maps, if they may; dm-era bounds only what are writes to the device."""
        return f"{_ROLLED_BACK}: {self.changed}" if self.changed else UNTRACKED

    def look(self, *, own_snapshots: bool, final: bool = False) -> str:
        """Look once; why the volume is tainted by what this shows, else empty.

        ``own_snapshots``: the run takes snapshots, which change tables and volume groups. ``final``: the run ends.
        """
        before, now = self._last, self._look(groups=final and not own_snapshots, patient=final)
        if now is None:
            return ""
        moved = before is None or now.mappings != before.mappings
        if moved and not own_snapshots and now.groups is None:
            now = self._look(groups=True, patient=False) or now
        if now.groups is None and before is not None and not own_snapshots:
            now = replace(now, groups=before.groups)
        self._last = now
        self._keep(before, now, own_snapshots, final)
        reason = "" if before is None else change_while_held(before, now)
        return f"what lies below the volume has changed: {reason}" if reason else ""

    def _keep(self, before: Below | None, now: Below, own_snapshots: bool, final: bool) -> None:
        """Decide what the next start compares with. A look at a loop device under load would be out of date at once."""
        kept = self.kept or now
        if own_snapshots:  # a killed run's own snapshot is removed before the next start looks
            now = replace(now, mappings=kept.mappings, groups=None)
        elif now.mappings != kept.mappings or now.groups != kept.groups:
            kept = replace(now, files=kept.files)
        files_rest = before is not None and now.at_rest and now.files == before.files
        self.kept = replace(kept, groups=now.groups, files=now.files if files_rest or final else kept.files)

    def _look(self, *, groups: bool, patient: bool) -> Below | None:
        try:
            return look_below(self._device, groups=groups, patient=patient)
        except (DeviceError, OSError) as error:
            if str(error) != self._told:
                self._told = str(error)
                _log.warning("it cannot be seen what lies below %s: %s", self._device.path, error)
            return None

"""Watches what lies below the volume of a run, and keeps the last look for the next start."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydbt.controller.primary.era_recovery import untracked_by
from pydbt.controller.primary.job import Job
from pydbt.core.errors import DeviceError
from pydbt.core.tracking.below import Below, change_while_held, look_to_keep
from pydbt.device.below import changed_below, look_below
from pydbt.device.sysfs import BlockDevice
from pydbt.store.volume_state import VolumeState

KEY = "below"
"""In ``VolumeState.more``: the last look of a run. In the marker of a clean stop: the look of that moment."""
ANSWER_S = 20.0
"""The start and the end of a run wait this long for dmsetup and LVM (which is given up after ten seconds); then it is unknown."""
_SILENT = f"the programs that were asked (dmsetup, vgs) have not answered for more than {ANSWER_S:g} s"
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
    """Called from the loop's thread alone, which never waits for a look: that is a thread's.

    The device is held open, from before the first look to after the last.

    ``changed``: why the content may have changed below the device since the last run. ``kept``: what is to be written down.
    """

    def __init__(self, device: BlockDevice, state: VolumeState) -> None:
        self._device = device
        self._told = ""
        self._last: Below | None = None
        self.kept: Below | None = None
        self._own_snapshots = self._final = False
        self._begun_at = time.monotonic()
        self._job: Job | None = Job("below", lambda: look_below(device, groups=True, patient=True))
        if self._has_ended(ANSWER_S):
            self.kept = self._last = self._result()
        self.changed = self._changed_since(state)

    def untracked(self, link: str) -> str:
        """Why writes may be missing from the maps, if they may; dm-era bounds only what are writes to the device.

        ``link``: the link of the chain that is missing.
        """
        return f"{_ROLLED_BACK}: {self.changed}" if self.changed else untracked_by(link)

    @property
    def problem(self) -> str:
        """Why it is unknown whether the content changes below the device; empty while that is known."""
        if self._job is not None and time.monotonic() > self._begun_at + ANSWER_S:
            self._tell(_SILENT)
        if not self._told:
            return ""
        return (
            f"it is unknown whether the content of {self._device.path} changes below the device ({self._told}): blocks could "
            "then differ until the next verification"
        )

    def begin(self, own_snapshots: bool, then: Callable[[], None] | None = None, *, final: bool = False) -> None:
        """Look in a thread, which calls ``then`` at its end; nothing, while one does.

        ``own_snapshots``: the run takes snapshots, which change tables and volume groups. ``final``: the run ends.
        """
        if self._job is not None:
            return
        self._own_snapshots, self._final, self._begun_at = own_snapshots, final, time.monotonic()
        before = self._last
        self._job = Job("below", lambda: _look(self._device, before, own_snapshots, final), then)

    def take(self) -> str:
        """Why the volume is tainted by the look that has ended, else empty; nothing while it goes on."""
        if not self._has_ended():
            return ""
        before, now = self._last, self._result()
        if now is None:
            return ""
        if now.groups is None and before is not None and not self._own_snapshots:
            now = replace(now, groups=before.groups)
        self._last = now
        self.kept = look_to_keep(self.kept, before, now, own_snapshots=self._own_snapshots, final=self._final)
        reason = "" if before is None else change_while_held(before, now)
        return f"the storage below the volume has changed: {reason}" if reason else ""

    def look(self, *, own_snapshots: bool, final: bool = False) -> str:
        """Look, and take that, when it comes within ``ANSWER_S``. Else the next start compares with an earlier look."""
        reason = self.take() if self._has_ended(ANSWER_S) else ""
        if self._job is None:
            self.begin(own_snapshots, final=final)
            reason = (self.take() if self._has_ended(ANSWER_S) else "") or reason
        return reason

    def _has_ended(self, patience_s: float = 0.0) -> bool:
        return self._job is not None and self._job.ended.wait(patience_s)

    def _result(self) -> Below | None:
        job, self._job = self._job, None
        assert job is not None, "one that has ended"
        if job.error:
            self._tell(job.error)
            return None
        self._told = ""
        found: Below = job.result
        return found

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            _log.warning("it cannot be seen what lies below %s: %s", self._device.path, problem)

    def _changed_since(self, state: VolumeState) -> str:
        if self._job is None:
            compared = Job("below", lambda: changed_since(state, self._device))
            if compared.ended.wait(ANSWER_S) and not compared.error:
                return str(compared.result)
        self._tell(_SILENT)
        return f"it cannot be looked at ({_SILENT})" if _kept_of(state) else ""


def _look(device: BlockDevice, before: Below | None, own_snapshots: bool, final: bool) -> Below:
    """In a thread. LVM is asked only when it may tell something new."""
    now = look_below(device, groups=final and not own_snapshots, patient=final)
    moved = before is None or now.mappings != before.mappings
    if moved and not own_snapshots and now.groups is None:
        with contextlib.suppress(DeviceError, OSError):
            now = look_below(device, groups=True, patient=False)
    return now

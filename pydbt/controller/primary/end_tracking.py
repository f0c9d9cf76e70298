"""Ends the tracking of a volume that no controller serves, with a *closing record* where one can be written.

The record is what ``controller down`` writes of a running controller: the maps with the kernel's bitmaps in them, the file
system's fingerprint, the kernel's counts. It is written last, and the programs stay attached until it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from pydbt.controller.pinned import pinned_names, volume_of
from pydbt.controller.primary.armed import arming_of, as_tracked
from pydbt.controller.primary.below_watch import without_look
from pydbt.controller.primary.leftover import (
    are_of_other_side,
    detach_leftover,
    let_go,
    merge_into_maps,
    pin_dir_of,
    source_of,
)
from pydbt.controller.primary.programs import gap_in_tracking
from pydbt.core.errors import BusyError, PydbtError
from pydbt.device.block import DirectReader
from pydbt.device.clean import CleanStop, clean_marker
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import is_used
from pydbt.kernel.capture import Capture
from pydbt.kernel.replace import finish_replacement, tracked_words
from pydbt.store.map_file import map_digest
from pydbt.store.volume_state import VolumeState, load_state, save_state


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended. ``detached``: there were programs; ``unrecorded``: why there is no closing record, else empty; ``lasting``:
    it has a fingerprint, so that it holds across a boot; ``armed``: the programs were those of ``controller arm``."""

    detached: bool
    unrecorded: str = ""
    lasting: bool = False
    armed: bool = False

    @property
    def words(self) -> str:
        """What becomes of the next run."""
        if self.unrecorded:
            return f"the next run compares the whole volume ({self.unrecorded})"
        if self.lasting:
            return "the next run copies what is out of sync, if nothing writes until then"
        return (
            "the next run copies what is out of sync, if nothing writes until then and the machine is not booted: the device is "
            "in use, or has no file system that was unmounted cleanly"
        )


def end_tracking(state_dir: Path, *, only_unused: bool = False) -> Ended:
    """Call it only when no controller serves the state directory, which the caller holds.

    ``only_unused``: BusyError, and nothing is changed, while anything uses the device. Raises StateError.
    """
    state = load_state(state_dir)
    if state is None:
        return Ended(detached=False)
    pins, device = pin_dir_of(state), source_of(state)
    if not any(volume_of(name) == pins.name for name in pinned_names()) or are_of_other_side(state, state_dir):
        return Ended(detach_leftover(state_dir))  # a freeze or snapshot of a run that was killed may be left
    if only_unused and device is not None and is_used(device):
        raise BusyError(
            f"{device.path} is in use{_where(device)}: unmount it first, or use 'controller down', which takes the programs away "
            "from a device in use as well"
        )
    finish_replacement(pins)
    unrecorded, armed = _why_no_record(state, device), arming_of(state) is not None
    if unrecorded or device is None:
        return Ended(detach_leftover(state_dir), unrecorded, armed=armed)
    with contextlib.suppress(PydbtError):
        let_go(state, device)
    marker = _write_record(state_dir, state, device)
    Capture.remove_pins(pins)
    return Ended(detached=True, lasting=marker["filesystem"] is not None, armed=armed)


def _where(device: BlockDevice) -> str:
    mounts = device.mounts()
    return f" (mounted at {mounts[0].point})" if mounts else ""


def _why_no_record(state: VolumeState, device: BlockDevice | None) -> str:
    """Why the maps and the bitmaps together may lack a block that differs."""
    if device is None:
        return "its device is not there"
    if gap := gap_in_tracking(device, state):
        return gap
    tainted = next((record for record in state.secondaries if record.taints), None)
    return tainted.taints[0]["reason"] if tainted else ""


def _write_record(state_dir: Path, state: VolumeState, device: BlockDevice) -> CleanStop:
    """The counts and the fingerprint are read first: a later write changes them, and an earlier one is in the bitmaps."""
    with DirectReader(device) as reader:
        marker = clean_marker(device, reader)
    words = tracked_words(pin_dir_of(state))
    assert words is not None, "the state directory is held"
    outlived = state.clean is not None  # a record that was followed by a kill, before the programs were taken away
    state = as_tracked(state)
    if outlived:
        save_state(state_dir, state)
    merge_into_maps(state_dir, state, words)
    names = [record.map_name for record in state.secondaries if os.path.exists(state_dir / record.map_name)]
    marker["maps"] = {name: map_digest(state_dir / name) for name in names}
    save_state(state_dir, replace(state, clean=marker, more=without_look(state.more)))
    return marker

"""The programs of a volume: those that ran before are taken over or replaced, otherwise new ones are attached."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.armed import Arming, arming_of, as_tracked
from pydbt.controller.primary.below_watch import changed_since
from pydbt.controller.primary.leftover import merge_into_maps, pin_dir_of, warn_of_others
from pydbt.core.errors import StateError
from pydbt.core.tracking.audit import FAULTS, AuditRecord, grown_faults
from pydbt.core.tracking.chain import ProgramsFound, TrackingFacts, missing_link, tracking_gap
from pydbt.device.block import DirectReader
from pydbt.device.clean import gap_since
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec, require_ready
from pydbt.kernel.pins import OtherVersion
from pydbt.kernel.replace import finish_replacement, replace, tracked_counts, tracked_volume
from pydbt.posix.boot import boot_id
from pydbt.store.volume_state import VolumeState, save_state

_log = logging.getLogger("pydbt")


def volume_spec(device: BlockDevice, block_bytes: int) -> VolumeSpec:
    """The range of sectors to track."""
    return VolumeSpec(
        disk_major=device.disk_major,
        disk_minor=device.disk_minor,
        start_sector=device.start_sector,
        size_sectors=device.size_sectors,
        block_bytes=block_bytes,
        bio_based=device.bio_based,
    )


def still_tracked(device: BlockDevice, state: VolumeState) -> bool:
    """Whether programs, of this version or another, have tracked every change since the last controller ended."""
    finish_replacement(pin_dir_of(state))
    return not gap_in_tracking(device, state)


def gap_in_tracking(device: BlockDevice, state: VolumeState) -> str:
    """Why programs may not have tracked every change since the maps were written; empty when they have. It only looks.

    A device that was away, and perhaps written elsewhere, may come back with its old number.
    """
    pins = pin_dir_of(state)
    try:
        volume = tracked_volume(pins)
    except StateError as error:
        _log.warning("%s", error)
        pinned = ProgramsFound.UNREADABLE
    else:
        is_same = volume == volume_spec(device, state.block_bytes)
        pinned = (
            ProgramsFound.NONE
            if volume is None
            else ProgramsFound.PRESENT
            if is_same
            else ProgramsFound.OF_ANOTHER_RANGE
        )
    facts = TrackingFacts(state.boot_id, boot_id(), state.disk_sequence, device.disk_sequence(), pinned)
    if gap := tracking_gap(facts):
        return gap
    if arming := arming_of(state):
        facts = dataclasses.replace(facts, kept_attachment=arming.attachment, **_found_of(pins, state, arming))
    return tracking_gap(dataclasses.replace(facts, below=changed_since(state, device)))


def missing_link_of(device: BlockDevice, state: VolumeState, reader: DirectReader) -> str:
    """The link by which writes may be missing from the maps; empty when none may be."""
    in_tracking, since_mark = gap_in_tracking(device, state), gap_since(state.clean, device, reader)
    return missing_link(in_tracking, since_mark, marked=bool(state.clean))


def faults_of(pins: Path, state: VolumeState) -> tuple[str, ...]:
    """What the pinned programs have missed since they were audited last. StateError when they cannot be read."""
    found = tracked_counts(pins)
    if found is None:
        return ()
    attachment, counters = found
    kept = AuditRecord.of(state.audit)
    return tuple(grown_faults(kept, attachment, {name: getattr(counters, name) for name in FAULTS}))


def _found_of(pins: Path, state: VolumeState, arming: Arming) -> dict[str, Any]:
    """The attachment of the programs, and what they have missed. Those of another version are taken for those that were armed."""
    try:
        found = tracked_counts(pins)
        faults = faults_of(pins, state)
    except (StateError, OSError) as error:
        _log.warning("%s", error)
        return {"pinned": ProgramsFound.UNREADABLE}
    return {"attachment": arming.attachment if found is None else found[0], "faults": faults}


def open_capture(
    options: PrimaryOptions, device: BlockDevice, state: VolumeState, tracked: bool
) -> tuple[Capture, bool]:
    """The programs, and whether they are those that ran before, with their bitmaps."""
    pins = pin_dir_of(state)
    volume = volume_spec(device, state.block_bytes)
    wanted = CaptureOptions(options.record_ring_bytes, options.data_ring_bytes, payload=options.capture == "payload")
    warn_of_others(pins, device)
    if not tracked:
        known = require_ready(pins)
        Capture.remove_pins(pins)
        if known:
            _log.info("the capture programs, compiled for this kernel before, are being checked by it")
        else:
            _log.info("the capture programs are being compiled and checked for this kernel, which takes some seconds")
        attached = Capture.attach(volume, wanted, pins)
        _log.info("every write to %s is tracked from now on", device.path)
        return attached, False
    try:
        capture = Capture.reopen(pins)
    except OtherVersion as error:
        _log.info("%s", error)
        capture = None
    if capture is not None and capture.options == wanted:
        _log.info("writes were tracked while no controller ran; their programs are taken over")
        capture.release_orphans()
        return capture, True
    if capture is not None:
        capture.close()
    _log.info("writes were tracked while no controller ran; new programs replace the old ones without a gap")

    def keep(words: np.ndarray) -> None:
        if state != as_tracked(state):
            _pass_trust_on(options.state_dir, state, pins)
        merge_into_maps(options.state_dir, as_tracked(state), words)

    return replace(volume, wanted, pins, keep), False


def _pass_trust_on(state_dir: Path, state: VolumeState, pins: Path) -> None:
    """The new programs of a volume that was armed are attached: its state is that of a run from here on."""
    if faults := faults_of(pins, state):
        raise StateError(f"the armed programs missed {faults[0]}: start again, and everything is compared")
    save_state(state_dir, as_tracked(state))

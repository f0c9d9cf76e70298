"""The programs of a volume: those that ran before are taken over or replaced, otherwise new ones are attached."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pydbt.controller.boot_chain import why_unarmed
from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.armed import arming_of, as_tracked
from pydbt.controller.primary.auditor import look_at
from pydbt.controller.primary.below_watch import changed_since
from pydbt.controller.primary.leftover import merge_into_maps, pin_dir_of, warn_of_others
from pydbt.core.errors import DeviceError, StateError
from pydbt.core.tracking.audit import AuditRecord, Look, missed_unaudited
from pydbt.core.tracking.chain import ProgramsFound, TrackingFacts, missing_link, tracking_gap
from pydbt.device.block import DirectReader
from pydbt.device.clean import gap_since
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec, require_ready
from pydbt.kernel.pins import OtherVersion
from pydbt.kernel.replace import finish_replacement, replace, tracked_volume
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
    facts = dataclasses.replace(facts, **_found_of(device, state))
    return tracking_gap(dataclasses.replace(facts, below=changed_since(state, device)))


class Chain(NamedTuple):
    """``tracked``: programs have seen every write; ``untouched``: there was none since the closing record. ``link``: what is
    missing when neither holds, else empty."""

    tracked: bool
    untouched: bool
    link: str


def chain_of(device: BlockDevice, state: VolumeState, reader: DirectReader, unarmed: Callable[[], str] = str) -> Chain:
    """By which way the maps are known to lack no write. Each fact is read once, so that the three answers fit together.

    ``unarmed`` gives the words for ``missing_link``, and is asked only where a link is missing.
    """
    finish_replacement(pin_dir_of(state))
    in_tracking, since_closing = gap_in_tracking(device, state), gap_since(state.clean, device, reader)
    why = unarmed() if in_tracking and since_closing else ""
    link = missing_link(in_tracking, since_closing, closed=bool(state.clean), unarmed=why)
    return Chain(not in_tracking, not since_closing, link)


def unarmed_of(options: PrimaryOptions, state: VolumeState, device: BlockDevice) -> str:
    """Why this boot did not arm the volume before its mount, if the state is of an earlier boot and that is known; else empty."""
    if state.boot_id == boot_id():
        return ""
    return why_unarmed(options.volume_file, options.source, device, options.state_dir)


def missed_by_programs(device: BlockDevice, state: VolumeState) -> tuple[str, ...]:
    """What the pinned programs have missed since they were audited last. StateError or DeviceError when nobody can tell."""
    look = _look_at_pinned(device, state)
    return () if look is None else tuple(missed_unaudited(_audited(state), look))


def _look_at_pinned(device: BlockDevice, state: VolumeState) -> Look | None:
    """None where there are no programs, and for those of another version."""
    try:
        capture = Capture.reopen(pin_dir_of(state))
    except OtherVersion:
        return None
    if capture is None:
        return None
    try:
        return look_at(device, capture)
    finally:
        capture.close()


def _audited(state: VolumeState) -> AuditRecord:
    try:
        return AuditRecord.of(state.audit)
    except (ValueError, TypeError):
        return AuditRecord()  # of which nothing was told


def _found_of(device: BlockDevice, state: VolumeState) -> dict[str, Any]:
    """The attachment of the programs, and what they have missed. Those of another version are taken for those that were armed."""
    arming = arming_of(state)
    try:
        look = _look_at_pinned(device, state)
    except (StateError, DeviceError, OSError) as error:
        _log.warning("%s", error)
        return {"pinned": ProgramsFound.UNREADABLE}
    kept = arming.attachment if arming else ""
    if look is None:
        return {"kept_attachment": kept, "attachment": kept}
    faults = tuple(missed_unaudited(_audited(state), look))
    return {"kept_attachment": kept, "attachment": look.attach, "faults": faults}


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
        if missed := missed_by_programs(device, state):
            raise StateError(f"the programs of before missed {missed[0]}: start again, and everything is compared")
        if state != as_tracked(state):  # of a volume that was armed, it is that of a run from here on
            save_state(options.state_dir, as_tracked(state))
        merge_into_maps(options.state_dir, as_tracked(state), words)

    return replace(volume, wanted, pins, keep), False

"""The programs of a volume: those that ran before are taken over or replaced, otherwise new ones are attached."""

from __future__ import annotations

import logging

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.below_watch import changed_since
from pydbt.controller.primary.leftover import merge_into_maps, pin_dir_of, warn_of_others
from pydbt.core.errors import StateError
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec, require_ready
from pydbt.kernel.pins import OtherVersion
from pydbt.kernel.replace import finish_replacement, replace, tracked_volume
from pydbt.posix.boot import boot_id
from pydbt.store.volume_state import VolumeState

_log = logging.getLogger("pydbt")


def _volume_spec(device: BlockDevice, block_bytes: int) -> VolumeSpec:
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
    pins = pin_dir_of(state)
    finish_replacement(pins)
    try:
        volume = tracked_volume(pins)
    except StateError as error:
        _log.warning("%s", error)
        return False
    # A device that was away, and perhaps written elsewhere, may come back with its old number.
    same = state.boot_id == boot_id() and state.disk_sequence == device.disk_sequence()
    return same and volume == _volume_spec(device, state.block_bytes) and not changed_since(state, device)


def open_capture(
    options: PrimaryOptions, device: BlockDevice, state: VolumeState, tracked: bool
) -> tuple[Capture, bool]:
    """The programs, and whether they are those that ran before, with their bitmaps."""
    pins = pin_dir_of(state)
    volume = _volume_spec(device, state.block_bytes)
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
    return replace(volume, wanted, pins, lambda words: merge_into_maps(options.state_dir, state, words)), False

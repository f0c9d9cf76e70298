"""Removes what a dead controller left in the kernel, without losing the writes that it had tracked."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pydbt.controller.control import call
from pydbt.controller.pinned import pinned_names, volume_of
from pydbt.controller.registry import PINS, RUN_DIR, claimed_source, state_dir_of
from pydbt.core.errors import BusyError, DeviceError, MachineError, PydbtError, StateError, UsageError
from pydbt.device.freeze import thaw_leftover
from pydbt.device.sysfs import BlockDevice
from pydbt.posix.disk_identity import differing_kinds
from pydbt.store.map_file import load_map, map_digest, save_map
from pydbt.store.map_image import MapHeader
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VolumeState, load_state, save_state

_ANSWER_S = 5.0

_log = logging.getLogger(__name__)


def pin_dir_of(state: VolumeState) -> Path:
    """Where the programs of a volume are pinned."""
    return PINS / state.uuid.hex


def is_tracked(state_dir: str | os.PathLike[str]) -> bool:
    """Whether the programs of the volume of a state directory are in the kernel; False when that is unknown."""
    try:
        state = load_state(state_dir)
        return state is not None and pin_dir_of(state).name in pinned_names() and not tracks_another(state)
    except (PydbtError, OSError):
        return False


def tracks_another(state: VolumeState) -> bool:
    """Whether the programs of the volume track another device than that of this side, for example of its other side, if that is
    on this machine: its programs have the same name. False when that is unknown. MachineError."""
    return bool(_tracked_elsewhere(state))


def are_of_other_side(state: VolumeState, state_dir: str | os.PathLike[str]) -> bool:
    """Whether they belong to another state directory of the same volume, which knows the device that they track. MachineError."""
    return any(_is_kept_elsewhere(device, state, state_dir) for device in _tracked_elsewhere(state))


def _tracked_elsewhere(state: VolumeState) -> list[BlockDevice]:
    own = source_of(state)
    found = [one.device for one in pinned_programs(state.uuid.hex)]
    return [device for device in found if device is not None and _is_another(device, own, state)]


def _is_another(device: BlockDevice, own: BlockDevice | None, state: VolumeState) -> bool:
    if (
        own is None
    ):  # it is gone, or something else has its path; or it is a target that was promoted, and is an image file
        return bool(differing_kinds(state.source, device.identity())) or _is_image(state)
    return device.number != own.number


def _is_image(state: VolumeState) -> bool:
    return not state.source and Path(state.source_path).is_file()


def _is_kept_elsewhere(device: BlockDevice, state: VolumeState, state_dir: str | os.PathLike[str]) -> bool:
    place = state_dir_of(device)
    if place is None or os.path.realpath(place) == os.path.realpath(state_dir):
        return False
    with contextlib.suppress(StateError):
        other = load_state(place)
        return other is not None and other.uuid == state.uuid
    return False


def hold_file_of(state: VolumeState) -> Path:
    """The file that is there while file systems of this volume are frozen."""
    return RUN_DIR / f"held-{state.uuid.hex}"


def let_go(state: VolumeState, device: BlockDevice | None) -> None:
    """Undo what a killed run of this volume left behind: a freeze, if its helper was killed too, or a snapshot.

    ``device`` None: the volume itself is gone.
    """
    if thaw_leftover(hold_file_of(state)):
        _log.warning("a run that was killed had left file systems frozen; they are thawed")
    from pydbt.device.snapshot import Room, remove_left  # of device-mapper, which a status does without

    try:
        if remove_left(Room(state.uuid.hex), device):
            _log.info("a run that was killed had left a snapshot; it is removed")
    except DeviceError as error:
        _log.warning("a snapshot of a run that was killed could not be removed: %s", error)


def detach_leftover(state_dir: str | os.PathLike[str]) -> bool:
    """Detach a volume's pinned programs after their bitmaps are safe in the map files; False when there are none.

    Call it only when no controller serves the state directory. Everything the kernel tracked is in the maps
    before anything is detached, so that a failure on the way loses nothing and can be repeated. Programs that
    cannot be read any more are detached all the same: the next run finds no tracking and compares everything.
    """
    state = load_state(state_dir)
    if state is None:
        return False
    with contextlib.suppress(PydbtError):
        let_go(state, source_of(state))
    # Only now: no other command needs the eBPF side.
    from pydbt.kernel.capture import Capture
    from pydbt.kernel.replace import finish_replacement, tracked_words

    pin_dir = pin_dir_of(state)
    if not any(volume_of(name) == pin_dir.name for name in pinned_names()) or are_of_other_side(state, state_dir):
        return False
    finish_replacement(pin_dir)  # of which only the new programs may be there
    if not pin_dir.exists():
        return False
    try:
        tracked = tracked_words(pin_dir)
    except StateError as error:
        _log.warning("the tracked blocks cannot be read (%s); the next run compares the whole volume", error)
        tracked = None
    if tracked is not None:
        if state.clean is not None:  # its maps are not those of that mark any more
            state = replace(state, clean=None)
            save_state(state_dir, state)
        merge_into_maps(state_dir, state, tracked)
    Capture.remove_pins(pin_dir)
    return True


@dataclass(frozen=True, slots=True)
class Pinned:
    """Programs in the kernel. ``device`` is the tracked device; None when it is gone, or the programs cannot be read."""

    name: str
    device: BlockDevice | None
    number: str


def pinned_programs(volume: str = "") -> list[Pinned]:
    """All volumes whose programs are in the kernel, also of state directories that nobody knows any more; or only a named one.

    MachineError when that is unknown.
    """
    from pydbt.kernel.replace import tracked_volume

    found = []
    for name in pinned_names():
        if volume and volume_of(name) != volume:
            continue
        try:
            spec = tracked_volume(PINS / name)
        except (PydbtError, OSError):
            spec = None
        number = "" if spec is None else f"{spec.disk_major}:{spec.disk_minor}"
        device = None if spec is None else _device_at(spec.disk_major, spec.disk_minor, spec.start_sector)
        found.append(Pinned(name, device, number))
    return found


def detach_pinned(name: str) -> None:
    """Take the programs of a volume out of the kernel. What they tracked is lost: its next run compares everything.

    BusyError when a controller serves that volume; UsageError when there are none of that name.
    """
    from pydbt.kernel.capture import Capture

    pinned = next((one for one in pinned_programs() if one.name == name), None)
    if pinned is None:
        raise UsageError(f"no programs of a volume {name} are in the kernel: 'controller status' lists those that are")
    with contextlib.ExitStack() as stack:
        if pinned.device is not None:
            try:
                stack.enter_context(claimed_source(pinned.device))
            except BusyError:
                if not _serves_another(pinned.device, name):
                    raise
        Capture.remove_pins(PINS / name)


def warn_of_others(own: Path, device: BlockDevice) -> None:
    """Log programs of other volumes that track the device too: a state directory was lost, or there are two."""
    try:
        found = pinned_programs()
    except MachineError:
        return  # programs that are attached there are refused with the reason
    for one in found:
        if one.device is not None and one.device.number == device.number and volume_of(one.name) != own.name:
            _log.warning(
                "programs of another volume, %s, track %s too, which costs every write: take them away with "
                "'controller down --volume %s', unless its state directory is still in use",
                one.name, device.path, one.name,
            )  # fmt: skip


def _serves_another(device: BlockDevice, name: str) -> bool:
    """Whether the controller of a device answers, and serves another volume than ``name``."""
    place = state_dir_of(device)
    try:
        volume = call(place, {"command": "status"}, _ANSWER_S).get("volume") if place is not None else None
    except PydbtError:
        return False  # it starts or ends, and may be about to use them
    return isinstance(volume, str) and volume.replace("-", "") != volume_of(name)


def _device_at(disk_major: int, disk_minor: int, start_sector: int) -> BlockDevice | None:
    try:
        disk = BlockDevice.from_number(disk_major, disk_minor)
        return next((part for part in (disk, *disk.partitions()) if part.start_sector == start_sector), None)
    except PydbtError:
        return None


def source_of(state: VolumeState) -> BlockDevice | None:
    """The device of a volume; None when it is gone, and something else may have its path."""
    try:
        source = BlockDevice.identify(state.source_path)
    except PydbtError:
        return None
    has_medium = source.size_sectors > 0  # a loop device without its file stays, and has no names
    return source if has_medium and not differing_kinds(state.source, source.identity()) else None


def merge_into_maps(state_dir: str | os.PathLike[str], state: VolumeState, words: np.ndarray) -> None:
    """Add blocks (one bit per block) to every secondary's map file, durably. StateError when one cannot be read or written.

    Where there is no map, none is made: it would look as if it named all blocks that differ.
    """
    for record in state.secondaries:
        map_path = Path(state_dir) / record.map_name
        kept = load_map(map_path)
        if kept is None:
            continue
        header, dirty = kept
        require_map_of(state, record, header, map_path)
        dirty.merge_words(words)
        save_map(map_path, header, dirty)


def require_map_of(state: VolumeState, record: SecondaryRecord, header: MapHeader, map_path: Path) -> None:
    """StateError when a map is not that of the volume, or not the one that was left there for this secondary."""
    if header.volume != state.uuid or header.geometry != state.geometry:
        raise StateError(f"{map_path} belongs to another volume: begin anew with an empty directory")
    left = (state.clean or {}).get("maps", {}).get(map_path.name)
    if (record.later_epochs and header.epoch not in record.later_epochs) or left not in (None, map_digest(map_path)):
        raise StateError(
            f"{map_path} is an older map than the one that was left there: move it away, and the volume is compared as a whole"
        )

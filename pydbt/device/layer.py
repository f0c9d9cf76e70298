"""A device-mapper layer on a raw disk, made before the disk is mounted: for snapshots, or for the eras of its regions.

``/dev/mapper/NAME`` is a snapshot-origin target over the disk, and passes everything through while there is no snapshot. Its
``NAME-space`` is the device for the data that a snapshot keeps. With eras, ``NAME-era`` lies between the two, and
``NAME-era-metadata`` is the part of the metadata device behind this program's header. The origin on top blocks discards, of
which dm-era would record the first region only. All of these devices end with a reboot, and the same command makes them
again. The records of dm-era stay on its metadata device. Sources: drivers/md/dm-snap.c, drivers/md/dm-era-target.c, and both
texts in Documentation/admin-guide/device-mapper.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass

from pydbt.core.errors import BusyError, MachineError, UsageError
from pydbt.core.units import SECTOR_BYTES
from pydbt.device import mapper
from pydbt.device.checks import require_own_way, require_unused
from pydbt.device.era_metadata import ERA_START_BYTES, finish_era_metadata, prepare_era_metadata
from pydbt.device.sysfs import BlockDevice

LAYER_UUID = "PYDBT-LAYER-"
_SPACE_UUID = "PYDBT-SPACE-"
_ERA_UUID = "PYDBT-ERA-"
_METADATA_UUID = "PYDBT-METADATA-"
ERA_SUFFIX = "-era"
METADATA_SUFFIX = "-era-metadata"
_SPACE_SUFFIX = "-space"
# From the top down.
_SUFFIXES = ("", ERA_SUFFIX, METADATA_SUFFIX, _SPACE_SUFFIX)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,63}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. It has one snapshot at a time, always of the same name, so that a leftover one is found."""

    name: str
    kind = "snapshot"

    @property
    def snapshot(self) -> str:
        """The name of its snapshot in /dev/mapper."""
        return f"{self.name}-pydbt-snapshot"

    def take(self) -> BlockDevice:
        """Take a snapshot. CommandFailed when that fails; the layer is not suspended then."""
        self.remove_leftover()
        sectors, (origin, *_) = mapper.only_target(self.name, "snapshot-origin")
        space = mapper.number_of(f"{self.name}{_SPACE_SUFFIX}")
        mapper.create_snapshot(self.snapshot, self.name, sectors, origin, space)
        mapper.take_snapshot(self.name, self.snapshot)
        return mapper.device_of(self.snapshot)

    def remove_leftover(self) -> bool:
        """Remove the snapshot, and resume the layer when it is suspended. Returns whether there was a snapshot."""
        if not mapper.exists(self.snapshot):
            return False
        if mapper.is_suspended(self.name):
            mapper.forget_loaded(self.name)
        mapper.remove_device(self.snapshot)
        return True


def layer_of(device: BlockDevice) -> Layer | None:
    """The layer that a device is, when snapshots can be taken of it; else None."""
    name = layer_name(device)
    return Layer(name) if name and os.path.exists(f"/dev/mapper/{name}{_SPACE_SUFFIX}") else None


def create_layer(
    path: str, name: str, space_path: str | None, metadata_path: str | None = None, region_bytes: int | None = None
) -> str:
    """Make ``/dev/mapper/name`` over a device, and return its path. Nothing is written to the device itself.

    Snapshots overwrite the content of ``space_path``. On ``metadata_path`` dm-era records the written regions, each of
    ``region_bytes``; metadata that were made there for this device are continued.
    """
    if shutil.which("dmsetup") is None:
        raise MachineError("dmsetup is not installed: install it (Debian: dmsetup)")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a name for a layer: use letters, digits, _ and . (up to 64)")
    if space_path is None and metadata_path is None:
        raise UsageError("a layer needs --snapshot-space DEVICE, or --era METADATA_DEVICE, or both")
    if metadata_path is None and region_bytes is not None:
        raise UsageError("--era-region is the size of the regions that --era records: give both, or neither")
    if mapper.is_named(name):
        raise BusyError(f"/dev/mapper/{name} exists already: choose another name")
    for typed in (path, space_path, metadata_path):
        if typed is not None:
            require_own_way(typed, "the device")
    device = BlockDevice.identify(path)
    space = None if space_path is None else BlockDevice.identify(space_path)
    metadata = None if metadata_path is None else BlockDevice.identify(metadata_path)
    if space is not None and device.overlaps(space):
        raise UsageError(f"the snapshot space {space_path} is (a part of) {path} itself: name another device")
    named = [(device, path)]
    if space is not None and space_path is not None:
        named.append((space, space_path))
    if metadata is not None and metadata_path is not None:
        for one, given in named:
            if metadata.overlaps(one):
                raise UsageError(
                    f"the era metadata's {metadata_path} is (a part of) {given} itself: name another device"
                )
        named.append((metadata, metadata_path))
    for one, given in named:
        require_unused(one, given)
    if metadata is not None and shutil.which("era_invalidate") is None:
        raise MachineError("era_invalidate is not installed: install it (Debian: thin-provisioning-tools)")
    with contextlib.ExitStack() as undo:
        if space is not None:
            _make(undo, name, _SPACE_SUFFIX, _SPACE_UUID, space.size_sectors, f"linear {mapper.number(space)} 0")
        below = mapper.number(device)
        if metadata is not None:
            below = _make_era(undo, name, device, metadata, region_bytes)
        _make(undo, name, "", LAYER_UUID, device.size_sectors, f"snapshot-origin {below}")
        undo.pop_all()
    return f"/dev/mapper/{name}"


def remove_layer(name: str) -> None:
    """Remove a layer. Its device stays as it is. BusyError while the layer is in use.

    The remains of an interrupted creation or removal are removed as well.
    """
    name = name.removeprefix("/dev/mapper/")
    path = f"/dev/mapper/{name}"
    standing = [suffix for suffix in _SUFFIXES if _is_ours(name, suffix)]
    if not standing or (os.path.exists(path) and "" not in standing):
        raise UsageError(f"{name} is not a layer made by 'controller layer create'")
    if "" in standing:
        require_unused(BlockDevice.identify(path), path)
        Layer(name).remove_leftover()
    for suffix in standing:
        mapper.remove_device(f"{name}{suffix}")


def _make_era(
    undo: contextlib.ExitStack, name: str, device: BlockDevice, metadata: BlockDevice, region_bytes: int | None
) -> str:
    """Make ``NAME-era`` and return its number. The kernel opens metadata that it finds, and makes new ones in zeroes."""
    header = prepare_era_metadata(metadata, device, region_bytes)
    start = ERA_START_BYTES // SECTOR_BYTES
    linear = f"linear {mapper.number(metadata)} {start}"
    at = _make(undo, name, METADATA_SUFFIX, _METADATA_UUID, metadata.size_sectors - start, linear)
    table = f"era {at} {mapper.number(device)} {header.region_bytes // SECTOR_BYTES}"
    number = _make(undo, name, ERA_SUFFIX, _ERA_UUID, device.size_sectors, table)
    finish_era_metadata(metadata, header)
    return number


def _make(undo: contextlib.ExitStack, name: str, suffix: str, uuid: str, sectors: int, target: str) -> str:
    """Make a device of one target, which ``undo`` removes, and return its number."""
    full = f"{name}{suffix}"
    mapper.create_device(full, f"{uuid}{name}", sectors, target)
    undo.callback(mapper.remove_device, full)
    return mapper.number_of(full)


def layer_name(device: BlockDevice) -> str:
    """The name of the layer that a device is; empty for other devices."""
    uuid = device.identity().get("dm_uuid", "")
    return uuid.removeprefix(LAYER_UUID) if uuid.startswith(LAYER_UUID) else ""


def _is_ours(name: str, suffix: str) -> bool:
    uuids = {"": LAYER_UUID, ERA_SUFFIX: _ERA_UUID, METADATA_SUFFIX: _METADATA_UUID, _SPACE_SUFFIX: _SPACE_UUID}
    return mapper.uuid_of(f"{name}{suffix}") == f"{uuids[suffix]}{name}"

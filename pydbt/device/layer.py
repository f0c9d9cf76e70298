"""A device-mapper layer on a raw disk, made before it is mounted: for snapshots, or for the eras in which regions are written.

``/dev/mapper/NAME`` is a snapshot-origin target over the disk, and passes everything through until a snapshot stands; its
``NAME-space`` holds the device for what a snapshot keeps. With eras ``NAME-era`` lies between the two, and
``NAME-era-metadata`` is the part of the metadata device behind this program's header. The origin on top lets no discard
through, of which dm-era would record the first region alone. All go with a reboot, and are made again by the same command;
what dm-era has recorded stays on its device (drivers/md/dm-snap.c, drivers/md/dm-era-target.c, and the texts on both in
Documentation/admin-guide/device-mapper). It is done by way of ``mapper``.
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
from pydbt.device.checks import require_unused
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
    """One layer. Its snapshot, of which there is one at a time, has a name of its own, by which a leftover is known."""

    name: str
    kind = "snapshot"

    @property
    def snapshot(self) -> str:
        """The name of its snapshot in /dev/mapper."""
        return f"{self.name}-pydbt-snapshot"

    def take(self) -> BlockDevice:
        """A snapshot of now. CommandFailed when there is none to be had; the layer is not suspended then."""
        self.remove_leftover()
        sectors, (origin, *_) = mapper.only_target(self.name, "snapshot-origin")
        space = mapper.number_of(f"{self.name}{_SPACE_SUFFIX}")
        mapper.create_snapshot(self.snapshot, self.name, sectors, origin, space)
        mapper.take_snapshot(self.name, self.snapshot)
        return mapper.device_of(self.snapshot)

    def remove_leftover(self) -> bool:
        """Remove the snapshot, and let the layer go on if it is suspended; whether there was any."""
        if not mapper.exists(self.snapshot):
            return False
        if mapper.is_suspended(self.name):
            mapper.forget_loaded(self.name)
        mapper.remove_device(self.snapshot)
        return True


def layer_of(device: BlockDevice) -> Layer | None:
    """The layer that a device is, if it is one, and one that snapshots can be taken of."""
    name = layer_name(device)
    return Layer(name) if name and os.path.exists(f"/dev/mapper/{name}{_SPACE_SUFFIX}") else None


def create_layer(
    path: str, name: str, space_path: str | None, metadata_path: str | None = None, region_bytes: int | None = None
) -> str:
    """Make ``/dev/mapper/name`` over a device; what it is. Nothing is written to the device itself.

    What ``space_path`` holds is overwritten by snapshots. On ``metadata_path`` dm-era records what is written, in regions of
    ``region_bytes``; metadata that were made there for this device are gone on with.
    """
    if shutil.which("dmsetup") is None:
        raise MachineError("dmsetup is not installed here: install it (Debian: dmsetup)")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a layer: use letters, digits, _ and . (up to 64)")
    if space_path is None and metadata_path is None:
        raise UsageError("a layer is of use with --snapshot-space DEVICE, or --era METADATA_DEVICE, or both: name one")
    if metadata_path is None and region_bytes is not None:
        raise UsageError("--era-region says how --era records what is written: give both, or none")
    if mapper.is_named(name):
        raise BusyError(f"/dev/mapper/{name} exists already: choose another name")
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
        raise MachineError("era_invalidate is not installed here: install it (Debian: thin-provisioning-tools)")
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
    """Take a layer away, and leave its device as it is. BusyError while it is in use.

    What is left of one whose removal or making was cut off goes as well.
    """
    name = name.removeprefix("/dev/mapper/")
    path = f"/dev/mapper/{name}"
    standing = [suffix for suffix in _SUFFIXES if _is_ours(name, suffix)]
    if not standing or (os.path.exists(path) and "" not in standing):
        raise UsageError(f"{name} is no layer made by 'controller layer create'")
    if "" in standing:
        require_unused(BlockDevice.identify(path), path)
        Layer(name).remove_leftover()
    for suffix in standing:
        mapper.remove_device(f"{name}{suffix}")


def _make_era(
    undo: contextlib.ExitStack, name: str, device: BlockDevice, metadata: BlockDevice, region_bytes: int | None
) -> str:
    """The number of ``NAME-era``. The kernel opens the metadata that are there, and makes new ones where all is zero."""
    header = prepare_era_metadata(metadata, device, region_bytes)
    start = ERA_START_BYTES // SECTOR_BYTES
    linear = f"linear {mapper.number(metadata)} {start}"
    at = _make(undo, name, METADATA_SUFFIX, _METADATA_UUID, metadata.size_sectors - start, linear)
    table = f"era {at} {mapper.number(device)} {header.region_bytes // SECTOR_BYTES}"
    number = _make(undo, name, ERA_SUFFIX, _ERA_UUID, device.size_sectors, table)
    finish_era_metadata(metadata, header)
    return number


def _make(undo: contextlib.ExitStack, name: str, suffix: str, uuid: str, sectors: int, target: str) -> str:
    """The number of a new device of one target, which ``undo`` takes away again."""
    full = f"{name}{suffix}"
    mapper.create_device(full, f"{uuid}{name}", sectors, target)
    undo.callback(mapper.remove_device, full)
    return mapper.number_of(full)


def layer_name(device: BlockDevice) -> str:
    """The name of the layer that a device is; empty when it is none."""
    uuid = device.identity().get("dm_uuid", "")
    return uuid.removeprefix(LAYER_UUID) if uuid.startswith(LAYER_UUID) else ""


def _is_ours(name: str, suffix: str) -> bool:
    uuids = {"": LAYER_UUID, ERA_SUFFIX: _ERA_UUID, METADATA_SUFFIX: _METADATA_UUID, _SPACE_SUFFIX: _SPACE_UUID}
    return mapper.uuid_of(f"{name}{suffix}") == f"{uuids[suffix]}{name}"

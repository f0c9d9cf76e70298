"""Snapshots of volumes, one at a time: logical volumes by LVM's own commands, this project's layers by dmsetup.

``lvcreate`` freezes the file system on the volume, waits for what is in flight, and lets writers go on once the snapshot
stands. A classic snapshot (dm-snapshot) keeps what is overwritten in a store of a given size, and is
invalid once that is full: its reads fail then, and its status says so, which is looked at after the last read. A thin one
shares a pool, which may fill up as well.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass

from pydbt.core.units import MIB
from pydbt.device.commands import CommandFailed, run_command
from pydbt.device.layer import Layer, layer_of
from pydbt.device.sysfs import BlockDevice

# A snapshot of an epoch lives for seconds: a twentieth of the volume is plenty, and little is little.
DEFAULT_SPACE_FRACTION = 20
LEAST_SPACE_BYTES = 64 * MIB
# What is still open for a moment (udev looks at every new device) is let go soon.
_REMOVE_TRIES = 20
_REMOVE_PAUSE_S = 0.25
# LVM keeps a file in /etc/lvm/archive of every change, for a month: not of two changes every few seconds.
_NO_ARCHIVE = ("--config", "backup { backup=0 archive=0 }")


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """An LVM volume that can have snapshots. ``name`` is GROUP/VOLUME."""

    name: str
    group: str
    thin: bool

    @property
    def kind(self) -> str:
        return "thin" if self.thin else "snapshot"


def logical_volume(device: BlockDevice) -> LogicalVolume | None:
    """The logical volume that a device is, if it is one that snapshots can be taken of, and LVM is there to take them."""
    if not device.identity().get("dm_uuid", "").startswith("LVM-") or shutil.which("lvs") is None:
        return None
    # By number: LVM knows names of its own, and no /dev/dm-0.
    selected = f"lv_kernel_major={device.major} && lv_kernel_minor={device.minor}"
    volumes = _report("lvs", "-o", "vg_name,lv_name,segtype,lv_attr", "--select", selected)
    if len(volumes) != 1 or volumes[0]["lv_attr"][:1] not in ("-", "o", "O", "V"):
        return None  # a snapshot itself, a RAID, a cache: their snapshots are not for us
    found = volumes[0]
    return LogicalVolume(f"{found['vg_name']}/{found['lv_name']}", found["vg_name"], found["segtype"] == "thin")


def snapshotable(device: BlockDevice) -> LogicalVolume | Layer | None:
    """What snapshots can be taken of, if the device is such a thing."""
    return layer_of(device) or logical_volume(device)


class Snapshots:
    """Takes at most one snapshot at a time of a volume, always of the same name: a leftover is known by it.

    ``tag`` names the volume (its identifier); ``space_bytes`` bounds the store of a classic snapshot.
    """

    def __init__(self, tag: str, space_bytes: int | None) -> None:
        self._name = f"pydbt_{tag}"
        self._space_bytes = space_bytes
        self._standing: LogicalVolume | Layer | None = None

    def take(self, volume: LogicalVolume | Layer, device: BlockDevice) -> BlockDevice:
        """A snapshot of now. CommandFailed when there is no room for it, or LVM does not want to."""
        self.remove_leftover(volume)
        if isinstance(volume, Layer):
            self._standing = volume
            return volume.take()
        command = ["lvcreate", *_NO_ARCHIVE, "--yes", "--monitor", "n", "--snapshot", "--name", self._name]
        if volume.thin:
            command += ["--setactivationskip", "n"]
        else:
            wanted = max(device.size_bytes // DEFAULT_SPACE_FRACTION, LEAST_SPACE_BYTES)
            command += ["--size", f"{self._space_bytes or wanted}b"]
        self._standing = volume
        run_command(*command, volume.name)
        found = _report("lvs", "-o", "lv_kernel_major,lv_kernel_minor", self._full(volume))[0]
        number = int(found["lv_kernel_major"]), int(found["lv_kernel_minor"])
        if min(number) < 0:
            raise CommandFailed(f"the snapshot {self._full(volume)} was made and is not active")
        return BlockDevice.from_number(*number, f"/dev/{self._full(volume)}")

    def problem(self, volume: LogicalVolume | Layer) -> str:
        """Why what was read of the snapshot is not to be trusted; empty when it is whole."""
        name = volume.snapshot if isinstance(volume, Layer) else _mapper_name(volume.group, self._name)
        status = run_command("dmsetup", "status", name).split()
        # "0 SECTORS snapshot USED/TOTAL METADATA", or a word instead; "0 SECTORS thin MAPPED HIGHEST", or "Fail".
        words = status[3:4]
        if status[2:3] == ["snapshot"] and words and "/" in words[0]:
            used, total = (int(number) for number in words[0].split("/"))
            return "" if used < total else f"the snapshot's store of {total * 512} bytes is full"
        if status[2:3] == ["thin"] and words and (words[0].isdigit() or words[0] == "-"):
            return ""
        reason = " ".join(words) or "unknown"
        return (
            f"the snapshot became invalid ({reason}) before everything was read: its store was full (--snapshot-space)"
            if status[2:3] == ["snapshot"]
            else f"the thin snapshot failed ({reason}): look at the pool of {volume.name}"
        )

    def remove(self) -> None:
        """Remove the snapshot that stands, if any. DeviceError when that does not work; the next take tries again."""
        volume, self._standing = self._standing, None
        if volume is not None:
            self.remove_leftover(volume)

    def remove_leftover(self, volume: LogicalVolume | Layer) -> bool:
        """Remove what a run that was killed left behind; whether there was any."""
        if isinstance(volume, Layer):
            return volume.remove_leftover()
        for attempt in range(_REMOVE_TRIES):
            found = _report("lvs", "-o", "lv_name", "--select", f"lv_name={self._name}", volume.group)
            if not found:
                return attempt > 0
            try:
                run_command("lvremove", *_NO_ARCHIVE, "--yes", self._full(volume))
            except CommandFailed:
                if attempt == _REMOVE_TRIES - 1:
                    raise
                time.sleep(_REMOVE_PAUSE_S)
        return True

    def _full(self, volume: LogicalVolume) -> str:
        return f"{volume.group}/{self._name}"


def _mapper_name(group: str, volume: str) -> str:
    """As device-mapper names it: hyphens doubled, joined by one."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


def _report(*command: str) -> list[dict[str, str]]:
    text = run_command(*command, "--reportformat", "json")
    return json.loads(text)["report"][0]["lv"]

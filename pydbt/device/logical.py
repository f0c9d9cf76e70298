"""Snapshots of LVM's logical volumes, classic and thin, by LVM's own commands.

``lvcreate`` freezes the file system on the volume, waits for I/O in flight, and lets writers continue when the snapshot
exists. A classic snapshot (dm-snapshot) keeps overwritten data in a store of a given size; a thin snapshot shares a pool.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass

from pydbt.core.units import MIB
from pydbt.device.commands import COMMAND_PATH, CommandFailed, run_command
from pydbt.device.sysfs import BlockDevice

# A snapshot for an image exists for seconds, so a twentieth of the volume is enough. For small volumes there is a least size.
DEFAULT_SPACE_FRACTION = 20
LEAST_SPACE_BYTES = 64 * MIB
# A new device may be open for a moment (udev reads every new device).
_REMOVE_TRIES = 20
_REMOVE_PAUSE_S = 0.25
# LVM keeps a file in /etc/lvm/archive per change, for a month. Two changes every few seconds are too many for that.
_NO_ARCHIVE = ("--config", "backup { backup=0 archive=0 }")


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """An LVM volume that can have snapshots. ``name`` is GROUP/VOLUME; ``snapshot_name`` is its snapshot's name in the group.

    ``space_bytes`` is the size of a classic snapshot's store.
    """

    name: str
    group: str
    thin: bool
    snapshot_name: str
    space_bytes: int

    @property
    def kind(self) -> str:
        return "thin" if self.thin else "snapshot"

    @property
    def snapshot(self) -> str:
        """The snapshot's name in device-mapper: hyphens doubled, group and name joined by one hyphen."""
        return f"{self.group.replace('-', '--')}-{self.snapshot_name.replace('-', '--')}"

    def take(self) -> BlockDevice:
        """Take a snapshot. CommandFailed when there is no room for it, or when LVM refuses."""
        self.remove_leftover()
        command = ["lvcreate", *_NO_ARCHIVE, "--yes", "--monitor", "n", "--snapshot", "--name", self.snapshot_name]
        command += ["--setactivationskip", "n"] if self.thin else ["--size", f"{self.space_bytes}b"]
        run_command(*command, self.name)
        found = _report("lvs", "-o", "lv_kernel_major,lv_kernel_minor", self._full)[0]
        number = int(found["lv_kernel_major"]), int(found["lv_kernel_minor"])
        if min(number) < 0:
            raise CommandFailed(f"the snapshot {self._full} was made, and is not active")
        return BlockDevice.from_number(*number, f"/dev/{self._full}")

    def remove_leftover(self) -> bool:
        """Remove the snapshot. Returns whether there was one. CommandFailed when that fails."""
        for attempt in range(_REMOVE_TRIES):
            found = _report("lvs", "-o", "lv_name", "--select", f"lv_name={self.snapshot_name}", self.group)
            if not found:
                return attempt > 0
            try:
                run_command("lvremove", *_NO_ARCHIVE, "--yes", self._full)
            except CommandFailed:
                if attempt == _REMOVE_TRIES - 1:
                    raise
                time.sleep(_REMOVE_PAUSE_S)
        return True

    @property
    def _full(self) -> str:
        return f"{self.group}/{self.snapshot_name}"


def logical_volume(device: BlockDevice, snapshot_name: str, space_bytes: int | None = None) -> LogicalVolume | None:
    """The logical volume that a device is, when LVM is installed and can take snapshots of it; else None.

    ``space_bytes`` None: a share of the volume.
    """
    if not device.identity().get("dm_uuid", "").startswith("LVM-") or shutil.which("lvs", path=COMMAND_PATH) is None:
        return None
    # By number, because LVM does not know a name such as /dev/dm-0.
    selected = f"lv_kernel_major={device.major} && lv_kernel_minor={device.minor}"
    volumes = _report("lvs", "-o", "vg_name,lv_name,segtype,lv_attr", "--select", selected)
    if len(volumes) != 1 or volumes[0]["lv_attr"][:1] not in ("-", "o", "O", "V"):
        return None  # a snapshot, a RAID or a cache: no snapshots of these are taken
    found = volumes[0]
    if space_bytes is None:
        space_bytes = max(device.size_bytes // DEFAULT_SPACE_FRACTION, LEAST_SPACE_BYTES)
    name = f"{found['vg_name']}/{found['lv_name']}"
    return LogicalVolume(name, found["vg_name"], found["segtype"] == "thin", snapshot_name, space_bytes)


def _report(*command: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(run_command(*command, "--reportformat", "json"))["report"][0]["lv"]
    return rows

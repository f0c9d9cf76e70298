"""The eras of a layer with dm-era: the present one, a new one on request, and the regions written since an era.

Documentation/admin-guide/device-mapper/era.rst; drivers/md/dm-era-target.c. ``checkpoint`` ends the era: when it returns, the
new era is committed, and every later write belongs to it. ``era_invalidate`` of thin-provisioning-tools reads the regions
from a snapshot of the metadata; taking that snapshot ends the era as well.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pydbt.core.primary.era_bound import Eras
from pydbt.core.units import SECTOR_BYTES
from pydbt.device import mapper
from pydbt.device.commands import CommandFailed, run_command
from pydbt.device.era_metadata import read_era_header
from pydbt.device.layer import ERA_SUFFIX, METADATA_SUFFIX, layer_name
from pydbt.device.sysfs import BlockDevice

_STATUS = re.compile(r"\d+ \d+ era \d+ (\d+)/(\d+) (\d+) (-|\d+)\s*")
_WRITTEN = re.compile(r"<(?:block\s+block\s*=\s*\"(\d+)\"|range\s+begin\s*=\s*\"(\d+)\"\s+end\s*=\s*\"(\d+)\")\s*/>")
_QUEUE = Path("/sys/dev/block")
# A metadata device that is fuller than this is reported; when it is full, writes to the volume fail.
_FULL = 0.75


@dataclass(frozen=True, slots=True)
class EraLayer:
    """A layer with dm-era in it. ``name`` is the target's; ``metadata`` the identity of its metadata (32 hexadecimal digits)."""

    name: str
    metadata_path: str
    metadata: str
    region_bytes: int

    def now(self) -> Eras:
        """The present era. CommandFailed when it cannot be read."""
        return Eras(self.metadata, self.region_bytes, self._status()[0])

    def checkpoint(self) -> int:
        """End the era. Returns the new one. CommandFailed when that fails, or when the metadata are nearly full."""
        run_command("dmsetup", "message", self.name, "0", "checkpoint")
        era, _, fill = self._status()
        if fill > _FULL:
            raise CommandFailed(
                f"the era metadata of {self.name} fill {fill:.0%} of their device: give them a larger one"
            )
        return era

    def written_since(self, era: int) -> np.ndarray:
        """Regions written in this era or later, up to now: one row (first, behind the last) per run."""
        if self._status()[1]:  # a killed process left it
            run_command("dmsetup", "message", self.name, "0", "drop_metadata_snap")
        run_command("dmsetup", "message", self.name, "0", "take_metadata_snap")
        try:
            text = run_command("era_invalidate", "--metadata-snapshot", "--written-since", str(era), self.metadata_path)
        finally:
            with contextlib.suppress(CommandFailed):  # the next call removes it first
                run_command("dmsetup", "message", self.name, "0", "drop_metadata_snap")
        return parse_written(text)

    def _status(self) -> tuple[int, bool, float]:
        """(present era, whether there is a snapshot of the metadata, how full their device is)."""
        text = run_command("dmsetup", "status", self.name)
        if not (found := _STATUS.fullmatch(text)):
            raise CommandFailed(f"dmsetup prints an unknown status of {self.name}: {text.strip() or 'nothing'}")
        used, total, era, snapshot = found.groups()
        return int(era), snapshot != "-", int(used) / max(int(total), 1)


def parse_written(text: str) -> np.ndarray:
    """The output of ``era_invalidate`` as rows of (first region, region behind the last). CommandFailed when it is not whole."""
    if not text.lstrip().startswith("<blocks") or not re.search(r"(</blocks>|<blocks\s*/>)\s*$", text):
        raise CommandFailed("era_invalidate printed an incomplete list of regions")
    rows = [(int(one), int(one) + 1) if one else (int(first), int(end)) for one, first, end in _WRITTEN.findall(text)]
    if len(rows) != text.count("<block ") + text.count("<range "):
        raise CommandFailed("era_invalidate printed regions in an unknown form")
    return np.array(rows, np.int64).reshape(-1, 2)


def era_layer_of(device: BlockDevice) -> EraLayer | None:
    """The layer that a device is, when it has dm-era in it. PydbtError when the layer cannot be relied on."""
    if not (name := layer_name(device)):
        return None
    target, metadata = f"{name}{ERA_SUFFIX}", f"{name}{METADATA_SUFFIX}"
    if not device.bio_based:
        raise CommandFailed(f"{device.path} does not complete bios, as a layer does")
    _, (below, *_) = mapper.only_target(name, "snapshot-origin")
    if not mapper.exists(target) or below != mapper.number_of(target):
        return None
    _, (metadata_number, _, sectors) = mapper.only_target(target, "era")
    if metadata_number != mapper.number_of(metadata):
        raise CommandFailed(f"{target} keeps its metadata on another device than {metadata}")
    for kind in ("discard", "write_zeroes"):
        limit = (_QUEUE / f"{mapper.number(device)}/queue/{kind}_max_bytes").read_text().strip()
        if limit != "0":
            raise CommandFailed(f"{device.path} lets {kind}s through, of which dm-era records the first region only")
    _, (under, _) = mapper.only_target(metadata, "linear")
    header = read_era_header(mapper.device_numbered(under))
    if header.region_bytes != int(sectors) * SECTOR_BYTES or not header.made:
        raise CommandFailed(f"{target} works with another region than its metadata were made for")
    return EraLayer(target, f"/dev/mapper/{metadata}", header.identity, header.region_bytes)

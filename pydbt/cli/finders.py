"""How a dashboard finds the volumes of this machine: as ``controller status`` without arguments does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydbt.cli.overview import known_state_dirs, programs_alone, report_of_stopped
from pydbt.cli.volume_files import STATE_ROOT
from pydbt.controller import registry
from pydbt.controller.registry import name_of
from pydbt.core.printable import printable
from pydbt.dashboard.places import VolumePlace
from pydbt.dashboard.watched_volume import name_for


class MachineFinder:
    """For root: every volume and replica, running or not."""

    def places(self) -> list[VolumePlace]:
        return [_place(Path(state_dir), key, device) for state_dir, (key, device) in known_state_dirs().items()]

    def stopped(self, place: VolumePlace) -> dict[str, Any]:
        return report_of_stopped(place.where, place.key, place.device)

    def programs(self, volumes: set[str]) -> list[dict[str, Any]]:
        return programs_alone(volumes)


class GroupFinder:
    """For a member of the group pydbt: the controllers that run, or have run since this dashboard began."""

    def __init__(self) -> None:
        self._known: dict[str, VolumePlace] = {}

    def places(self) -> list[VolumePlace]:
        for path in sorted(registry.RUN_DIR.glob("status-*.sock")):
            identity = path.stem.removeprefix("status-")
            self._known.setdefault(identity, VolumePlace(identity, "", path, "state_dir", ""))
        return list(self._known.values())

    def stopped(self, place: VolumePlace) -> dict[str, Any]:
        return {"running": False, "problem": "no controller is running; root alone is told how it ended"}

    def programs(self, volumes: set[str]) -> list[dict[str, Any]]:
        return []


def finder_for_this_user() -> MachineFinder | GroupFinder:
    return MachineFinder() if os.geteuid() == 0 else GroupFinder()


def _place(state_dir: Path, key: str, device: str) -> VolumePlace:
    name = printable(name_for(state_dir, device, STATE_ROOT))
    return VolumePlace(name_of(os.path.realpath(state_dir)), name, state_dir, key, device)

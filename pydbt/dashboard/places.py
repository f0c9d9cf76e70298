"""Where the volumes and replicas of a machine are found, as the collector asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class VolumePlace:
    """One volume or replica. ``where``: its state directory, or a socket on which its controller tells its status.

    ``key``: what ``device`` is in a status: ``source``, ``target``, or ``state_dir`` where the device is not known.
    ``id``: 16 hexadecimal digits that stay the same.
    """

    id: str
    name: str
    where: Path
    key: str
    device: str


class Finder(Protocol):
    """Finds them. ``stopped`` and ``programs`` may take a while, and are not called by the thread that asks controllers."""

    def places(self) -> list[VolumePlace]:
        """All that are known, also those without a controller."""
        ...

    def stopped(self, place: VolumePlace) -> dict[str, Any]:
        """What is known of one that no controller serves, as of ``status --json``, with its ``problem``."""
        ...

    def programs(self, volumes: set[str]) -> list[dict[str, Any]]:
        """Programs in the kernel of volumes that are not among these."""
        ...

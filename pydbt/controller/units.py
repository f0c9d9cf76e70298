"""Units of systemd: which of them are enabled, by their links on disk (systemctl(1), `enable`)."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.controller.boot_files import UNIT_FOLDERS

_UNITS = {"run": "pydbt@{}.service", "secondary": "pydbt-secondary@{}.service"}


def unit_of(role: str, name: str) -> str:
    """The unit that runs a configured volume or replica."""
    return _UNITS[role].format(name)


def is_masked(unit: str, root: str | os.PathLike[str] = "/") -> bool:
    """Whether a unit, or the template that it is made of, is masked: nothing starts it then."""
    template = f"{unit.partition('@')[0]}@{Path(unit).suffix}" if "@" in unit else unit
    places = [Path(root) / folder / name for folder in UNIT_FOLDERS[:2] for name in (unit, template)]
    return any(os.path.realpath(place) == os.devnull for place in places)


def is_enabled(unit: str, root: str | os.PathLike[str] = "/") -> bool:
    """Whether a unit is wanted or required by another one, and not masked. Files below ``root`` are looked at, and no program."""
    folders = [Path(root) / folder for folder in UNIT_FOLDERS]
    if is_masked(unit, root):
        return False
    return any(
        os.path.lexists(wanting / unit) for folder in folders for kind in ("wants", "requires")
        for wanting in folder.glob(f"*.{kind}")
    )  # fmt: skip

"""Units of systemd: which of them are enabled, by their links on disk (systemctl(1), `enable`)."""

from __future__ import annotations

import os
from pathlib import Path

# By the directories of systemd.unit(5); what is in the first of them counts.
_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
_UNITS = {"run": "pydbt@{}.service", "secondary": "pydbt-secondary@{}.service"}


def unit_of(role: str, name: str) -> str:
    """The unit that runs a configured volume or replica."""
    return _UNITS[role].format(name)


def is_enabled(unit: str, root: str | os.PathLike[str] = "/") -> bool:
    """Whether a unit is wanted or required by another one, and not masked. Files below ``root`` are looked at, and no program."""
    folders = [Path(root) / folder for folder in _FOLDERS]
    if any(os.path.realpath(folder / unit) == os.devnull for folder in folders[:2]):
        return False
    return any(
        os.path.lexists(wanting / unit) for folder in folders for kind in ("wants", "requires")
        for wanting in folder.glob(f"*.{kind}")
    )  # fmt: skip

"""For the status: that a side has another role by now than its file begins with. A file is written by a person, and stays."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.cli.volume_files import VolumeFile, read_volume, volume_files
from pydbt.core.errors import PydbtError

_ROLES = {"primary": "run", "secondary": "secondary"}
_NAMES = {role: name for name, role in _ROLES.items()}


def role_part(state_dir: Path, told: object = None) -> dict[str, dict[str, str]]:
    """The key ``role_differs`` of a status; empty where the role is that of the file, or no file has this state directory.

    ``told``: the role that a running controller tells; without one its state tells it.
    """
    volume = _file_of(state_dir)
    if volume is None:
        return {}
    if (role := _ROLES.get(str(told))) is None:
        from pydbt.cli.side import differing_words  # only here: it reads the state, and brings more

        words = differing_words(volume)
    elif role != volume.role:
        words = f"{volume.path} begins as [{volume.role}], and this side is the {_NAMES[role]} by now: it starts as that too"
    else:
        words = ""
    return {"role_differs": {"words": words}} if words else {}


def _file_of(state_dir: Path) -> VolumeFile | None:
    """The configured volume with this state directory; None also where no file may be read."""
    place = os.path.realpath(state_dir)
    try:
        paths = volume_files()
    except PydbtError:
        return None
    for path in paths:
        try:
            volume = read_volume(path)
        except PydbtError:
            continue  # 'controller configcheck' tells it
        if volume.role and os.path.realpath(volume.state_dir) == place:
            return volume
    return None

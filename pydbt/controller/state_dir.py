"""The state directory of a controller."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.core.errors import StateError, UsageError
from pydbt.posix.ownership import folder_intruder


def check_state_dir(state_dir: str | os.PathLike[str]) -> None:
    """UsageError when there is a directory that another user could change: what is in it would be this user's doing."""
    if os.path.isdir(state_dir) and (wrong := folder_intruder(state_dir)):
        raise UsageError(f"the state directory {state_dir} is not safe from other users: {wrong}")


def make_state_dir(state_dir: str | os.PathLike[str]) -> Path:
    """Make the directory, for root alone, unless it exists. Call it after every check that can refuse."""
    place = Path(state_dir)
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place} is not a directory: name a state directory with --state DIR")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"the state directory {place} cannot be made: {error.strerror}") from error
    check_state_dir(place)
    return place

"""The state directory of a controller."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydbt.core.errors import StateError, UsageError
from pydbt.posix.ownership import ELSEWHERE, Unsafe, folder_intruder, make_folder, remove_folders

AS_THAT_USER = "run this as that user"
"""The remedy for a directory that is there, with a volume or replica of another user."""


def check_state_dir(state_dir: str | os.PathLike[str], remedy: str = ELSEWHERE) -> None:
    """UsageError when another user could change what is in a directory, or what would be in one that is missing.

    Each command asks this once, before it reads anything there: what is in it would be that user's doing. It need not be
    asked again by what the command calls; only ``make_state_dir`` does, because a start takes some time.
    """
    if os.path.lexists(state_dir) and not os.path.isdir(state_dir):
        raise UsageError(f"the state directory {state_dir} is not a directory: name a directory with --state DIR")
    if wrong := folder_intruder(state_dir, remedy):
        raise _refusal(state_dir, wrong)


def require_state_dir(state_dir: Path) -> None:
    """``check_state_dir`` of a directory that must be there."""
    if not state_dir.is_dir():
        raise UsageError(f"{state_dir} is not a state directory: there is no such directory")
    check_state_dir(state_dir, AS_THAT_USER)


def make_state_dir(state_dir: str | os.PathLike[str]) -> list[Path]:
    """Make the directory, for root alone, unless it exists; the folders that were made. Call it after every check.

    Nothing is left when it is refused or cannot be made. Raises UsageError and StateError.
    """
    try:
        return make_folder(state_dir)
    except Unsafe as error:
        raise _refusal(state_dir, str(error)) from None
    except OSError as error:
        raise StateError(f"the state directory {state_dir} cannot be made: {error.strerror}") from error


def remove_state_dir(made: list[Path]) -> None:
    """Take back what ``make_state_dir`` made, with what is in the directory. Nothing when it made none."""
    if made:
        shutil.rmtree(made[-1], ignore_errors=True)
        remove_folders(made)


def _refusal(state_dir: str | os.PathLike[str], wrong: str) -> UsageError:
    return UsageError(f"the state directory {state_dir} is not safe from other users: {wrong}")

"""The state directory of a controller."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pydbt.core.errors import StateError, UsageError
from pydbt.posix.ownership import ELSEWHERE, Unsafe, folder_intruder, make_folder, remove_folders

AS_THAT_USER = "run this as that user"
"""The remedy for a directory that is there, with a volume or replica of another user."""

ALLOW_MEMORY = "PYDBT_STATE_IN_MEMORY"


def check_state_dir(state_dir: str | os.PathLike[str], remedy: str = ELSEWHERE) -> None:
    """UsageError when another user could change what is in a directory, or what would be in one that is missing.

    Each command asks this once, before it reads anything there: what is in it would be that user's doing. It need not be
    asked again by what the command calls; only ``make_state_dir`` does, because a start takes some time.
    """
    if os.path.lexists(state_dir) and not os.path.isdir(state_dir):
        raise UsageError(f"the state directory {state_dir} is not a directory: name a directory with --state DIR")
    if wrong := folder_intruder(state_dir, remedy):
        raise _refusal(state_dir, wrong)


def require_lasting(state_dir: Path) -> None:
    """UsageError when what is written to a directory, which need not exist yet, would be gone after a power loss.

    A secondary has acknowledged what is in its journal, and a primary's map names the blocks that differ. ``ALLOW_MEMORY`` in the
    environment is for tests, whose files may all lie in memory.
    """
    from pydbt.posix.memory import memory_file_system  # it loads ctypes, and only a start needs it

    name = memory_file_system(_existing(state_dir))
    if name and not os.environ.get(ALLOW_MEMORY):
        raise UsageError(
            f"the state directory {state_dir} lies in memory ({name}), and would be gone after a power loss with all that was "
            "acknowledged: name a directory on a disk, for example below /var/lib/pydbt"
        )


def require_lasting_target(target: Path) -> None:
    """UsageError when what is written to a TARGET, which need not exist yet, would be gone after a power loss. As above."""
    from pydbt.device.stacking import memory_below

    name = memory_below(_existing(target))
    if name and not os.environ.get(ALLOW_MEMORY):
        raise UsageError(
            f"TARGET {target} lies in memory ({name}), and the replica would be gone after a power loss: name a device, or an "
            "image file on a disk"
        )


def _existing(path: Path) -> Path:
    """The path, or the first of the folders above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def require_state_dir(state_dir: Path) -> None:
    """``check_state_dir`` of a directory that must be there. PermissionError when this user may not look into it."""
    if not state_dir.is_dir():
        raise UsageError(f"{state_dir} is not a state directory: there is no such directory")
    os.scandir(state_dir).close()
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

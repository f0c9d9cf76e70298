"""One program per state directory."""

from __future__ import annotations

import os
from pathlib import Path

from pydbt.core.errors import BusyError, StateError
from pydbt.posix.files import is_locked, try_lock
from pydbt.posix.ownership import open_own

LOCK_NAME = "lock"


class StateLock:
    """Held from construction to ``close``, or to the end of the process. Raises BusyError or StateError."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / LOCK_NAME
        try:
            self._descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StateError(f"{path} cannot be opened: {error.strerror}") from None
        if not try_lock(self._descriptor):
            os.close(self._descriptor)
            raise BusyError(
                f"the state directory {state_dir} is in use by another controller: stop it, or choose another directory"
            )

    def close(self) -> None:
        os.close(self._descriptor)


def is_in_use(state_dir: Path) -> bool:
    """Whether a controller has the state directory."""
    return is_locked(state_dir / LOCK_NAME)

"""One program a state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pydbt.core.errors import BusyError, StateError

LOCK_NAME = "lock"


class StateLock:
    """Held from construction to ``close``, or to the end of the process. Raises BusyError or StateError."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / LOCK_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise BusyError(
                f"the state directory {state_dir} is in use by another controller: stop it, or choose another directory"
            ) from None

    def close(self) -> None:
        os.close(self._descriptor)


def is_locked(state_dir: Path) -> bool:
    """Whether somebody holds the lock; a look takes it for a moment, when nobody does."""
    try:
        descriptor = os.open(state_dir / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

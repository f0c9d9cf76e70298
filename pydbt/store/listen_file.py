"""Where a side waits, or last waited, for its primary: the file ``listen`` in its state directory, one line with the address.

A primary that became a replica is found there after a reboot, also where no file of this machine names an address.
"""

from __future__ import annotations

from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import read_own

LISTEN_FILE_NAME = "listen"


def save_listen(state_dir: Path, address: str) -> None:
    """Durable when it returns; nothing is written where it is known already. StateError when it cannot be written."""
    try:
        known = load_listen(state_dir)
    except StateError:
        known = ""
    if known != address:
        replace_file(state_dir / LISTEN_FILE_NAME, f"{address}\n".encode())


def load_listen(state_dir: Path) -> str:
    """Empty for a side that was never a secondary. StateError."""
    path = state_dir / LISTEN_FILE_NAME
    try:
        return read_own(path).decode().strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from None

"""The primary to which this side gave its place: the file ``successor`` in the state directory of what is a replica since then.

One line: the moment (RFC 3339) and the address. It outlives a restart, at which nothing else here tells where the primary is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own

SUCCESSOR_FILE_NAME = "successor"


@dataclass(frozen=True, slots=True)
class Successor:
    """``address`` of the secondary that became the primary, ``since`` when (RFC 3339)."""

    address: str
    since: str


def save_successor(state_dir: Path, address: str) -> None:
    """From now on. StateError when it cannot be written."""
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    replace_file(state_dir / SUCCESSOR_FILE_NAME, f"{moment} {address}\n".encode())


def load_successor(state_dir: Path) -> Successor | None:
    """None for a side that gave its place to nobody. It counts only beside the record of a replica. StateError."""
    path = state_dir / SUCCESSOR_FILE_NAME
    try:
        since, _, address = read_own(path).decode().strip().partition(" ")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}") from None
    return Successor(address, since)


def forget_successor(state_dir: Path) -> None:
    """This side is a replica for another reason. StateError when it cannot be removed."""
    remove_file(state_dir / SUCCESSOR_FILE_NAME)

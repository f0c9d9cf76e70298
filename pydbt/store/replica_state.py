"""The replica's record as a file: one line of JSON and one line with its checksum, replaced atomically."""

from __future__ import annotations

import json
from pathlib import Path

from pydbt.core.checksum import checked, with_checksum
from pydbt.core.errors import StateError
from pydbt.core.protocol.frame_checks import NewerVersion
from pydbt.core.secondary.replica import ReplicaRecord
from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import read_own
from pydbt.store.versions import newer

REPLICA_FILE_NAME = "replica.json"


def load_record(state_dir: Path) -> ReplicaRecord | None:
    """The record in a state directory; None when there is none yet. StateError names the file."""
    path = state_dir / REPLICA_FILE_NAME
    try:
        data = read_own(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None
    try:
        body = checked(data, b"\n")
    except ValueError:
        raise StateError(
            f"{path} is damaged, or not a state file of this program: restore it, or use a new directory"
        ) from None
    try:
        return ReplicaRecord.from_values(json.loads(body))
    except NewerVersion as error:
        raise newer(path, error) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError(
            f"{path} is not a state file of this program ({error}): restore it, or use a new directory"
        ) from None


def save_record(state_dir: Path, record: ReplicaRecord) -> None:
    """Durable when it returns. Raises StateError."""
    body = json.dumps(record.to_values(), sort_keys=True).encode()
    replace_file(state_dir / REPLICA_FILE_NAME, with_checksum(body, b"\n"))

"""All lasting names of a replica's target, beside its record, which holds the best one known when it was made.

A file of its own, so that earlier versions can read the record. It counts only with the record's own name of the target.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from pydbt.core.checksum import checked, with_checksum
from pydbt.core.errors import StateError
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own

TARGET_NAMES_NAME = "target-names.json"


def load_target_names(state_dir: Path, recorded: str) -> dict[str, str]:
    """By kind; empty where none were kept for the target that the record names so. StateError when they cannot be read."""
    path = state_dir / TARGET_NAMES_NAME
    try:
        values = json.loads(checked(read_own(path), b"\n"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        return {}  # the one name in the record is compared
    if not isinstance(values, dict) or values.get("target") != recorded or not isinstance(values.get("names"), dict):
        return {}
    return {kind: name for kind, name in values["names"].items() if isinstance(name, str)}


def save_target_names(state_dir: Path, recorded: str, names: dict[str, str]) -> None:
    """Add ``names`` to those that are kept for this target; without them, the one name in the record has to do."""
    kept = load_target_names(state_dir, recorded)
    if kept | names == kept:
        return
    body = json.dumps({"target": recorded, "names": kept | names}, sort_keys=True).encode()
    with contextlib.suppress(StateError):
        replace_file(state_dir / TARGET_NAMES_NAME, with_checksum(body, b"\n"))


def forget_target_names(state_dir: Path) -> None:
    """Before the record gets another target, which may have the same best name and lack the others. StateError when it fails."""
    path = state_dir / TARGET_NAMES_NAME
    if path.exists():
        remove_file(path)

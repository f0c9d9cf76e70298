"""Why a secondary's target could not be written, kept until it could be: a restart must not make the replica look better."""

from __future__ import annotations

from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own

TARGET_PROBLEM_NAME = "target-problem"
_MOST_BYTES = 4096


def load_target_problem(state_dir: Path) -> str:
    """In words; empty when there is none. StateError when the file cannot be read."""
    path = state_dir / TARGET_PROBLEM_NAME
    try:
        words = read_own(path)[:_MOST_BYTES].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None
    return words or "the target could not be written"


def save_target_problem(state_dir: Path, words: str) -> None:
    """Write it down; without words, that there is none. StateError when that fails."""
    path = state_dir / TARGET_PROBLEM_NAME
    if words:
        replace_file(path, words.encode()[:_MOST_BYTES])
    elif path.exists():
        remove_file(path)

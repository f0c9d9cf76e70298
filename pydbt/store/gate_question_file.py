"""That a primary asked for the role of this side, was told *replica*, and is not known to run since: the file ``gate-asked``.

It lies in the replica's state directory: the moment (RFC 3339), one line, and one with its checksum.
"""

from __future__ import annotations

from pathlib import Path

from pydbt.core.checksum import checked, with_checksum
from pydbt.core.secondary.promotion import UNKNOWN_MOMENT
from pydbt.posix.atomic import remove_file, replace_file
from pydbt.posix.ownership import read_own

GATE_QUESTION_NAME = "gate-asked"


def save_gate_question(state_dir: Path, moment: str) -> None:
    """Durable when it returns. StateError when it cannot be written."""
    replace_file(state_dir / GATE_QUESTION_NAME, with_checksum(moment.encode(), b"\n"))


def forget_gate_question(state_dir: Path) -> None:
    """A primary was heard, or this side is no replica any more. StateError when the file cannot be removed."""
    remove_file(state_dir / GATE_QUESTION_NAME)


def load_gate_question(state_dir: Path) -> str:
    """When it was; empty when nobody has asked, and ``UNKNOWN_MOMENT`` for a file that cannot be read: somebody has."""
    try:
        return checked(read_own(state_dir / GATE_QUESTION_NAME), b"\n").decode()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return UNKNOWN_MOMENT

"""The marks that a replica holds and that its journal does not have any more: the file ``marks.json`` in its state directory.

Replaced as a whole, durably, before the checkpoint passes the record of a mark. Earlier versions do not know it, and ignore it.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from pydbt.core.checksum import checked, with_checksum
from pydbt.core.errors import StateError
from pydbt.core.protocol.frame_checks import NewerVersion, check_version
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.posix.atomic import replace_file
from pydbt.posix.ownership import read_own

MARKS_FILE_NAME = "marks.json"
MARKS_FILE_VERSION = 1


def save_marks(state_dir: Path, marks: HeldMarks) -> None:
    """StateError when they cannot be written."""
    body = json.dumps({"version": MARKS_FILE_VERSION, "marks": marks.to_values()}).encode()
    replace_file(state_dir / MARKS_FILE_NAME, with_checksum(body, b"\n"))


def load_marks(state_dir: Path) -> HeldMarks:
    """None of them without the file. StateError when it cannot be read, is torn, or is of a newer version."""
    path = state_dir / MARKS_FILE_NAME
    try:
        values = json.loads(checked(read_own(path), b"\n"))
        check_version(values["version"], MARKS_FILE_VERSION)
        return HeldMarks.from_values(values["marks"])
    except FileNotFoundError:
        return HeldMarks()
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}") from None
    except NewerVersion as error:
        raise StateError(f"{path} was written by a newer version ({error}): use that one") from None
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise StateError(
            f"{path} is damaged ({error}): remove it, and the marks of this replica are forgotten"
        ) from None

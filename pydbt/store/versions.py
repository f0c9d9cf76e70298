"""State files of a newer program: the version is named, and the way back to this program.

A file that is read and written again by an older program would lose what it does not know. So a state file with an entry
that its version did not have gets a new version, and a file of a newer version is refused.
"""

from __future__ import annotations

import os

from pydbt.core.errors import StateError
from pydbt.core.protocol.frame_checks import NewerVersion

ONWARD = (
    "use the newer program again; to go back to this one, end replication with the newer one ('controller down'), and begin "
    "with new state directories on both sides: every block is then compared, and only those that differ are copied"
)


def newer(path: str | os.PathLike[str], error: NewerVersion, remedy: str = ONWARD) -> StateError:
    """The refusal of a file that a newer program wrote."""
    return StateError(
        f"{path} was written by a newer program: its version is {error.found}, and this program knows "
        f"versions up to {error.known}; {remedy}"
    )

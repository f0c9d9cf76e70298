"""What must hold of the places of a replica before it is served, and the image that is made for a new one."""

from __future__ import annotations

import os

from pydbt.controller.options import SecondaryOptions
from pydbt.controller.roles import JOURNAL_FOLDER
from pydbt.core.errors import StateError, UsageError
from pydbt.device.target import create_image
from pydbt.store.replica_state import REPLICA_FILE_NAME
from pydbt.store.volume_state import VOLUME_FILE_NAME


def require_place(options: SecondaryOptions) -> None:
    """UsageError when the state directory is none that could be this replica's."""
    place = options.state_dir
    if (place / REPLICA_FILE_NAME).exists() or (place / JOURNAL_FOLDER).exists():
        return
    if (place / VOLUME_FILE_NAME).exists():
        raise UsageError(
            f"the state directory {place} is that of a primary: name another one, or make its volume a replica with "
            "'controller demote'"
        )
    if options.replay_only:
        raise UsageError(f"the state directory {place} holds no replica: name that of a secondary")


def make_image(options: SecondaryOptions) -> bool:
    """Make the image that was asked for, unless there is one. True: it reads as zeros. StateError when one has gone."""
    if options.create_bytes is None or os.path.exists(options.target):
        return False
    if (options.state_dir / REPLICA_FILE_NAME).exists():
        raise StateError(
            f"TARGET {options.target} is gone, but the state directory {options.state_dir} describes it: "
            "bring it back, or begin with a new state directory"
        )
    return create_image(str(options.target), options.create_bytes)

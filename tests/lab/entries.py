"""Takes away what a test or a demo has left in the folder of the registry, and nothing of others that run at the same time."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from pydbt.controller import registry
from pydbt.posix.files import try_lock


def forget_below(folder: Path) -> None:
    """Remove the entries of controllers that have ended, and had their state directories below a folder.

    The product keeps them, because with them the state of a stopped volume is found.
    """
    for path in registry.RUN_DIR.glob("*") if registry.RUN_DIR.is_dir() else ():
        if not path.is_socket() and _is_below(path, folder):
            _remove(path, folder)


def _is_below(path: Path, folder: Path) -> bool:
    try:
        return Path(json.loads(path.read_bytes())["state_dir"]).is_relative_to(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _remove(path: Path, folder: Path) -> None:
    """Under its lock: a device number that is free again may be somebody else's a moment later."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if try_lock(descriptor) and _is_below(path, folder):
                path.unlink()
        finally:
            os.close(descriptor)

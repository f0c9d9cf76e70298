"""Threads without which a program cannot begin."""

from __future__ import annotations

import threading

from pydbt.core.errors import MachineError


def begin(thread: threading.Thread) -> None:
    """Start it. MachineError where the machine has no room for one more: memory, or a limit of processes (RLIMIT_NPROC)."""
    try:
        thread.start()
    except RuntimeError as error:
        raise MachineError(
            f"no thread can be started ({error}): free memory, or raise the limit of processes and tasks, and start again"
        ) from error

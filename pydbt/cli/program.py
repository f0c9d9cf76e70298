"""The name of the program, and the exit code of one that is interrupted. It imports next to nothing: see ``main``."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130  # 128 + SIGINT, as in a shell


def program_name() -> str:
    """The name this program was called by: ``controller`` or ``pydbt``."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name if name in ("controller", "pydbt") else "controller"

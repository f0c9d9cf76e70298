"""Child processes that have the compiler: a module of this package, as it is, whatever folder or variables are around."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def child_words(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module; ``child_environment`` goes with it."""
    # -P: else the current folder comes first, where anybody may have put a module (PYTHONSAFEPATH in python(1))
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """This process's, in which a child finds the same package."""
    package_root = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": search_path}


def run_child(module: str, request: Mapping[str, object], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a module with a request as JSON on its stdin, to its end. TimeoutExpired of ``subprocess``."""
    return subprocess.run(
        child_words(module),
        cwd="/",
        input=json.dumps(request),
        env=child_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
    )

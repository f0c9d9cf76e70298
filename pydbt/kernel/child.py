"""Child processes that have the compiler: a module of this package, as it is, whatever folder or variables are around."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydbt.core import errors
from pydbt.core.errors import MachineError, PydbtError, ShortNow
from pydbt.kernel.limits import reason_in, shortage, why_loader_ended
from pydbt.posix.tool import run_tool


def child_words(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module; ``child_environment`` goes with it."""
    # -P: else the current folder comes first, where anybody may have put a module (PYTHONSAFEPATH in python(1))
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """This process's, in which a child finds the same package."""
    package_root = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": search_path}


def error_of(answer: Mapping[str, Any], messages: str) -> PydbtError:
    """The error that a child answered with (``error`` in words, ``kind`` of ``core.errors``), and the reason in its messages."""
    reason = reason_in(messages)
    kind: type[PydbtError] = getattr(errors, answer.get("kind", "MachineError"))
    return kind(answer["error"] + (f" ({reason})" if reason else ""))


@dataclass(frozen=True, slots=True)
class Told:
    """What a child answered with, and what it and its compiler wrote on stderr."""

    answer: Mapping[str, Any]
    messages: str

    def result(self) -> Mapping[str, Any]:
        """The answer. Raises the error that the child names in it."""
        if "error" in self.answer:
            raise error_of(self.answer, self.messages)
        return self.answer


def ask_child(module: str, request: Mapping[str, object], timeout_s: float, called: str) -> Told:
    """Run a module with a request as JSON on its stdin, to its end, and read the JSON object on its stdout.

    ``called``: what it does, in errors. One that gives no answer raises ShortNow where it took too long, MachineError or ShortNow
    (``limits.shortage``) for memory, or else MachineError.
    """
    try:
        done = run_tool(
            child_words(module), json.dumps(request), child_environment(), timeout_s, cwd="/", errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise ShortNow(f"{called} took longer than {timeout_s:g} s") from None
    try:
        return Told(json.loads(done.stdout), done.stderr)
    except ValueError:
        if short := why_loader_ended(done.returncode, done.stderr):
            raise shortage(f"{called} failed: {short}") from None
        raise MachineError(f"{called} failed: {reason_in(done.stderr) or f'exit code {done.returncode}'}") from None

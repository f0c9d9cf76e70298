"""An unprivileged user of the machine, and what such a user tries: small programs, run as that user and, to compare, as root."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.patience import PATIENCE_S
from tests.lab.programs import ROOT

NOBODY = 65534
_DENIED = 13
_FRAME = f"""
import sys
try:
    exec(compile(sys.argv[1], "attempt", "exec"), {{"arguments": sys.argv[2:]}})
except PermissionError:
    sys.exit({_DENIED})
"""


@dataclass(frozen=True)
class Attempt:
    """How it ended: the kernel said no (EACCES or EPERM), or it was done and printed these lines."""

    denied: bool
    lines: list[str]


def _words(code: str, arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-c", _FRAME, code, *map(str, arguments)]


def attempt(code: str, *arguments: object, user: int = NOBODY, groups: Sequence[int] = ()) -> Attempt:
    """Run it to its end. ``arguments`` is a name in ``code``. Any other end than these two is a fault of the attempt."""
    done = subprocess.run(
        _words(code, arguments), user=user, group=user, extra_groups=list(groups), cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode in (0, _DENIED), done.stderr
    return Attempt(done.returncode == _DENIED, done.stdout.splitlines())


def denied(code: str, *arguments: object) -> None:
    """That user is not let; and the same program of root's is, so that it is a true attempt."""
    assert attempt(code, *arguments).denied, f"{code} of {arguments}"
    assert not attempt(code, *arguments, user=0).denied, f"not even root is let: {code} of {arguments}"


@contextlib.contextmanager
def running(code: str, *arguments: object, user: int = NOBODY) -> Iterator[subprocess.Popen[str]]:
    """A program of that user beside the test, killed at the end with what it started. It is there when it has printed a line."""
    with subprocess.Popen(
        _words(code, arguments), user=user, group=user, extra_groups=[], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None and process.stdout.readline(), "it did not begin"
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def reachable_folder() -> Iterator[Path]:
    """A folder of root's to which every user has a way: pytest's own keep all others out, whatever is in them."""
    place = Path(tempfile.mkdtemp(prefix="pydbt-test-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)

"""The program as people run it: `controller` processes of their own, started, stopped, killed and frozen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.disks import wait_until

PROGRAM = [sys.executable, "-m", "pydbt.cli.main"]
ROOT = Path(__file__).parents[2]
# Generous, because the machines that run this are slow and shared: it bounds a hang, it measures nothing.
PATIENCE_S = float(os.environ.get("TORTURE_PATIENCE_S") or 120.0)
# Rounds of the random tests. With more than one, the variants that every run of all tests leaves out run as well.
ROUNDS = int(os.environ.get("TORTURE_ROUNDS") or 1)


def short(first: int, *variants: object) -> tuple[object, ...]:
    """The first few of the variants of a test; all of them in a long run."""
    return variants if ROUNDS > 1 else variants[:first]


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    output: str
    errors: str

    def refused(self, code: int, *words: str) -> None:
        """Exactly one sentence on stderr, nothing on stdout, this exit code, no traceback."""
        assert self.code == code, self
        assert self.output == "", self
        assert self.errors.startswith("controller: ") and self.errors.count("\n") == 1, self.errors
        assert "Traceback" not in self.errors
        for word in words:
            assert word in self.errors, f"{word!r} is not in: {self.errors}"


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYDBT_DEBUG": "", **changes}


def command(*arguments: object, timeout_s: float = PATIENCE_S, prefix: list[str] | None = None, **env: str) -> Outcome:
    """Run one command to its end."""
    done = subprocess.run(
        [*(prefix or []), *PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        env=environment(**env),
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


class Daemon:
    """A controller in the background. Its output goes to a file that grows over all its lives."""

    def __init__(self, log: Path, arguments: list[object], enter: Callable[[], None] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*PROGRAM, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=environment(),
                preexec_fn=enter,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and gone."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process still runs after {timeout_s} s: {self.words()[-3000:]}") from None

    def end(self) -> None:
        """Whatever state it is in: gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


def until(condition: Callable[[], Any], description: str, timeout_s: float = PATIENCE_S) -> None:
    """``wait_until`` with this suite's patience."""
    wait_until(lambda: bool(condition()), description, timeout_s)

"""The real agent, called as Pacemaker calls it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.pacemaker import PacemakerFiles
from tests.lab.programs import ROOT

AGENT = ROOT / "packaging/pacemaker/volume"
REASON = "ocf-exit-reason:"
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Answer:
    code: int
    reason: str
    output: str
    errors: str


@dataclass(frozen=True)
class Node:
    pacemaker: PacemakerFiles
    folder: Path
    state_dir: Path

    def environment(self, **parameters: str) -> dict[str, str]:
        given = {"volume": "data", "folder": str(self.folder), "CRM_meta_interval": "10000"} | parameters
        return {
            **os.environ,
            "PATH": self.pacemaker.path(),
            "OCF_RESOURCE_INSTANCE": "data",
            **{f"OCF_RESKEY_{name}": value for name, value in given.items()},
        }

    def act(self, action: str, **parameters: str) -> Answer:
        """Its exit code, and the reason that Pacemaker would keep."""
        done = subprocess.run(
            [AGENT, action], env=self.environment(**parameters), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT_S,
        )  # fmt: skip
        reasons = [line.removeprefix(REASON) for line in done.stderr.splitlines() if line.startswith(REASON)]
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, reasons[-1] if reasons else "", done.stdout, done.stderr)

    def command(self, *words: str) -> Answer:
        """`controller cluster WORDS` as a person types it on this node."""
        done = subprocess.run(
            [self.pacemaker.commands / "controller", "cluster", *words, "--folder", self.folder],
            env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S,
        )  # fmt: skip
        return Answer(done.returncode, "", done.stdout, done.stderr)

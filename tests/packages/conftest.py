"""The files that a package installs beside the program, made once for all tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.programs import ROOT

GENERATED = ROOT / "packaging/generated.py"


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``packaging/generated.py`` has filled, called from another folder."""
    folder = tmp_path_factory.mktemp("generated")
    done = subprocess.run(
        [sys.executable, GENERATED, folder], cwd="/", capture_output=True, text=True, timeout=240, check=True
    )
    assert not done.stdout and not done.stderr
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

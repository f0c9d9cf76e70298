"""``scripts/screenshots``: the pictures of the documents can be taken anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.programs import ROOT
from tests.lab.screenshots import VIEWS

pytestmark = pytest.mark.browser


def test_each_view_has_a_picture(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.lab.screenshots", "--made-up", "--to", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    expected = {"overview", "overview-dark", "phone", *VIEWS}
    assert {path.stem for path in tmp_path.iterdir()} == expected
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())

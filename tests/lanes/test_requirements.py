"""What setup installs is checked before anything of it runs: each package has hashes, and only wheels are taken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lanes.part import ROOT

FILES = pytest.mark.parametrize("file", sorted(ROOT.glob("requirements*.txt")), ids=lambda file: file.stem)


@FILES
def test_each_package_has_one_exact_version_and_the_hashes_of_its_files(file: Path) -> None:
    entries = re.sub(r" \\\n", " ", file.read_text()).splitlines()
    packages = [line for line in entries if line and not line.startswith(("#", "--"))]
    assert packages
    for line in packages:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", line), line


@FILES
def test_only_wheels_are_installed_and_each_is_compared_with_its_hash(file: Path) -> None:
    assert "--only-binary :all:" in file.read_text().splitlines()
    assert "pip install --quiet --require-hashes --only-binary :all:" in (ROOT / "scripts/setup").read_text()
    assert '"--require-hashes", "--only-binary", ":all:"' in (ROOT / "scripts/check").read_text()

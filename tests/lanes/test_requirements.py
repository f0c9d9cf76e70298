"""What setup installs is checked before anything of it runs: each package has hashes, and only wheels are taken."""

from __future__ import annotations

import re

from tests.lanes.part import ROOT

TEXT = (ROOT / "requirements.txt").read_text()


def test_each_package_has_one_exact_version_and_the_hashes_of_its_files() -> None:
    entries = re.sub(r" \\\n", " ", TEXT).splitlines()
    packages = [line for line in entries if line and not line.startswith(("#", "--"))]
    assert len(packages) > 20
    for line in packages:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", line), line


def test_only_wheels_are_installed_and_each_is_compared_with_its_hash() -> None:
    assert "--only-binary :all:" in TEXT.splitlines()
    assert "pip install --quiet --require-hashes --only-binary :all:" in (ROOT / "scripts/setup").read_text()
    assert '"--require-hashes", "--only-binary", ":all:"' in (ROOT / "scripts/check").read_text()

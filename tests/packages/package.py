"""The Debian package of this tree: built once for a run of tests."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.lab.programs import ROOT


@functools.cache
def folder_of_builds() -> tempfile.TemporaryDirectory[str]:
    """Gone with this process."""
    return tempfile.TemporaryDirectory(prefix="pydbt-package-")


@functools.cache
def built() -> Path:
    """The package, by scripts/package."""
    return build(ROOT, Path(folder_of_builds().name) / "now")


def build(tree: Path, folder: Path) -> Path:
    """The package of a tree, in an empty folder. AssertionError with what the build said."""
    done = subprocess.run(
        [tree / "scripts/package", folder],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.deb")
    assert done.stdout.split() == [str(made)]
    return made


def copy_of_the_tree(folder: Path) -> Path:
    """What the package is made of, in a folder that is no repository."""
    for name in ("pydbt", "bpf", "docs", "packaging", "scripts"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, folder)
    return folder


def field(package: Path, name: str) -> str:
    """One field of its control file."""
    return subprocess.run(
        ["dpkg-deb", "-f", package, name], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()  # fmt: skip

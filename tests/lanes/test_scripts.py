"""``scripts/test`` by its words: which of them are the lanes', and which are pytest's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lanes.part import ROOT


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script in a project of its own, whose setup does nothing, and whose Python prints what it is given."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/test", tmp_path / "scripts")
    executable(tmp_path / "scripts/setup", "exit 0")
    executable(tmp_path / ".venv/bin/python", 'echo "$@"')
    executable(tmp_path / "path/id", "echo 0")
    return tmp_path


def told(copy: Path, *words: str) -> str:
    environment = os.environ | {"PATH": f"{copy / 'path'}:{os.environ['PATH']}"}
    done = subprocess.run([copy / "scripts/test", *words], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "words", [[], ["--full"], ["--part", "kernel"], ["--part=kernel"], ["--logs", "kept"], ["--logs=kept", "--full"]]
)
def test_an_option_of_the_lanes_runs_them_however_its_value_is_written(words: list[str], copy: Path) -> None:
    assert told(copy, *words) == " ".join(["-m tests.lanes test", *words])


def test_other_words_are_pytest_s(copy: Path) -> None:
    assert told(copy, "tests/core", "-k", "audit") == "-m pytest tests/core -k audit"


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_printed_without_root_and_without_setup(word: str, copy: Path) -> None:
    executable(copy / "path/id", "echo 1000")
    executable(copy / "scripts/setup", "exit 1")
    help_text = told(copy, word)
    assert help_text.startswith("The gate") and "--part" in help_text and "#" not in help_text

"""The version is said in one place, and the changelog has it."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest

from pydbt.cli.group import execute
from pydbt.version import VERSION

PROJECT = Path(__file__).resolve().parent.parent


def test_the_program_says_it_also_where_it_was_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: pytest.fail("it asks an installation"))
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["controller", VERSION]


def test_the_wheel_takes_it_from_the_program() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert "version" not in settings["project"] and settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "pydbt.version.VERSION"}


def test_the_changelogs_newest_release_is_this_version_with_its_date() -> None:
    releases = re.findall(r"^## ([0-9]\S*)(?: - (\S+))?$", (PROJECT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert releases[0][0] == VERSION
    days = [date.fromisoformat(day) for _, day in releases]
    assert days == sorted(days, reverse=True)


def test_no_other_file_says_another_one() -> None:
    said = re.search(r"version (\d+\.\d+), new", (PROJECT / "README.md").read_text())
    assert said and VERSION.startswith(f"{said[1]}."), "README.md, the table of tools"

"""A problem is one line; a name is good for a file, a folder and a unit."""

from __future__ import annotations

import datetime

import pytest

from pydbt.core.configured.problems import MAX_NAME_CHARACTERS, Problem, did_you_mean, shown, why_no_name


def test_a_problem_names_file_line_key_value_and_what_was_expected() -> None:
    assert str(Problem("/f.toml", 3, "sorce", "1", "unknown key")) == "/f.toml line 3: sorce = 1: unknown key"
    assert str(Problem("/f.toml", 2, "target", "", "missing")) == "/f.toml line 2: target: missing"
    assert str(Problem("/f.toml", 0, "", "", "cannot be read")) == "/f.toml: cannot be read"


@pytest.mark.parametrize(
    ("value", "words"),
    [("x", '"x"'), (True, "true"), (5, "5"), (["a", "b"], '["a", "b"]'), (datetime.date(2026, 1, 2), "2026-01-02")],
)
def test_a_value_is_shown_as_it_was_written(value: object, words: str) -> None:
    assert shown(value) == words


@pytest.mark.parametrize("name", ["a", "data", "7", "vg-data.root_2", "a" * MAX_NAME_CHARACTERS])
def test_a_name_for_a_volume(name: str) -> None:
    assert why_no_name(name) == ""


@pytest.mark.parametrize(
    "name", ["", "Data", "-a", ".a", "_a", "a b", "a/b", "ä", "a@b", "a\n", "a" * (MAX_NAME_CHARACTERS + 1)]
)
def test_no_name_for_a_volume(name: str) -> None:
    assert why_no_name(name).startswith("expected a name")


def test_a_slip_has_a_guess_and_nonsense_has_none() -> None:
    assert did_you_mean("sorce", ["source", "state"]) == ", did you mean 'source'?"
    assert did_you_mean("zzz", ["source"]) == ""

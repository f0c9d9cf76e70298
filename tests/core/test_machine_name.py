"""Names of machines: each that is taken is a file name and a common name, and each other one is refused with its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydbt.core.machine_name import name_problem


@pytest.mark.parametrize("name", ["a", "alpha", "db-1.example.org", "A_b", "9", "x" * 63, "authority2", "a..b", "a-"])
def test_a_name_of_the_expected_form_is_taken(name: str) -> None:
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "it is empty"), (".", "begins with '.'"), ("..", "begins with '.'"), ("-a", "begins with '-'"),
        ("_a", "begins with '_'"),
        ("/", "has '/' in it"), ("../x", "has '/' in it"), ("a/b", "has '/' in it"), ("a\n", r"has '\n' in it"), ("\n", "in it"),
        ("a b", "has ' ' in it"), ("\xe4", "in it"), ("a\u0661", "in it"), ("a\0", "in it"), ("x" * 64, "it has 64 characters"),
        ("x" * 65, "it has 65 characters"), ("x" * 5000, "it has 5000 characters"), ("authority", "choose another"),
        ("revoked", "choose another"), ("Revoked", "choose another"),
    ],
)  # fmt: skip
def test_a_name_of_another_form_is_refused_with_the_reason(name: str, words: str) -> None:
    assert words in name_problem(name)


@given(st.text(max_size=80) | st.text("ab.-_/\n9", max_size=80))
def test_each_name_that_is_taken_is_safe_and_each_refusal_is_one_short_line(name: str) -> None:
    problem = name_problem(name)
    if problem:
        assert problem.isprintable() and len(problem) < 300
    else:
        assert name.isascii() and 1 <= len(name) <= 63 and "/" not in name and name.isprintable() and name[0].isalnum()

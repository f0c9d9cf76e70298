"""Which replica may answer, and the words of a refusal that came without any."""

from __future__ import annotations

import pytest

from pydbt.core.protocol.refusals import is_expected, refusal_words

A, B, C = "a1" * 16, "b2" * 16, "c3" * 16


@pytest.mark.parametrize(
    ("expected", "replica", "formerly", "may"),
    [
        ("", A, (), True),  # none is on record yet
        (A, A, (), True),
        (A, B, (), False),
        (A, B, (C, A), True),  # its journal was damaged, twice
        (A, B, (C,), False),
    ],
)
def test_only_the_replica_on_record_may_answer_under_its_name_or_a_later_one(
    expected: str, replica: str, formerly: tuple[str, ...], may: bool
) -> None:
    assert is_expected(expected, replica, formerly) is may


@pytest.mark.parametrize(
    "code",
    [
        "protocol",
        "other-volume",
        "too-small",
        "sector-size",
        "second-primary",
        "resized",
        "block-size",
        "newer",
        "split-brain",
        "unrelated",
    ],
)
def test_a_code_alone_becomes_a_sentence_that_says_what_to_do(code: str) -> None:
    words = refusal_words(code)
    assert ": " in words and "its log says more" in words and len(words) > 60


def test_a_code_of_a_later_version_is_told_as_it_is() -> None:
    assert refusal_words("something-new") == "something-new (its log says more)"

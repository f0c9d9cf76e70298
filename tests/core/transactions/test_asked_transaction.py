"""A transaction that somebody asks for is reached by itself and by every later one."""

from __future__ import annotations

import pytest

from pydbt.core.transactions.asked_transaction import AskedTransaction


@pytest.mark.parametrize(
    ("asked", "reached", "not_yet"),
    [
        ("48211", ("48211", "48212", "48212.1"), ("48210", "48211.7", "3:100")),
        ("48211.3", ("48211.3", "48211.4", "48211", "48212"), ("48211.2", "48210", "48210.9")),
        ("4294967290", ("4294967295", "0", "5"), ("4294967289", "4000000000")),
        ("3:1024", ("3:1024", "3:1025", "4:0"), ("3:1023", "2:4000", "48211")),
    ],
)
def test_a_transaction_is_reached_by_itself_and_by_later_ones_alone(
    asked: str, reached: tuple[str, ...], not_yet: tuple[str, ...]
) -> None:
    one = AskedTransaction.parse(asked)
    assert all(one.reached_by(name) for name in reached)
    assert not any(one.reached_by(name) for name in not_yet)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "48211.", "4294967296", "3:", "3:4294967296", "3:1:2", "１", "current"]
)
def test_a_text_that_names_no_transaction_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="48211"):
        AskedTransaction.parse(text)
    assert not AskedTransaction("ext4", 1).reached_by(text)

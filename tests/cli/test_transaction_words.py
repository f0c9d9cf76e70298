"""The words of the status for the file system's transactions: never more than is known, and no raw bytes of others."""

from __future__ import annotations

from typing import Any

import pytest

from pydbt.cli.transaction_words import replica_transaction_words, transaction_words
from pydbt.core.seen.view import View

HELD = {"name": "48211", "committed": "2026-01-02T03:04:05.000Z", "age_seconds": 0.8, "sequence": 900}
NEWEST = {**HELD, "name": "48213.2"}
FOLLOWED = {"unit": "file-system", "reason": "", "file_system": "ext4", "newest": NEWEST, "per_second": 12.5}
WRITES = {
    "unit": "write-request",
    "reason": "it has no journal",
    "file_system": None,
    "newest": None,
    "per_second": None,
}


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            {"transaction": HELD, "transactions": FOLLOWED},
            "complete to ext4 transaction 48,211, committed 0.8 s ago; the newest is 48,213.2; 12.5 per second",
        ),
        (
            {"transaction": None, "transactions": {**FOLLOWED, "newest": None, "per_second": 0.0}},
            "unknown to which one the replica is complete",
        ),
        (
            {
                "transaction": {**HELD, "name": "3:1024"},
                "transactions": {**FOLLOWED, "file_system": "xfs", "newest": None},
            },
            "complete to xfs transaction 3:1024, committed 0.8 s ago; 12.5 per second",
        ),
        ({"transaction": None, "transactions": WRITES}, "one for each write request: it has no journal"),
        (
            {"running": False, "transaction": HELD, "transactions": {**WRITES, "file_system": "ext4"}},
            "complete to ext4 transaction 48,211, committed at 2026-01-02T03:04:05.000Z; one for each write request: "
            "it has no journal",
        ),
        ({}, ""),
    ],
)
def test_the_status_of_a_primary_has_words_for_its_transactions(report: dict[str, Any], words: str) -> None:
    assert transaction_words(View(report)) == words


def test_texts_of_another_program_are_no_commands_for_a_terminal() -> None:
    told = {"unit": "write-request", "reason": "\x1b[2J", "file_system": "\x1b[2J"}
    assert "\x1b" not in transaction_words(View({"transactions": told, "transaction": {"name": "\x1b[1m"}}))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ({"transaction": None, "newest_transaction": None}, ""),
        (
            {"transaction": None, "newest_transaction": {**NEWEST, "file_system": "ext4"}},
            "unknown to which one the replica is complete; the primary's newest is 48,213.2",
        ),
        (
            {"transaction": {**HELD, "file_system": "ext4"}, "newest_transaction": {**NEWEST, "file_system": "ext4"}},
            "complete to ext4 transaction 48,211, committed 0.8 s ago; the primary's newest is 48,213.2",
        ),
        (
            {"running": False, "transaction": {**HELD, "file_system": "ext4"}, "newest_transaction": {**HELD}},
            "complete to ext4 transaction 48,211, committed at 2026-01-02T03:04:05.000Z",
        ),
    ],
)
def test_the_status_of_a_secondary_has_words_for_its_transactions(report: dict[str, Any], words: str) -> None:
    assert replica_transaction_words(View(report)) == words

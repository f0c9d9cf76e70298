"""Each link of the chain from the last known write to now, broken in turn, is named; whole, nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.tracking.chain import (
    ClosingFacts,
    ProgramsFound,
    TrackingFacts,
    closing_gap,
    missing_link,
    tracking_gap,
)

ARMED = TrackingFacts("boot-1", "boot-1", 7, 7, ProgramsFound.PRESENT, "boot-1 42", "boot-1 42")
OF_A_RUN = replace(ARMED, kept_attachment="")
SAME_BOOT = ClosingFacts(same_boot=True, counts_agree=True)
LATER = ClosingFacts(
    same_boot=False, fingerprint_kept=True, fingerprint_agrees=True, kernel="6.1.0-1", kernel_now="6.12.0-2"
)


@pytest.mark.parametrize("facts", [ARMED, OF_A_RUN, replace(ARMED, kept_disk_sequence=None, disk_sequence=None)])
def test_programs_that_stayed_have_seen_every_write(facts: TrackingFacts) -> None:
    assert tracking_gap(facts) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kept_boot": ""}, "did not get as far as tracking"),
        ({"boot": "boot-2"}, "was booted since"),
        ({"pinned": ProgramsFound.NONE}, "taken out of the kernel"),
        ({"pinned": ProgramsFound.UNREADABLE}, "cannot be read"),
        ({"disk_sequence": 8}, "was away"),
        ({"disk_sequence": None}, "was away"),
        ({"pinned": ProgramsFound.OF_ANOTHER_RANGE}, "another range of sectors"),
        ({"attachment": "boot-1 43"}, "not those that were armed"),
        ({"attachment": ""}, "not those that were armed"),
        ({"faults": ("a command that went past",)}, "missed a command that went past"),
        ({"below": "a table has changed"}, "a table has changed"),
    ],
)
def test_each_broken_link_of_tracking_is_named(change: dict[str, object], words: str) -> None:
    assert words in tracking_gap(replace(ARMED, **change))  # type: ignore[arg-type]


def test_programs_of_a_run_need_no_name() -> None:
    """A later run takes over from them with their audit."""
    assert tracking_gap(replace(OF_A_RUN, attachment="boot-1 43")) == ""
    assert "missed a command" in tracking_gap(replace(OF_A_RUN, attachment="boot-1 43", faults=("a command",)))


@pytest.mark.parametrize("facts", [SAME_BOOT, LATER, replace(LATER, kernel="")])
def test_a_closing_record_after_which_nothing_was_written_is_trusted(facts: ClosingFacts) -> None:
    assert closing_gap(facts) == ""


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (None, "no closing record was written"),
        (replace(SAME_BOOT, counts_agree=False), "was written after the closing record"),
        (replace(SAME_BOOT, below="a snapshot was merged"), "a snapshot was merged"),
        (replace(LATER, fingerprint_kept=False), "no fingerprint"),
        (replace(LATER, in_use=True), "in use already"),
        (replace(LATER, in_use=True, fingerprint_agrees=False), "in use already"),
        (replace(LATER, fingerprint_agrees=False), "under Linux 6.1.0-1; this is 6.12.0-2"),
        (replace(LATER, fingerprint_agrees=False, kernel="6.12.0-2"), "written after the closing record: mounted"),
        (replace(LATER, fingerprint_agrees=False, kernel=""), "written after the closing record: mounted"),
    ],
)
def test_each_way_in_which_a_closing_record_proves_nothing_is_named(facts: ClosingFacts | None, words: str) -> None:
    assert words in closing_gap(facts)


def test_another_kernel_alone_breaks_nothing() -> None:
    """It has not written: the file system is the proof. Its name helps to find who did, when something was written."""
    assert LATER.kernel != LATER.kernel_now and closing_gap(LATER) == ""


@pytest.mark.parametrize(
    ("tracking", "closing", "closed", "expected"),
    [
        ("", "no record", False, ""),
        ("booted", "", True, ""),
        ("booted", "no record", False, "booted, and no record"),
        ("booted", "written", True, "written"),
    ],
)
def test_one_unbroken_chain_is_enough_and_otherwise_the_nearer_missing_link_is_told(
    tracking: str, closing: str, closed: bool, expected: str
) -> None:
    assert missing_link(tracking, closing, closed=closed) == expected


def test_the_reason_why_the_boot_did_not_arm_is_told_with_a_missing_link_and_breaks_nothing_alone() -> None:
    unarmed = "its unit is masked"
    told = " (it was not armed before its mount: its unit is masked)"
    assert missing_link("booted", "written", closed=True, unarmed=unarmed) == f"written{told}"
    assert missing_link("booted", "no record", closed=False, unarmed=unarmed) == f"booted, and no record{told}"
    assert missing_link("booted", "", closed=True, unarmed=unarmed) == ""
    assert missing_link("", "no record", closed=False, unarmed=unarmed) == ""

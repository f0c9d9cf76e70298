"""The log line about a comparison that began where differences were likely."""

from __future__ import annotations

from pydbt.core.primary.first_found import FirstFound
from pydbt.core.units import MIB


def test_the_log_line_tells_how_much_was_found_in_the_first_percent_and_in_likely_places() -> None:
    found = FirstFound(400 * MIB)
    for length, differing, likely in ((2, 1, True), (1, 1, True), (2, 1, True), (2, 1, True), (393, 1, False)):
        found.compared(length * MIB, differing * MIB, likely=likely)
    words = found.words()
    assert words.startswith("of 5.0 MiB that differed, 3.0 MiB were found in the first 4.0 MiB of the comparison"), (
        words
    )
    assert (
        "and 4.0 MiB where the log of the file system, or the last writes to the secondary, had told of changes "
        "(7.0 MiB, compared before all else)"
    ) in words


def test_nothing_is_told_where_nothing_was_likely_or_nothing_differed() -> None:
    found = FirstFound(100 * MIB)
    assert found.words() == ""
    found.compared(MIB, MIB, likely=False)
    assert found.words() == ""
    found = FirstFound(100 * MIB)
    found.compared(MIB, 0, likely=True)
    assert found.words() == ""

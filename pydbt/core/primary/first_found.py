"""How early a comparison finds what differs, when it begins where differences are likely (¶98.3)."""

from __future__ import annotations

from pydbt.core.units import format_bytes

FIRST_PART = 100
"""What is found in the first of this many parts is told."""


class FirstFound:
    """Counts only. ``planned_bytes``: what is to be compared."""

    def __init__(self, planned_bytes: int) -> None:
        self._first_bytes = planned_bytes // FIRST_PART
        self._compared_bytes = self._likely_bytes = 0
        self._differing_bytes = self._differing_likely_bytes = self._differing_first_bytes = 0

    def compared(self, length_bytes: int, differing_bytes: int, *, likely: bool) -> None:
        """One answer of the secondary, in the order in which they come."""
        if self._compared_bytes < self._first_bytes:
            self._differing_first_bytes += differing_bytes
        self._compared_bytes += length_bytes
        self._differing_bytes += differing_bytes
        if likely:
            self._likely_bytes += length_bytes
            self._differing_likely_bytes += differing_bytes

    def words(self) -> str:
        """For the operator; empty where nothing was compared before its turn, or nothing differed."""
        if not self._likely_bytes or not self._differing_bytes:
            return ""
        differing, first, likely = map(
            format_bytes, (self._differing_bytes, self._differing_first_bytes, self._differing_likely_bytes)
        )
        return (
            f"of {differing} that differed, {first} were found in the first {format_bytes(self._first_bytes)} of the comparison, "
            f"and {likely} where the log of the file system, or the last writes to the secondary, had told of changes "
            f"({format_bytes(self._likely_bytes)}, compared before all else)"
        )

"""Captured writes that have not completed, where the secondary may have none of these.

A write is captured when it is submitted, and might be on the secondary before dm-era has recorded it and let it through to the
disk. After a power loss in between nobody knew that the two sides differ there. So on a volume with write-intent the stream
ends before the first write that has not completed (see ``core/primary/era_bound``).
"""

from __future__ import annotations

from math import inf

import numpy as np

from pydbt.core.tracking.capture_record import RecordKind


class Uncompleted:
    """Writes in flight of a device that completes bios, by their cookie; in the order of their sequence numbers."""

    __slots__ = ("_flying",)

    def __init__(self) -> None:
        self._flying: dict[int, int] = {}  # cookie -> the first sequence number of its write

    def apply(self, records: np.ndarray, is_write: np.ndarray, first_sequences: np.ndarray) -> None:
        """Take a batch of records in order; ``first_sequences`` has a number for each of those that ``is_write``."""
        numbers = iter(first_sequences.tolist())
        for cookie, kind, written in zip(
            records["cookie"].tolist(), records["kind"].tolist(), is_write.tolist(), strict=True
        ):
            if written:
                self._flying.pop(
                    cookie, None
                )  # whose completion was never shown: a bio is used again when it has ended
                self._flying[cookie] = next(numbers)
            elif kind == RecordKind.COMPLETE:
                self._flying.pop(cookie, None)

    def forget(self, sequence: int) -> None:
        """Writes up to this number have ended, shown or not."""
        self._flying = {cookie: number for cookie, number in self._flying.items() if number > sequence}

    def clear(self) -> None:
        """Forget everything: none of them is queued any more, or the writes in flight are not known any more."""
        self._flying.clear()

    @property
    def sendable_through(self) -> float:
        """Every write up to this sequence number has completed; infinite when nothing is in flight."""
        return next((number - 1 for number in self._flying.values()), inf)

"""The content of captured blocks of a log, fetched when somebody looks at it: of most nobody does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pydbt.core.blocks.runs import Integers
from pydbt.core.tracking.capture_record import Records

Payload = Callable[[Records], list[memoryview]]
"""The data of records that carry some, piece by piece, in their order (``Capture.payload``)."""

_AHEAD = 16


class CapturedBlocks:
    """Of records that write one block each, in one piece. ``missing``: of some there was none, which are zeros here."""

    def __init__(self, records: Records, payload: Payload, block_bytes: int) -> None:
        self.missing = False
        self._records, self._payload, self._block_bytes = records, payload, block_bytes
        self._first, self._near, self._ahead = 0, list[memoryview](), _AHEAD

    def together(self, at: Integers) -> list[memoryview]:
        """Those at these places."""
        found = self._payload(self._records.take(at))
        if len(found) == len(at) and {*map(len, found)} <= {self._block_bytes}:
            return found
        self.missing = True
        return [memoryview(bytes(self._block_bytes))] * len(at)

    def one(self, place: int) -> memoryview:
        """The one at this place. Those behind it are mostly asked for next: more of them each time."""
        if not self._first <= place < self._first + len(self._near):
            self._near = self.together(np.arange(place, min(place + self._ahead, len(self._records))))
            self._first, self._ahead = place, 2 * self._ahead
        return self._near[place - self._first]

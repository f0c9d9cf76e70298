"""In the place of the watch of the file system's log: every third write that has data is a transaction, named by its number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from pydbt.controller.primary.transaction_watch import KnownTransaction
from pydbt.core.blocks.runs import Runs
from pydbt.core.tracking.capture_record import Operation, RecordKind
from pydbt.core.transactions.followed_log import EndedTransaction, ReadTransaction
from pydbt.core.transactions.transaction import JournalTransaction, RunsOfTransaction, TransactionState
from pydbt.core.units import Geometry
from tests.simulation.cluster.clock import Clock
from tests.simulation.cluster.disk import SECTOR
from tests.simulation.cluster.kernel import Kernel, Write

READ_S = 0.05


class SimTransactions:
    """``places``: sector and length of the write that is a transaction, by its number. ``told``: secondaries are told of them,
    which takes a place in the network's order of things.

    As a real log it is joined in the middle: the first transaction whose data comes is not told. Then the newest one that is
    on the disk can be read.
    """

    problem = ""

    def __init__(self, told: bool, kernel: Kernel, clock: Clock) -> None:
        self.file_system = "ext4" if told else None
        self.places: dict[int, tuple[int, int]] = {}
        self._ended: deque[KnownTransaction] = deque(maxlen=64)
        self._kernel, self._clock = kernel, clock
        self._has_footing = False
        self._reading_until: float | None = None
        self._found: Write | None = None
        self._drained_by: int | None = None

    def captured(self, records: np.ndarray, payload: object, newly_lost: int) -> tuple[EndedTransaction, ...]:
        found = []
        columns = (records[name].tolist() for name in ("kind", "ordinal", "data", "op", "sector", "sectors"))
        for index, (kind, number, data, op, sector, sectors) in enumerate(zip(*columns, strict=True)):
            if kind != RecordKind.SUBMIT or number % 3:
                continue
            if not data:
                self._has_footing &= op != Operation.WRITE
                continue
            if not self._has_footing:
                self._has_footing = True
                continue
            self.places[number] = sector, sectors
            one = transaction(number)
            self._ended.append(
                KnownTransaction(number, one.name, one.state, None, self._clock.now, 0, 0, one.named_parts, "")
            )
            found.append(EndedTransaction(index, one, ((sector * SECTOR, sectors * SECTOR),), number))
        return tuple(found)

    def recent(self, after: int = 0) -> list[KnownTransaction]:
        return [one for one in self._ended if one.ordinal > after]

    @property
    def oldest_kept(self) -> int:
        return self._ended[0].ordinal if self._ended else 1

    def take_renewed(self) -> bool:
        return False

    # --- the log on the disk ------------------------------------------------------------------------------
    def read_log(self, now: float, then: Callable[[], None]) -> None:
        if self._reading_until is None:
            self._reading_until, self._found, self._drained_by = now + READ_S, None, None

    @property
    def has_read(self) -> bool:
        return self._reading_until is not None and self._clock.now >= self._reading_until

    def take_read(self, producer: Callable[[], int], drained: int) -> ReadTransaction | None:
        if not self.has_read:
            return None
        if self._drained_by is None:
            self._found, self._drained_by = self._newest_on_disk(), producer()
        if drained < self._drained_by:
            return None
        self._reading_until = None
        one = self._found
        if one is None:
            return None
        self.places[one.order] = one.sector, one.sectors
        place = (one.sector * SECTOR, one.sectors * SECTOR)
        return ReadTransaction(transaction(one.order), (place,), self._clock.now, one.order)

    def _newest_on_disk(self) -> Write | None:
        writes = self._kernel.era.by_order.values()
        whole = [one for one in writes if one.ended and not one.failed and one.op == Operation.WRITE]
        return max((one for one in whole if one.order % 3 == 0), key=lambda one: one.order, default=None)

    def likely_changes(self, geometry: Geometry) -> Runs:
        """Some blocks, in any order: what a log names may differ or not."""
        firsts = [(self._kernel.submitted * 7 + step * 11) % geometry.block_count for step in range(4)]
        return Runs(np.array(firsts, np.int64), np.array([1, 3, 1, 2], np.int64))

    def advance(self, now: float) -> None: ...

    def per_second(self, now: float) -> float:
        return 0.0


def transaction(number: int) -> JournalTransaction:
    """A transaction that is named by the number of a write."""
    none = RunsOfTransaction()
    return JournalTransaction(str(number), number, TransactionState.COMMITTED, None, 0, 1, number, none, none)

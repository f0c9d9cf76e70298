"""In the place of the watch of the file system's log: every third write that has data is a transaction, named by its number."""

from __future__ import annotations

import numpy as np

from pydbt.core.tracking.capture_record import RecordKind
from pydbt.core.transactions.followed_log import EndedTransaction
from pydbt.core.transactions.transaction import JournalTransaction, RunsOfTransaction, TransactionState
from tests.simulation.cluster.disk import SECTOR


class SimTransactions:
    """``places``: sector and length of the write that is a transaction, by its number. ``told``: secondaries are told of them,
    which takes a place in the network's order of things."""

    problem = ""

    def __init__(self, told: bool) -> None:
        self.file_system = "ext4" if told else None
        self.places: dict[int, tuple[int, int]] = {}

    def captured(self, records: np.ndarray, payload: object, newly_lost: int) -> tuple[EndedTransaction, ...]:
        found = []
        for index, record in enumerate(records):
            number = int(record["ordinal"])
            if record["kind"] != RecordKind.SUBMIT or not record["data"] or number % 3:
                continue
            sector, sectors = int(record["sector"]), int(record["sectors"])
            self.places[number] = sector, sectors
            none = RunsOfTransaction()
            transaction = JournalTransaction(
                str(number), number, TransactionState.COMMITTED, None, sector, sectors, number, none, none
            )
            found.append(EndedTransaction(index, transaction, ((sector * SECTOR, sectors * SECTOR),), number))
        return tuple(found)

    def take_renewed(self) -> bool:
        return False

    def advance(self, now: float) -> None: ...

    def per_second(self, now: float) -> float:
        return 0.0

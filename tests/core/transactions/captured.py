"""Writes to a volume as capture gives them: records, and their data in pieces."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pydbt.core.tracking.capture_record import RECORD, Operation, RecordKind, Records


@dataclass
class Written:
    """A batch under construction. ``payload`` is what a follower calls."""

    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    data: dict[int, bytes] = field(default_factory=dict)
    whole: bool = False

    def write(
        self, offset_bytes: int, data: bytes | None, *, op: Operation = Operation.WRITE, sectors: int = 0
    ) -> None:
        """A submission; without data its record has none."""
        identifier = 0
        if data is not None:
            identifier = len(self.data) + 1
            self.data[identifier] = data
            sectors = len(data) // 512
        self.rows.append((RecordKind.SUBMIT, offset_bytes // 512, sectors, op, identifier))

    def complete(self, offset_bytes: int, length_bytes: int) -> None:
        self.rows.append((RecordKind.COMPLETE, offset_bytes // 512, length_bytes // 512, Operation.WRITE, 0))

    def records(self) -> Records:
        made = np.zeros(len(self.rows), RECORD)
        for row, (kind, sector, sectors, op, identifier) in zip(made, self.rows, strict=True):
            row["kind"], row["sector"], row["sectors"], row["op"] = kind, sector, sectors, op
            row["data"] = identifier
            row["pieces"] = 0 if not identifier else 1 if self.whole or sectors == 1 else 2
        return made

    def payload(self, records: Records) -> list[memoryview]:
        """In two pieces where a write is longer than a sector, unless they are ``whole``."""
        if self.whole:
            return [memoryview(self.data[identifier]) for identifier in records["data"].tolist()]
        pieces = []
        for identifier in records["data"].tolist():
            whole = memoryview(self.data[identifier])
            pieces += [whole[:512], whole[512:]] if len(whole) > 512 else [whole]
        return pieces

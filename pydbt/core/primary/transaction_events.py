"""What a brain asks for, so that the transactions that have completed go into the stream of its secondary."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.protocol.completed import CompletedRows


@dataclass(frozen=True, slots=True)
class SendCompleted:
    """Queue a COMPLETED frame behind everything queued before; ``after`` is the last update of that."""

    after: int
    rows: CompletedRows

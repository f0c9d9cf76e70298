"""What others may know of the primary's brain: one frozen report, of which the shells make theirs."""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.file_system_transactions import TransactionsStatus
from pydbt.core.primary.forecast import Pace
from pydbt.core.primary.landing import SnapshotStatus
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.primary.statistics import Figures
from pydbt.core.primary.verifier import VerifyProgress


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The transaction log: bytes, positions, and transactions that are not acknowledged."""

    capacity_bytes: int
    used_bytes: int
    start: int
    end: int
    active_transactions: int


@dataclass(frozen=True, slots=True)
class PrimaryStatus:
    """One secondary, as its brain knows it at a moment. Times are seconds of the monotonic clock.

    ``waiting_for`` keeps the resynchronization from going on, in words; empty when nothing does. ``replica_state`` is what
    the image is called, before lag and taints count. ``sequence`` is the number of the last captured update,
    ``acknowledged`` that of the last durable one, and ``replica_position`` the (epoch, sequence) of the image.
    ``known``: all blocks that may differ are counted. ``out_of_sync_bytes``: those that are; the kernel's bitmaps come on top,
    outside of normal mode. ``on_the_way_bytes``: of these the blocks that only wait for an acknowledgement.
    ``unacknowledged_bytes``: the stream's own bytes, each write by itself. ``repairing``: a block that was found to differ is not
    on the secondary yet. ``fresh``: the secondary lacks no more than what may come between two heartbeats
    (``reported_state.is_fresh``), and a crash would forget nothing of that (``unwritten``). ``mode_since``: when the mode began.
    ``connected``: it was heard a moment ago. ``unreadable``: blocks of the source that cannot be read. ``unwritable``: blocks
    that the secondary's target does not take. ``snapshots`` is None with journal-based replication.
    """

    mode: Mode
    mode_since: float
    phase: Phase
    connected: bool
    connection_problem: str
    waiting_for: str
    replica_state: str
    taints: tuple[str, ...]
    sequence: int
    acknowledged: int
    replica_position: tuple[int, int]
    known: bool
    out_of_sync_bytes: int
    unsettled_bytes: int
    unreadable: Runs
    unwritable: Runs
    repairing: bool
    unacknowledged_bytes: int
    on_the_way_bytes: int
    fresh: bool
    log: LogStatus
    done_bytes: int
    total_bytes: int
    pace: Pace
    persist_problem: str
    verify: VerifyProgress | None
    snapshots: SnapshotStatus | None
    transactions: TransactionsStatus
    statistics: Figures

"""Events and effects of the secondary's brain. There is one per batch, never one per record.

Work that is handed out has a ticket, a number that only grows. The worker that has done it reports the ticket. There are two
workers, and each works in order: the journal (Append, Resume) and the applier (Apply, Write, Sync, Compare, SetApplied).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydbt.core.blocks.runs import BlockNumbers, Runs
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.protocol.frames import Blocks, Digests, Frame, Hello, Stream
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.core.secondary.journal import JournalEntry
from pydbt.core.secondary.open_handover import OpenHandover
from pydbt.core.secondary.replica import AppliedPoint, ReplicaRecord
from pydbt.core.units import Geometry


@dataclass(frozen=True, slots=True)
class Connected:
    """A peer sent HELLO. It gets WELCOME or REFUSE. A later connection takes the place of an earlier one.

    ``digest_key``: made for this connection, from a source that nobody can guess. ``proven``: the peer has proved who it is.
    ``other_heard_at``: when the last byte of a primary that was welcomed arrived, perhaps in the middle of a long frame.
    """

    connection: int
    hello: Hello
    digest_key: bytes = field(repr=False)
    proven: bool = True
    other_heard_at: float | None = None


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """``at``: when it arrived, which may be a while ago; None: now."""

    connection: int
    frame: Frame
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class JournalDurable:
    """These Appends are on disk: their tickets in order, and for each where its record ends in the journal."""

    tickets: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JournalRefused:
    """The Append of ``ticket`` and all after it were NOT done, and none is until a Resume.

    ``full``: for want of room; otherwise the disk failed. ``position``: where the durable journal ends.
    """

    ticket: int
    position: int
    full: bool
    error: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The journal before ``point.position`` is written to the target (not yet durable there)."""

    point: AppliedPoint


@dataclass(frozen=True, slots=True)
class Written:
    """The Write of ``ticket`` and all before it are written to the target, not yet durable."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything the applier had done before the Sync of ``ticket`` is durable on the target."""

    ticket: int
    point: AppliedPoint


@dataclass(frozen=True, slots=True)
class TargetFailed:
    """The target (or the journal it is filled from) failed. The applier does nothing more until a Restart."""

    error: str


@dataclass(frozen=True, slots=True)
class KeptAside:
    """These are all the blocks of the target (of ``BAD_BLOCK_BYTES``) that it does not take; what is to be there is kept aside.

    Reported ahead of the work in which that was found. What is kept is durable at the next Synced or Compared; a block that is
    not named any more is durably on the target.
    """

    blocks: Runs


@dataclass(frozen=True, slots=True)
class Compared:
    """Answer to Compare: the numbers of the units that differ; the others are durably equal."""

    ticket: int
    differing: BlockNumbers


@dataclass(frozen=True, slots=True)
class RoomMeasured:
    """Bytes that the journal may still take; reported before every BEGIN. 0 where staging is switched off."""

    free_bytes: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Connected | FrameReceived | Disconnected | JournalDurable | JournalRefused | Applied | Written | Synced
    | TargetFailed | KeptAside | Compared | RoomMeasured | Tick
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Send:
    connection: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Drop the connection. Frames that were sent before still go out. Answers nothing.

    ``reason`` is logged when the peer was refused in the place of a welcome.
    """

    connection: int
    reason: str


@dataclass(frozen=True, slots=True)
class Append:
    """Put an entry at the end of the journal and make it durable. Answers JournalDurable or JournalRefused.

    ``unlimited``: only the disk bounds the journal now (a stage is in it), not the operator's limit.
    """

    ticket: int
    entry: JournalEntry
    unlimited: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """After a JournalRefused: take Appends again, from the durable end on, as a new incarnation."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class FreeJournal:
    """Nothing before ``position`` is needed any more."""

    position: int


@dataclass(frozen=True, slots=True)
class Apply:
    """The journal may be applied up to ``limit``. Answers Applied, perhaps several times."""

    limit: int


@dataclass(frozen=True, slots=True)
class Write:
    """Write straight to the target, behind everything applied so far. Answers Written."""

    ticket: int
    frame: Blocks | Stream


@dataclass(frozen=True, slots=True)
class Sync:
    """Make the target durable. Answers Synced or TargetFailed."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare digests with the target's content, after making that durable. Answers Compared.

    ``units`` is the volume in the units of the frame; ``digest`` that of the connection.
    """

    ticket: int
    frame: Digests
    units: Geometry
    digest: UnitDigest


@dataclass(frozen=True, slots=True)
class SetApplied:
    """The applier is at ``point`` now: the direct writes have become a consistent image."""

    point: AppliedPoint


@dataclass(frozen=True, slots=True)
class Restart:
    """Forget everything in memory and begin again from the state file and the journal, read up to ``trusted``.

    Answers with a new brain, which tries the failed work again. A crash would have had the same effect.
    """

    reason: str
    trusted: int


@dataclass(frozen=True, slots=True)
class Persist:
    """Write the state file; done and durable before any later effect is looked at."""

    record: ReplicaRecord


@dataclass(frozen=True, slots=True)
class KeepMarks:
    """Write the file of marks; done and durable before any later effect is looked at."""

    marks: HeldMarks


@dataclass(frozen=True, slots=True)
class KeepHandover:
    """Write down a change of places that begins, with the moment; None: that it is over. Durable before any later effect."""

    found: OpenHandover | None


@dataclass(frozen=True, slots=True)
class KeepGateQuestion:
    """Write down that a primary asks whether it may mount the volume, with the moment; or, not ``open``, that it runs since.

    Durable before any later effect.
    """

    open: bool


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The primary has become a replica, durably, and waits at ``listen``: be promoted, answer on this connection, be the primary.

    Done when everything is on the target. The brain has let go of the connection.
    """

    connection: int
    listen: str


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the operator."""

    level: Literal["debug", "info", "warning", "error"]
    message: str


JournalWork = Append | Resume
ApplierWork = Apply | Write | Sync | Compare | SetApplied
Effect = (
    Send
    | CloseConnection
    | JournalWork
    | FreeJournal
    | ApplierWork
    | Restart
    | Persist
    | KeepMarks
    | KeepHandover
    | KeepGateQuestion
    | TakeOver
    | Log
)

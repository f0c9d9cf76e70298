"""The frames of the replication protocol as typed values: one that exists is legal.

Layouts and limits are documented in docs/reference/format.md; ``wire`` turns frames into bytes and back.
A volume's identity is 32 hexadecimal digits; an epoch (the identity of a space of sequence numbers) a u64 that
JSON bodies carry as 16 hexadecimal digits, because JSON readers lose the low bits of large numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol.completed import Completed
from pydbt.core.protocol.digests import DIGEST_BYTES, DIGEST_KEY_BYTES
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.protocol.frame_checks import (
    REPLICA_STATE_NAMES,
    check_features,
    check_key,
    check_text,
    check_u64,
    check_volume,
)
from pydbt.core.protocol.generations import NO_GENERATIONS, Generations
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.protocol.recent import RECENT_WRITES, Recall, Recent
from pydbt.core.protocol.role import Role
from pydbt.core.protocol.standing import STANDING, UNKNOWN_STANDING, Standing
from pydbt.core.protocol.stream_times import MAX_TIMED_EXTENTS, MAX_TIMES, StreamTimes
from pydbt.core.protocol.transaction import TRANSACTIONS, Transaction
from pydbt.core.protocol.unit_rows import COMPARED_UNITS_BYTES, check_units, same_units
from pydbt.core.units import MAX_COMPARED_BYTES, MIB, Buffer, Geometry

PROTOCOL_VERSION = 3
MAX_PAYLOAD_BYTES = 8 * MIB
"""Large enough that a frame's own 72 bytes cost nothing, small enough that a few fit into a queue of 64 MiB."""
MAX_EXTENTS = 65_000
"""With a payload of 8 MiB, table and payload stay below MAX_BODY_BYTES."""
MAX_SEQUENCE_SPAN = 65_536
"""Sequence numbers in one STREAM frame: an extent's sequence_delta (u16) has this many values."""
PROGRESS = "progress"
"""In HELLO's features: the primary understands a WELCOME and an ACK that tell the replica's progress."""
HEARTBEAT = "heartbeat"
"""In HELLO's features: the primary sends a PING each second, with the position that the replica needs to be up to date."""
HANDOVER = "handover"
"""In WELCOME's features: the secondary understands HANDOVER frames."""
WITHDRAWAL = "withdrawal"
"""In HELLO's features: the primary takes the question of a HANDOVER back when it gives the change of places up. In WELCOME's: the
secondary understands that."""
SIDES = "sides"
"""In HELLO's features: the primary understands a REFUSE that tells what only the secondary has."""
SUPERSEDED = "superseded"
"""The code of the REFUSE that tells a primary that its replica was promoted."""
KEYED_DIGESTS = "keyed-digests"
"""In HELLO's features: the primary understands a WELCOME with a key, and makes the digests of DIGESTS with it."""
FORMERLY = "formerly"
"""In HELLO's features: the primary understands a WELCOME that tells the earlier names of the replica."""
HISTORY = "history"
"""In WELCOME's features: the secondary keeps STREAM frames with times, COMPLETED and MARK frames in its journal."""
UNWRITABLE = "unwritable"
"""In HELLO's features: the primary understands UNWRITABLE frames. In WELCOME's: the secondary sends them."""
TARGET_ERROR = "target-error"
"""The code of the REFUSE that tells a primary that the target cannot be written: the replica cannot be used until it can."""
SECTOR_SIZE = "sector-size"
"""The code of the REFUSE for a source whose logical block is smaller than that of the target."""
BOOT = "boot="
"""Begins one of HELLO's features: the name of the boot of the primary's machine follows, which no other machine has."""
SECOND_PRIMARY = "second-primary"
"""The code of the REFUSE for a primary of another boot than the one that is connected, and lives."""
MARKS = "marks"
"""In HELLO's features: the primary understands a WELCOME that tells which marks the secondary holds."""
DATED_PINGS = "dated-pings"
"""In WELCOME's features: the secondary understands a PING that tells when it was made."""
HELLO_FEATURES = (PROGRESS, HEARTBEAT, SIDES, KEYED_DIGESTS, FORMERLY, UNWRITABLE, MARKS, WITHDRAWAL)
"""Those that this version's HELLO has, beside that of the boot."""
WELCOME_FEATURES = (
    STANDING, UNKNOWN_STANDING, HANDOVER, UNWRITABLE, TRANSACTIONS, HISTORY, RECENT_WRITES, DATED_PINGS, WITHDRAWAL,
)  # fmt: skip
"""Those that this version's WELCOME has."""


class FrameKind(IntEnum):
    """Kinds from the primary are below 64, from the secondary above."""

    HELLO = 1
    BEGIN = 2
    BLOCKS = 3
    DIGESTS = 4
    STREAM = 5
    COMMIT = 6
    PING = 7
    BYE = 8
    GENERATION = 9
    STANDING = 10
    HANDOVER = 11
    TRANSACTION = 12
    COMPLETED = 13
    MARK = 14
    RECALL = 15
    WELCOME = 65
    REFUSE = 66
    ACK = 67
    WANT = 68
    PONG = 69
    TAKEOVER = 70
    UNWRITABLE = 71
    ROLE = 72
    RECENT = 73


class BeginFlag(IntEnum):
    """Bits of BEGIN.flags."""

    INITIAL = 1
    WHOLE_DEVICE = 2
    NO_STREAM = 4  # no STREAM follows the COMMIT: the replica stays at that moment until the next one


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of a primary: which volume this is, its generations, and in which epoch its sequence numbers count."""

    volume: str
    size_bytes: int
    block_bytes: int
    epoch: int
    sector_bytes: int = 512
    software: str = ""
    features: tuple[str, ...] = ()
    protocol: int = PROTOCOL_VERSION
    generations: Generations = NO_GENERATIONS

    def __post_init__(self) -> None:
        check_volume(self.volume)
        for name in ("size_bytes", "block_bytes", "epoch", "sector_bytes", "protocol"):
            check_u64(name, getattr(self, name))
        Geometry(self.size_bytes, self.block_bytes)
        check_text("software", self.software)
        check_features(self.features)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The secondary's answer: its durable content.

    ``replica`` names this replica (32 hexadecimal digits, made when its state directory was); ``volume`` is None for
    a target that has adopted no volume, or not this content of it: everything has to be copied. ``fresh`` says that it
    is then known to read as zeros. ``sequence`` in ``epoch`` is the position of its consistent image; ``staged``
    says that batches of an unfinished resync are kept beside it, so that only a new BEGIN may follow.
    ``size_bytes`` is the size of the target, which may be larger than the volume. ``progress`` counts the bytes that ever
    became durable on this replica, and is never less than in any ACK; None from one that was not asked, or is older.
    ``digest_key`` is the key of the digests of this connection, in hexadecimal digits; None as with ``progress``: nothing
    can be compared then. ``formerly``: earlier names of this replica, newest first; None as above. ``marks``: the numbers of
    those that it holds, the newest last, of many the newest; None as above.
    """

    volume: str | None
    state: str
    epoch: int
    sequence: int
    staged: bool
    size_bytes: int
    fresh: bool
    replica: str = "0" * 32
    software: str = ""
    features: tuple[str, ...] = ()
    generations: Generations = NO_GENERATIONS
    progress: int | None = None
    digest_key: str | None = field(default=None, repr=False)
    formerly: tuple[str, ...] | None = None
    marks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_volume(self.replica)
        for number in self.marks or ():
            check_u64("mark", number)
        if self.digest_key is not None:
            check_key("digest_key", self.digest_key, DIGEST_KEY_BYTES)
        if self.progress is not None:
            check_u64("progress", self.progress)
        for name in self.formerly or ():
            check_volume(name)
        if self.volume is not None:
            check_volume(self.volume)
        for name in ("epoch", "sequence", "size_bytes"):
            check_u64(name, getattr(self, name))
        if type(self.staged) is not bool or type(self.fresh) is not bool:
            raise ValueError("staged and fresh are truth values")
        check_text("state", self.state, 32)
        check_text("software", self.software)
        check_features(self.features)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The secondary will not go on: ``code`` for programs, ``message`` one sentence for people.

    ``side``: what only the secondary has, in a split brain; None to a primary that does not ask, or where it is not known.
    """

    code: str
    message: str
    side: Divergence | None = None

    def __post_init__(self) -> None:
        check_text("code", self.code, 64)
        check_text("message", self.message)


@dataclass(frozen=True, slots=True)
class Bye:
    """The primary closes on purpose."""

    reason: str

    def __post_init__(self) -> None:
        check_text("reason", self.reason)


@dataclass(frozen=True, slots=True)
class Generation:
    """The primary's generations as of the next COMMIT. Those of HELLO hold until the first of these frames."""

    generations: Generations


@dataclass(frozen=True, slots=True)
class Handover:
    """Both sides are to change their roles. Answered by TAKEOVER.

    Not ``final``: the primary asks whether the secondary could take over. ``final``: the primary has durably become a replica,
    its last image is at ``sequence`` of ``epoch``, and it waits at ``listen`` for the new primary. Neither final nor with a place
    to listen: the question is taken back, and not answered.
    """

    final: bool
    listen: str
    epoch: int = 0
    sequence: int = 0

    def __post_init__(self) -> None:
        check_text("listen", self.listen, 300)
        for name in ("epoch", "sequence"):
            check_u64(name, getattr(self, name))

    @property
    def is_withdrawal(self) -> bool:
        return not self.final and not self.listen


@dataclass(frozen=True, slots=True)
class Takeover:
    """Answer to HANDOVER: ``refusal`` is empty when the secondary could take over or, to a final one, durably has."""

    final: bool
    refusal: str = ""

    def __post_init__(self) -> None:
        check_text("refusal", self.refusal)


@dataclass(frozen=True, slots=True)
class Begin:
    """A (re)synchronization starts. ``total_bytes`` is the amount that the primary plans to send: the stage needs this room."""

    resync: int
    epoch: int
    total_bytes: int
    flags: int = 0

    def __post_init__(self) -> None:
        for name in ("resync", "epoch", "total_bytes"):
            check_u64(name, getattr(self, name))
        if self.resync == 0:
            raise ValueError("a resync is numbered from 1")
        if not 0 <= self.flags <= 7:
            raise ValueError(f"unknown flags {self.flags:#x} of a BEGIN frame")


class _Bulk:
    """The common part of frames with an extent table and payload. Payload is a tuple of buffers, never joined."""

    __slots__ = ()
    extents: SectorTable
    payload: tuple[Buffer, ...]

    @property
    def payload_bytes(self) -> int:
        return sum(map(len, self.payload))

    def _check(self) -> None:
        if len(self.extents) > MAX_EXTENTS:
            raise ValueError(f"{len(self.extents)} extents in a frame that takes {MAX_EXTENTS}")
        self.extents.check()
        expected = self.extents.payload_bytes
        if expected > MAX_PAYLOAD_BYTES or expected != self.payload_bytes:
            raise ValueError(f"{self.payload_bytes} bytes of payload where the extents tell of {expected}")

    def _same(self, other: _Bulk) -> bool:
        return self.extents == other.extents and b"".join(self.payload) == b"".join(other.payload)


@dataclass(frozen=True, slots=True, eq=False)
class Blocks(_Bulk):
    """Resynchronization data: the newest content of some sectors. Later batches overwrite earlier ones."""

    batch: int
    extents: SectorTable
    payload: tuple[Buffer, ...] = ()

    def __post_init__(self) -> None:
        check_u64("batch", self.batch)
        if self.extents.sequence_deltas.any():
            raise ValueError("extents of a BLOCKS frame carry no sequence")
        self._check()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blocks) and self.batch == other.batch and self._same(other)


@dataclass(frozen=True, slots=True, eq=False)
class Stream(_Bulk):
    """Ordered updates ``first`` to ``last``, all of them; an extent's sequence is first + sequence_delta.

    ``times``: when each of them was submitted; None to or from an earlier version.
    """

    first: int
    last: int
    extents: SectorTable
    payload: tuple[Buffer, ...] = ()
    times: StreamTimes | None = None

    def __post_init__(self) -> None:
        check_u64("first", self.first)
        check_u64("last", self.last)
        if self.first == 0:
            raise ValueError("sequence numbers count from 1")
        if not 0 <= self.last - self.first < MAX_SEQUENCE_SPAN:
            raise ValueError(f"a STREAM frame from {self.first} to {self.last} spans no range it may")
        self._check()
        deltas = self.extents.sequence_deltas
        if len(deltas) and (int(deltas[-1]) > self.last - self.first or (deltas[1:] < deltas[:-1]).any()):
            raise ValueError("extents of a STREAM frame are out of order or past its last sequence")
        if self.times is not None:
            if len(self.times.submitted_ns) != self.last - self.first + 1:
                raise ValueError(f"{len(self.times.submitted_ns)} times for updates {self.first} to {self.last}")
            if len(self.times.submitted_ns) > MAX_TIMES or len(self.extents) > MAX_TIMED_EXTENTS:
                raise ValueError("a STREAM frame with times has more updates or extents than it may")

    def __eq__(self, other: object) -> bool:
        mine = isinstance(other, Stream) and (self.first, self.last, self.times) == (
            other.first,
            other.last,
            other.times,
        )
        return mine and isinstance(other, Stream) and self._same(other)


@dataclass(frozen=True, slots=True, eq=False)
class Digests:
    """Digests of units of ``unit_bytes``, to find out which differ: 16 bytes per unit, in the order of the runs.

    A digest is a ``UnitDigest`` of the unit's bytes, with the key of the connection (the last unit of a volume may be shorter
    than the others).
    """

    batch: int
    units: Runs
    digests: Buffer
    unit_bytes: int = MAX_COMPARED_BYTES

    def __post_init__(self) -> None:
        check_u64("batch", self.batch)
        if self.unit_bytes not in COMPARED_UNITS_BYTES:
            raise ValueError(f"digests of units of {self.unit_bytes} bytes")
        check_units(self.units)
        if len(self.digests) != self.units.total() * DIGEST_BYTES:
            raise ValueError(f"{len(self.digests)} bytes of digests for {self.units.total()} units")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Digests)
            and (self.batch, self.unit_bytes) == (other.batch, other.unit_bytes)
            and same_units(self.units, other.units)
            and bytes(self.digests) == bytes(other.digests)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """Answer to DIGESTS, in its units: these differ (or cannot be vouched for), the others are durably the same."""

    batch: int
    units: Runs

    def __post_init__(self) -> None:
        check_u64("batch", self.batch)
        check_units(self.units)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Want) and self.batch == other.batch and same_units(self.units, other.units)


@dataclass(frozen=True, slots=True)
class Unwritable:
    """These are all the units of the target that cannot be written. What is to be there is kept by the secondary, durably."""

    units: Runs
    unit_bytes: int

    def __post_init__(self) -> None:
        if self.unit_bytes not in COMPARED_UNITS_BYTES:
            raise ValueError(f"units of {self.unit_bytes} bytes cannot be written")
        check_units(self.units)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Unwritable)
            and self.unit_bytes == other.unit_bytes
            and same_units(self.units, other.units)
        )


@dataclass(frozen=True, slots=True)
class Commit:
    """With everything received so far, the replica equals the primary at ``sequence`` of the BEGIN's epoch."""

    resync: int
    sequence: int

    def __post_init__(self) -> None:
        check_u64("resync", self.resync)
        check_u64("sequence", self.sequence)


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG. ``sequence``: with the feature HEARTBEAT the number of the last captured write, or
    ``heartbeat.OUT_OF_SYNC`` while the replica is not what the volume is; without the feature 0.

    It was made ``since_ms`` after the PONG with the token ``answered`` had arrived, which was the last one; or after the WELCOME,
    if that is 0. So the secondary knows how old it is, however long it has waited behind the stream. None: this is not told.
    """

    token: int
    sequence: int = 0
    answered: int | None = None
    since_ms: int = 0

    def __post_init__(self) -> None:
        for name in ("token", "sequence", "since_ms"):
            check_u64(name, getattr(self, name))
        if self.answered is not None:
            check_u64("answered", self.answered)
        elif self.since_ms:
            raise ValueError("since_ms needs the PONG behind which it counts")


@dataclass(frozen=True, slots=True)
class Pong:
    token: int

    def __post_init__(self) -> None:
        check_u64("token", self.token)


@dataclass(frozen=True, slots=True)
class Ack:
    """What is durable on the secondary; every number is cumulative.

    ``sequence``: updates of the stream; ``batch``: BLOCKS written and DIGESTS answered, of this connection;
    ``resync_committed``: the last resync committed in this connection, 0 for none; ``applied_sequence``: updates
    that have reached the target itself (not yet synced there perhaps); ``staged_bytes``: room the stage takes;
    ``progress``: as in WELCOME, 0 where it is left out.
    """

    sequence: int
    batch: int = 0
    resync_committed: int = 0
    applied_sequence: int = 0
    staged_bytes: int = 0
    replica_state: int = 0
    progress: int = 0

    def __post_init__(self) -> None:
        for name in ("sequence", "batch", "resync_committed", "applied_sequence", "staged_bytes", "progress"):
            check_u64(name, getattr(self, name))
        if not 0 <= self.replica_state < len(REPLICA_STATE_NAMES):
            raise ValueError(f"unknown replica state {self.replica_state}")


Frame = (
    Hello | Begin | Blocks | Digests | Stream | Commit | Ping | Bye | Generation | Standing | Handover
    | Welcome | Refuse | Ack | Want | Pong | Takeover | Unwritable | Role
    | Transaction | Completed | NamedMark | Recall | Recent
)  # fmt: skip

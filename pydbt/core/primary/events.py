"""What the primary's brain is told, and what it asks for in return.

Events come per batch, never per record. The shell carries effects out in order; some answer with an event, which they name.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.runs import Integers, Runs
from pydbt.core.primary import mark_events as m
from pydbt.core.primary.interruption import LinkSeen as LinkSeen
from pydbt.core.primary.left_out import KeepLeftOut as KeepLeftOut
from pydbt.core.primary.left_out import LeftOutKept as LeftOutKept
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.transaction_events import SendCompleted as SendCompleted
from pydbt.core.primary.unwritten import WriteDown as WriteDown
from pydbt.core.primary.unwritten import WrittenDown as WrittenDown
from pydbt.core.protocol.frames import Frame
from pydbt.core.protocol.generations import Generations
from pydbt.core.tracking.capture_record import Records
from pydbt.core.transactions.asked_transaction import AskedTransaction
from pydbt.core.transactions.followed_log import EndedTransaction, ReadTransaction


@dataclass(frozen=True, slots=True)
class Captured:
    """Capture records in kernel order. ``position``: behind them in the ring, in bytes; ``lost``: records lost so far; ``ended``:
    the transactions of the file system that ended in them; ``renewed``: earlier ones were of another; ``read``: of its log."""

    records: Records
    position: int
    lost: int
    ended: tuple[EndedTransaction, ...] = ()
    renewed: bool = False
    read: ReadTransaction | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """The handshake is done: both ends mean the same volume. The fields are what the secondary reports.

    ``of_this_volume``: it has belonged to this volume before; it may hold a content of it also where that has free space now.
    ``progress``: bytes that ever became durable there, which only grows; None: not told. ``compares``: it told a key for digests,
    without which nothing can be compared. ``keeps_history``: it takes times and transactions; ``recalls``: it answers RECALL."""

    replica: str
    state: str
    epoch: int
    sequence: int
    staged: bool
    fresh: bool
    of_this_volume: bool = False
    progress: int | None = None
    compares: bool = True
    keeps_history: bool = False
    marks: tuple[int, ...] | None = None
    recalls: bool = False


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone, or could not be made. ``unusable``: the secondary says that its image cannot be used now."""

    reason: str
    unusable: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A frame from the secondary."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class PayloadArmed:
    """Every record behind ``position`` carries its payload; everything before it has been delivered."""

    position: int


@dataclass(frozen=True, slots=True)
class QuietTaken:
    """The quiet bitmap after a flip at ``position``; ``words`` is 1 bit per block, little-endian u64, borrowed.
    ``asked``: this brain had asked for it, and not another secondary's."""

    words: npt.NDArray[np.uint64]
    position: int
    flipped: bool
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Persisted:
    """The maps are on disk (and the quiet bitmap zeroed or given up, if asked), or ``error`` says why not.
    ``cover`` and ``number``: as in the ``Persist`` that this answers."""

    zeroed: bool
    error: str = ""
    cover: bool = False
    number: int = 0


@dataclass(frozen=True, slots=True)
class BlocksRead:
    """The blocks of a ``ReadBlocks`` are in memory; every write submitted by then lies before ``position`` in the ring.

    ``error``: why some of them are not. Those are ``unreadable``; when none is named, the whole read failed."""

    reading: int
    position: int
    length_bytes: int
    error: str = ""
    unreadable: Runs = field(default_factory=Runs.none)


@dataclass(frozen=True, slots=True)
class UsedBlocks:
    """The blocks in use on the source; ``explanation`` tells how that is known. ``whole``: they are all that there are.
    ``likely``: where differences are likely, in this order, by the log of the file system."""

    runs: Runs
    explanation: str
    whole: bool = False
    likely: Runs = field(default_factory=Runs.none)


@dataclass(frozen=True, slots=True)
class DiskQuiet:
    """The kernel, which counts the device's writes, reported none in flight just now, at ring ``position``."""

    position: int


@dataclass(frozen=True, slots=True)
class Outbound:
    """Bytes handed to the sender that the socket has not taken yet, and bytes on the wire so far."""

    queued_bytes: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class WaitAsked:
    """Somebody waits until every write completed by now is durable on the secondary.

    For several: on those in ``peers`` (None: on all of them), or with ``first`` on any one. ``patient``: it goes on waiting
    for blocks that the secondary's target does not take now. ``transaction``: and until they hold it."""

    token: int
    position: int
    peers: tuple[int, ...] | None = None
    first: bool = False
    patient: bool = True
    transaction: AskedTransaction | None = None


@dataclass(frozen=True, slots=True)
class WaitGone:
    """Whoever waited under this token gave up."""

    token: int


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Replication halts, until it is resumed (tracking goes on). ``mode``: one of RESTING_MODES; it names who asked."""

    reason: str = "paused by the operator"
    mode: Mode = Mode.PAUSED


@dataclass(frozen=True, slots=True)
class RemoveAsked:
    """The operator gives this secondary up: say goodbye, and name what is written from here on anew."""


@dataclass(frozen=True, slots=True)
class RoomShort:
    """Room for captured data is short, and it is this secondary alone that holds it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """The volume's content has a new name, because another secondary cannot have what is written from here on."""

    name: int


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """The operator lets replication go on."""


@dataclass(frozen=True, slots=True)
class Tainted:
    """Something was written that capture cannot vouch for."""

    reason: str


@dataclass(frozen=True, slots=True)
class VerifyAsked:
    """Compare these runs of blocks in normal mode, and copy what differs. ``repair``: for the report alone.

    ``free``: free space that the secondary was not given, where that was not written down. ``in_use``: a difference in these
    is one, also in what it was not given. ``answers``: numbers of the taints for which ``runs`` has every block that counts."""

    runs: Runs
    repair: bool
    rate_limit_bytes: int | None = None
    free: Runs = field(default_factory=Runs.none)
    in_use: Runs = field(default_factory=Runs.none)
    answers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyCancelled:
    """Forget the verification under way."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """``Flush`` is done: what file systems had in memory was written. ``kind`` as of ``Held``, or ``error``: none can be had."""

    kind: str
    apart: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """``Hold`` number ``hold`` stands, or ``error`` says why not.

    ``kind`` is ``freeze``, ``quiescent`` (nothing is held: the brain finds a moment without writes), ``snapshot`` or
    ``thin``. The last two are ``apart``: reads of them do not see what is written later. Everything that was written
    before the hold lies before ``position`` in the ring.
    """

    hold: int
    kind: str
    position: int
    apart: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Released:
    """The hold is over; it stopped writers for ``held_ms``. ``error``: what was read from it is not to be trusted."""

    hold: int
    held_ms: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class EveryBitAsked:
    """The controller goes down: have the bitmaps flipped soon, also when only completions have set bits since the last flip."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Captured | Connected | Disconnected | Received | PayloadArmed | QuietTaken | Persisted | LeftOutKept | BlocksRead |
    UsedBlocks | DiskQuiet | Outbound | LinkSeen | WaitAsked | WaitGone | PauseAsked | ResumeAsked | Tainted | VerifyAsked |
    VerifyCancelled | Flushed | Held | Released | RemoveAsked | RoomShort | Renamed | EveryBitAsked | Tick | WrittenDown |
    m.MarkComing | m.PlaceMark
)  # fmt: skip
VolumeEvent = Event | m.MarkAsked | m.MarkWaitAsked  # the last ones are the fan-out's alone


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect and shake hands; answers ``Connected`` or ``Disconnected`` some time later."""


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Drop the connection now; what is queued for it is discarded. No answer."""

    reason: str
    farewell: bool = False


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Queue one frame behind everything queued before."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class SendStream:
    """Queue these submissions with their payload as STREAM frames, then give the payload's room back.

    ``last_sequences[i]`` is the last sequence number of ``records[i]``; a large write has several, one for
    each ``MAX_UPDATE_SECTORS`` of it.
    """

    records: Records
    last_sequences: Integers
    first_sequence: int


@dataclass(frozen=True, slots=True)
class ReleasePayload:
    """Give the payload's room of these submissions back to the kernel, unsent."""

    records: Records


@dataclass(frozen=True, slots=True)
class SetPayload:
    """Switch payload capture. Switched on, answers ``PayloadArmed`` after the grace period."""

    on: bool


@dataclass(frozen=True, slots=True)
class TakeQuiet:
    """Flip if asked, and answer ``QuietTaken`` once every record before the flip has been delivered."""

    flip: bool


@dataclass(frozen=True, slots=True)
class Persist:
    """Write the maps (``Primary.unsynchronized_map``) as they are now to disk; then zero the quiet bitmap if asked. Answers
    ``Persisted``, some time later. Several of one secondary are written and answered in their order.

    Of several secondaries' brains each only gives it up: it is zeroed by ``ZeroQuiet`` once all have. ``cover``: written
    because another one could not wait. ``number`` tells one write from another: a flip may come between a write and its answer.
    """

    zero_quiet: bool
    cover: bool = False
    number: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ZeroQuiet:
    """Zero the quiet bitmap: everything in it is on the secondary or in a persisted map."""


@dataclass(frozen=True, slots=True)
class ScanUsed:
    """Find the blocks in use (¶95), or take the ``whole`` volume; tracking is armed. Answers ``UsedBlocks``, perhaps later."""

    whole: bool = False


@dataclass(frozen=True, slots=True)
class Flush:
    """Have file systems on the source write what they hold in memory, and look how it can be held; answers ``Flushed``."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep an image of the source still: freeze it, or take a snapshot. Answers ``Held`` some time later.

    A freeze ends by itself after ``limit_s``. ``gently``: what would hold writers up is not worth it yet.
    """

    hold: int
    limit_s: float
    gently: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """End a hold, also one that does not stand yet; answers ``Released``."""

    hold: int


@dataclass(frozen=True, slots=True)
class ReadBlocks:
    """Read runs of blocks past every cache and keep them as ``reading``; answers ``BlocksRead``. ``from_snapshot``: not from the
    source."""

    reading: int
    runs: Runs
    from_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class SendDigests:
    """Queue a DIGESTS frame with the number ``batch`` for ``units`` of a reading, and keep the reading's data."""

    reading: int
    batch: int
    units: Runs
    unit_bytes: int


@dataclass(frozen=True, slots=True)
class SendBlocks:
    """Queue a reading's data as a BLOCKS frame with the number ``batch``, and drop the reading.

    ``wanted`` (small blocks, as in ``compared``) limits it to what the secondary asked for; None sends all of it.
    """

    reading: int
    batch: int
    wanted: Runs | None


@dataclass(frozen=True, slots=True)
class SendSettled:
    """Queue these runs of a reading as a STREAM frame of one sequence number, and drop the reading."""

    reading: int
    sequence: int
    runs: Runs


@dataclass(frozen=True, slots=True)
class DropReading:
    """Forget a reading's data."""

    reading: int


@dataclass(frozen=True, slots=True)
class RememberReplica:
    """Have written down which replica this volume has, and how far it is known to be. Maps that count on it are written later."""

    replica: str
    epoch: int
    sequence: int
    progress: int
    in_sync: bool


@dataclass(frozen=True, slots=True)
class KeepGenerations:
    """Have written down what the primary's content has been through. No secondary is told anything more before it is."""

    generations: Generations


@dataclass(frozen=True, slots=True)
class KeepAllGenerations:
    """The same, by secondary: the fan-out makes it of that."""

    generations: dict[int, Generations]


@dataclass(frozen=True, slots=True)
class AnswerWait:
    """A wait's condition holds; or with ``lacks`` it cannot come to hold without help, with ``lost`` never, for that."""

    token: int
    lacks: bool = False
    lost: str = ""


@dataclass(frozen=True, slots=True)
class VerifyEnded:
    """A verification looked at everything it was asked for. ``places`` are the first (first block, blocks) that differed.

    ``filled_blocks``: free space that was never on the secondary, and is now; ``unreadable_blocks`` could not be compared.
    """

    compared_blocks: int
    differing_blocks: int
    places: tuple[tuple[int, int], ...]
    filled_blocks: int = 0
    unreadable_blocks: int = 0


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the operator. ``level`` is a name of the logging module in lower case."""

    level: str
    message: str


Effect = (
    Connect | CloseConnection | SendFrame | SendStream | ReleasePayload | SetPayload | TakeQuiet | Persist | KeepLeftOut
    | ZeroQuiet | ScanUsed | ReadBlocks | SendDigests | SendBlocks | SendSettled | DropReading | RememberReplica
    | WriteDown | KeepAllGenerations | Flush | Hold | Release | AnswerWait | m.AnswerMark | SendCompleted | VerifyEnded | Log
)  # fmt: skip
BrainEffect = Effect | KeepGenerations | m.MarksTold | m.MarksLeft

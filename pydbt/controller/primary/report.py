"""The report of a running primary, as frozen data: ``controller status --json`` prints it.

Every secondary has its own report, and the volume has the same fields for all of them together. Sizes are in bytes,
times in seconds or in RFC 3339. The names of the fields are the keys of the JSON, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydbt.controller.expiry import IdentityReport
from pydbt.core.primary.statistics import Figures
from pydbt.core.primary.verifier import VerifyProgress
from pydbt.core.protocol.generations import Generations
from pydbt.core.tracking.audit import AuditReport
from pydbt.core.units import format_bytes
from pydbt.core.values import field_names


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """Some bytes of the volume."""

    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class LastVerification:
    """A verification that has ended, as it was written down; None where the version that wrote it did not count that."""

    ended: str
    repaired: bool
    compared_bytes: int
    differing_bytes: int
    filled_bytes: int | None
    unreadable_bytes: int | None
    places: tuple[PlaceReport, ...]

    @classmethod
    def of(cls, kept: dict[str, Any]) -> LastVerification:
        """Of the entry ``verify`` of a state file."""
        return cls(
            kept["ended"],
            kept["repaired"],
            kept["compared_bytes"],
            kept["differing_bytes"],
            kept.get("filled_bytes"),
            kept.get("unreadable_bytes"),
            tuple(PlaceReport(**place) for place in kept["places"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Without what was not counted."""
        return {key: value for key, value in _object_of(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class RestReport:
    """Why taints are not answered yet, and the moment at which the comparison that answers them begins."""

    until: str
    reason: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The verification under way, and the last one that ended. ``rest``: None where no taint waits for one to begin."""

    running: VerifyProgress | None
    last: LastVerification | None
    rest: RestReport | None = None


@dataclass(frozen=True, slots=True)
class ComparedSince:
    """The bound of the comparison with which this run began."""

    era: int
    bytes: int


@dataclass(frozen=True, slots=True)
class WriteIntentReport:
    """The era that is remembered, and the time since which it is; ``problem``: why no newer one can be."""

    era: int | None
    since: str | None
    compared: ComparedSince | None
    problem: str


@dataclass(frozen=True, slots=True)
class SequenceReport:
    """Sequence numbers of this run."""

    submitted: int
    acknowledged: int


@dataclass(frozen=True, slots=True)
class LogReport:
    """The transaction log. ``size`` and ``used`` in bytes."""

    size: int
    used: int
    start: int
    end: int
    active_transactions: int


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """How far a resynchronization is, its rate per second, and its end; ``still_seconds``: nothing has moved for this time."""

    done_bytes: int
    total_bytes: int
    rate_bytes: int
    eta_seconds: float | None
    still_seconds: float | None


@dataclass(frozen=True, slots=True)
class TransactionReport:
    """A transaction of the file system. ``committed``: by the file system's clock, or where it has none, when its commit was
    submitted; that was ``age_seconds`` ago. Both None where nobody knows. ``sequence``: of the write that ended it, or later."""

    name: str
    committed: str | None
    age_seconds: float | None
    sequence: int


@dataclass(frozen=True, slots=True)
class TransactionsReport:
    """What a transaction is on this volume, and the newest. ``unit``: ``file-system``, or ``write-request`` for a ``reason``."""

    unit: str
    reason: str
    file_system: str | None
    newest: TransactionReport | None
    per_second: float | None


@dataclass(frozen=True, slots=True)
class SetMarkReport:
    """A mark that was set. ``number``: 16 hexadecimal digits. ``synced``: file systems were written out first; ``partly``: but
    not all. ``uncertain_bytes``: blocks that were uncertain there. ``held_by``, ``not_held_by``: addresses of secondaries;
    ``perhaps_held_by``: those of which it is not known. To others it is on its way. ``before_boot``: set before the machine was
    started, whose end was not clean."""

    name: str
    number: str
    moment: str | None
    synced: bool
    partly: bool
    uncertain_bytes: int
    held_by: tuple[str, ...]
    not_held_by: tuple[str, ...]
    perhaps_held_by: tuple[str, ...]
    before_boot: bool


@dataclass(frozen=True, slots=True)
class SnapshotsReport:
    """Where only addresses are captured: the images that were taken."""

    interval_s: float
    kind: str
    number: int
    last: str | None
    frozen_ms_last: float
    frozen_ms_max: float
    problem: str


@dataclass(frozen=True, slots=True)
class PlacesReport:
    """Blocks that cannot be read, or written, and the first places of them."""

    bytes: int
    places: tuple[PlaceReport, ...]


@dataclass(frozen=True, slots=True)
class SecondaryReport:
    """One secondary, never better than the truth. ``epochs`` None: writes are followed, and the JSON has no such key.

    ``unacknowledged_bytes``: of ``out_of_sync_bytes`` the blocks that are merely on their way. These two, ``lag_bytes``,
    ``lag_seconds`` and ``last_in_sync`` are None where nobody knows; so is ``transaction``: the secondary is complete to it.
    """

    secondary: str
    connected: bool
    connection_problem: str
    refused: str
    mode: str
    mode_since: str
    phase: str
    waiting_for: str
    replica_state: str
    tainted: bool
    taints: tuple[str, ...]
    verify: VerifyReport
    write_intent: WriteIntentReport | None
    assumed_in_sync: bool
    sequence: SequenceReport
    transaction: TransactionReport | None
    out_of_sync_bytes: int | None
    unacknowledged_bytes: int | None
    unsettled_bytes: int
    unreadable: PlacesReport
    unwritable: PlacesReport
    lag_bytes: int | None
    lag_seconds: float | None
    last_in_sync: str | None
    sent_bytes: int
    log: LogReport
    progress: ProgressReport
    epochs: SnapshotsReport | None
    persist_problem: str
    generations: Generations
    statistics: Figures

    def to_json(self) -> dict[str, Any]:
        """The object for people's programs."""
        made = _object_of(self)
        if self.epochs is None:
            del made["epochs"]
        return made


@dataclass(frozen=True, slots=True)
class FlightReport:
    """Writes in flight; ``known``: for certain."""

    known: bool
    bytes: int


@dataclass(frozen=True, slots=True)
class QueueReport:
    """The kernel's room for captured data, in bytes."""

    size: int
    used: int


@dataclass(frozen=True, slots=True)
class LossesReport:
    """What the programs could not take or did not see, by reason, since they were attached. Each is a number of events.

    ``submissions`` and ``completions`` found no room in the ring, and ``data`` of a write none in the ring of data. Writes of
    ``unknown_kinds``, ``passthrough`` commands and ``missed`` events, which the kernel did not deliver, taint the volume.
    """

    submissions: int
    completions: int
    data: int
    unknown_kinds: int
    passthrough: int
    missed: int


@dataclass(frozen=True, slots=True)
class CaptureReport:
    """What is captured of a write: ``payload`` or ``addresses``; ``reason``: why not its data, when that was asked for."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate found last, in this boot: ``outcome``, the moment ``asked``, and the reason in ``words``."""

    outcome: str
    asked: str
    words: str


@dataclass(frozen=True, slots=True)
class OutrunReport:
    """A process that writes more than the link carries, per second and in bytes, and since when."""

    name: str
    process: int
    group: str
    rate_bytes: int
    link_rate_bytes: int
    since: str

    @property
    def words(self) -> str:
        """One sentence."""
        return (
            f"{self.name} (process {self.process}, {self.group}) outruns the link since {self.since}: it writes "
            f"{format_bytes(self.rate_bytes)} per second, and the link carries {format_bytes(self.link_rate_bytes)}; "
            "the replica does not catch up before it writes less"
        )


@dataclass(frozen=True, slots=True)
class WriterReport:
    """Who writes: a process, or ``journal``, ``metadata``, ``before``, ``unknown``, ``others``; bytes, and per second."""

    kind: str
    name: str
    process: int | None
    group: str
    written_bytes: int
    written_rate_bytes: int


@dataclass(frozen=True, slots=True)
class AttributionReport:
    """``state``: ``off``; ``idle``: nothing is attached; ``starting``; ``attached``, ``since`` that moment. ``problem``: what it
    cannot tell, and why, else empty. ``top``: those that write most. ``outrun``: None where nobody outruns the link."""

    state: str
    since: str | None = None
    problem: str = ""
    outrun: OutrunReport | None = None
    top: tuple[WriterReport, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockIoReport:
    """Block I/O of the device. ``state`` and ``problem`` as of ``AttributionReport``. ``since`` that moment: ``operations``, and
    ``timed_every``: of one I/O in this many the time is taken."""

    state: str
    since: str | None = None
    problem: str = ""
    timed_every: int | None = None
    operations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VolumeReport:
    """The volume. ``together``: all secondaries in one; its fields are the volume's own in the JSON.

    ``notices``: sentences on how the volume is used, by which blocks can differ unnoticed.
    ``writing_out``: the place that is being written out for a wait. ``identity`` is None without TLS, ``gate``
    where it was not asked in this boot, ``attribution`` and ``block_io`` where nobody could ask for them.
    """

    role: str
    source: str
    volume: str
    size_bytes: int
    block_bytes: int
    together: SecondaryReport
    capture: CaptureReport
    audit: AuditReport
    in_flight: FlightReport
    written_bytes: int
    write_rate_bytes: int
    queue: QueueReport
    transactions: TransactionsReport
    marks: tuple[SetMarkReport, ...]
    lost_records: int
    losses: LossesReport
    notices: tuple[str, ...]
    writing_out: str
    secondaries: tuple[SecondaryReport, ...]
    identity: IdentityReport | None = None
    gate: GateReport | None = None
    attribution: AttributionReport | None = None
    block_io: BlockIoReport | None = None

    def to_json(self) -> dict[str, Any]:
        """The object for people's programs."""
        made: dict[str, Any] = {}
        for name in field_names(type(self)):
            if name == "together":
                made |= self.together.to_json()
            else:
                made[name] = _json_of(getattr(self, name))
        return made


def _object_of(report: Any) -> dict[str, Any]:
    return {name: _json_of(getattr(report, name)) for name in field_names(type(report))}


def _json_of(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case SecondaryReport() | LastVerification():
            return value.to_json()
        case Generations():
            return value.to_values()
        case tuple():
            return [_json_of(one) for one in value]
        case _ if field_names(type(value)):
            return _object_of(value)
    return value

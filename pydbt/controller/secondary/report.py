"""The report of a running secondary, as frozen data: ``controller status --json`` prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydbt.controller.expiry import IdentityReport
from pydbt.core.protocol.divergence import Divergence
from pydbt.core.secondary.held_marks import MarkReport
from pydbt.core.secondary.open_handover import OpenHandover
from pydbt.core.secondary.primary_watch import PrimaryReport
from pydbt.core.secondary.status import ReplicaStatus
from pydbt.core.secondary.told_transactions import ReplicaTransactions
from pydbt.core.units import format_bytes
from pydbt.core.values import field_names, values_of


@dataclass(frozen=True, slots=True)
class JournalReport:
    """Room of the journal in bytes. ``size``: the operator's limit."""

    used: int
    size: int


@dataclass(frozen=True, slots=True)
class SecondaryServiceReport:
    """The secondary. ``replica``: where its image stands; the fields of that are the secondary's own in the JSON.

    ``problem``: why it cannot go on and starts again, else empty. ``received_bytes`` in this run. ``identity`` is None without
    TLS. ``primary``: what is known of it. The fields of ``transactions`` are the secondary's own in the JSON. ``handover``: a
    change of places that may have left no primary; ``divergence``: what this side alone has. None while a primary is heard.
    """

    role: str
    target: str
    target_bytes: int
    listen: str
    problem: str
    journal: JournalReport
    received_bytes: int
    identity: IdentityReport | None
    replica: ReplicaStatus
    primary: PrimaryReport
    transactions: ReplicaTransactions
    marks: tuple[MarkReport, ...]
    handover: OpenHandover | None
    divergence: Divergence | None

    def to_json(self) -> dict[str, Any]:
        """The object for people's programs."""
        made: dict[str, Any] = {}
        for name in field_names(type(self)):
            match getattr(self, name):
                case ReplicaStatus() as replica:
                    made |= replica.to_values()
                case ReplicaTransactions() as told:
                    made |= values_of(told)
                case OpenHandover() | Divergence() as undecided:
                    made[name] = undecided.to_report()
                case tuple() as marks:
                    made[name] = [values_of(mark) for mark in marks]
                case JournalReport() | IdentityReport() | PrimaryReport() as part:
                    made[name] = values_of(part)
                case value:
                    made[name] = value
        return made


def replay_words(report: SecondaryServiceReport) -> str:
    """What a replay of the journal is at."""
    return f"writing the journal to {report.target}: {format_bytes(report.replica.unapplied_bytes)} left"

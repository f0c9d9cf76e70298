"""What the secondary knows of its primary: whether it lives, and what is lost when the replica is promoted now.

The primary tells once per second how far the volume is (STANDING). A replica that has all updates up to the sequence number of
such a frame is the volume as of its moment, at least.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydbt.core.protocol.standing import Standing
from pydbt.core.protocol.transaction import Transaction
from pydbt.core.secondary.handover_watch import HandoverWatch
from pydbt.core.secondary.open_handover import OpenHandover
from pydbt.core.secondary.recent_writes import RecentWrites
from pydbt.core.secondary.told_transactions import ToldTransactions

SIGN_OF_LIFE_S = 5.0
"""A living primary says something more often than this, in every version: a PING at least every 3 seconds."""
_STANDINGS = 1024
"""Those that are not reached yet: a quarter of an hour of a secondary that is behind. Older ones are forgotten first."""


@dataclass(frozen=True, slots=True)
class AsOf:
    """The image at this position, and any later one of the same epoch, has every write before ``moment``."""

    moment: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class PrimaryReport:
    """What is known of the primary. The fields are keys of the report.

    ``heard_seconds`` ago it said something, None if it never did. ``ended``: it said goodbye. ``told``, ``behind_bytes``: at
    that moment of its clock the secondary lacked at most this. ``as_of``, with ``as_of_epoch`` and ``as_of_sequence``: the
    image has every write before this moment. Empty, or None, where nobody told.
    """

    host: str
    source: str
    heard_seconds: float | None
    ended: bool
    told: str
    behind_bytes: int | None
    as_of: str
    as_of_epoch: str
    as_of_sequence: int

    def to_values(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lives(self, age_s: float) -> bool:
        """As ``PrimaryWatch.lives``, of a report that was made ``age_s`` ago by a clock that may have been set back since."""
        return self.heard_seconds is not None and not self.ended and 0 <= age_s + self.heard_seconds <= SIGN_OF_LIFE_S

    @classmethod
    def from_values(cls, values: object) -> PrimaryReport:
        """What ``to_values`` made; a report that tells nothing when these are other values, as of another version."""
        nothing = cls("", "", None, False, "", None, "", "", 0)
        if not isinstance(values, dict) or values.keys() != asdict(nothing).keys():
            return nothing
        kinds = {
            "host": str,
            "source": str,
            "told": str,
            "as_of": str,
            "as_of_epoch": str,
            "as_of_sequence": int,
            "ended": bool,
        }
        return cls(**values) if all(isinstance(values[key], kind) for key, kind in kinds.items()) else nothing


class PrimaryWatch:
    """Lives longer than a brain: what was heard of the primary is true of the next brain as well. Times are monotonic.

    So it is the shell's as well, which notes here what only the shell knows: the moments at which it writes something down.
    """

    def __init__(
        self, known: PrimaryReport | None = None, handover: OpenHandover | None = None, gate_asked: str = ""
    ) -> None:
        """``known``: the last report of an earlier process. ``handover`` and ``gate_asked``: what that has left open."""
        self.handover = HandoverWatch(handover)
        self._heard_at: float | None = None
        self._known = known or PrimaryReport.from_values(None)
        self._ended = self._known.ended
        self._last: Standing | None = None
        self._has_told = False  # since it was let in last
        self._unreached: deque[tuple[int, Standing]] = deque(maxlen=_STANDINGS)
        self._as_of: AsOf | None = None
        self.transactions = ToldTransactions()
        self.recent = RecentWrites()
        self.boot = ""
        self.rivals: set[str] = set()
        """The boots of other primaries that were refused for its sake; each is told once in the log."""
        self.gate_asked = gate_asked
        """When a primary asked whether it may mount the volume, and was not heard since; empty: nobody has."""
        self.woke_at: float | None = None
        """When this machine's last suspension was found to be over; None: there was none."""

    def note_handover(self, found: OpenHandover | None) -> None:
        """This change of places is written down as open; None: none is."""
        self.handover.kept = found

    def note_gate_question(self, moment: str) -> None:
        """A primary asked at this moment whether it may mount the volume, and will be answered; empty: one was heard since."""
        self.gate_asked = moment

    def note_wake(self, woke_at: float | None) -> None:
        """This machine's last suspension was over then; None: there was none."""
        self.woke_at = woke_at

    @property
    def heard_at(self) -> float | None:
        """When it said something last; None: never, in this process."""
        return self._heard_at

    def welcomed(self, boot: str, now: float) -> None:
        """A primary was let in. ``boot`` names the boot of its machine; empty when it tells none."""
        if boot != self.boot:
            self.rivals.clear()
        self.boot = boot
        self._has_told = False
        self.heard(now)

    def heard(self, now: float) -> bool:
        """The welcomed primary said something. Whether one had asked for the role before, which counts no more."""
        self._heard_at, self._ended = now, False
        return bool(self.gate_asked)

    def said_goodbye(self, now: float) -> None:
        """It ended on purpose: nobody is there who goes on writing to this replica."""
        self._heard_at, self._ended = now, True

    def told(self, standing: Standing | Transaction, epoch: int, at: float = 0.0) -> None:
        """How far the volume is, or its file system, in the numbers of an epoch."""
        if isinstance(standing, Transaction):
            self.transactions.told(standing, epoch, at)
            return
        self._last, self._has_told = standing, True
        if standing.followed:
            self._unreached.append((epoch, standing))

    def reached(self, epoch: int, sequence: int) -> None:
        """The consistent image is durable at this position."""
        self.transactions.reached(epoch, sequence)
        while self._unreached:
            told_in, standing = self._unreached[0]
            if told_in == epoch and standing.sequence > sequence:
                return
            self._unreached.popleft()
            if told_in == epoch:
                self._as_of = AsOf(standing.moment, epoch, standing.sequence)

    def lives(self, now: float, received_at: float | None = None, within_s: float = SIGN_OF_LIFE_S) -> bool:
        """Whether the primary was heard within a heartbeat, or another time, and did not end on purpose.

        ``received_at``: when the last byte of its connection arrived, perhaps in the middle of a long frame. A machine that is
        suspended hears nothing, which is no silence of the primary: one that lived then is listened for anew.
        """
        heard_at = self._last_heard(received_at)
        if heard_at is None or self._ended:
            return False
        if self.has_slept_since(received_at) and self.woke_at is not None and self.woke_at - heard_at <= within_s:
            heard_at = self.woke_at
        return now - heard_at <= within_s

    def has_slept_since(self, received_at: float | None = None) -> bool:
        """Whether this machine was suspended after the primary was last heard. ``received_at`` as of ``lives``."""
        heard_at = self._last_heard(received_at)
        return heard_at is not None and self.woke_at is not None and heard_at < self.woke_at

    def _last_heard(self, received_at: float | None) -> float | None:
        return max((at for at in (self._heard_at, received_at) if at is not None), default=None)

    def report(self, now: float, *, connected: bool = False) -> PrimaryReport:
        """Everything that is known. Of one that is ``connected`` again, and has not told since, nobody knows what is lacking now:
        what it told before is of a time before it was away."""
        heard_seconds = None if self._heard_at is None else round(now - self._heard_at, 1)
        report = replace(self._known, heard_seconds=heard_seconds, ended=self._ended)
        if (last := self._last) is not None:
            report = replace(
                report, host=last.host, source=last.source, told=last.moment, behind_bytes=last.behind_bytes
            )
        if (as_of := self._as_of) is not None:
            epoch = f"{as_of.epoch:016x}"
            report = replace(report, as_of=as_of.moment, as_of_epoch=epoch, as_of_sequence=as_of.sequence)
        return replace(report, behind_bytes=None) if connected and not self._has_told else report

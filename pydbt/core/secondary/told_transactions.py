"""The file system's transactions as the primary tells them: which the replica holds, and which is the primary's newest."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pydbt.core.protocol.transaction import Transaction

_MAX_UNREACHED = 1024
"""Those that are not durable yet. Of more the oldest is forgotten: the next one stands for it."""


@dataclass(frozen=True, slots=True)
class ToldTransaction:
    """A transaction as the report has it. ``epoch`` and ``sequence``: an image there, or later in that epoch, holds it."""

    file_system: str
    name: str
    committed: str
    age_seconds: float
    epoch: str
    sequence: int


@dataclass(frozen=True, slots=True)
class ReplicaTransactions:
    """``transaction``: the newest that the replica is complete to; ``newest_transaction``: the newest that the primary told,
    whether it is here or not. None: unknown. The fields are keys of the report."""

    transaction: ToldTransaction | None
    newest_transaction: ToldTransaction | None


@dataclass(frozen=True, slots=True)
class _Told:
    frame: Transaction
    epoch: int
    submitted_at: float


class ToldTransactions:
    """Lives longer than a brain, as ``PrimaryWatch`` does. Times are of the monotonic clock of this machine."""

    def __init__(self) -> None:
        self._unreached: deque[_Told] = deque(maxlen=_MAX_UNREACHED)
        self._newest: _Told | None = None
        self._held: _Told | None = None

    def told(self, frame: Transaction, epoch: int, at: float) -> None:
        """The primary's newest, in the numbers of an epoch. Without a name: its file system is another one, and has none yet."""
        newest = self._newest
        if newest is not None and (newest.epoch, newest.frame.sequence, newest.frame.name) == (
            epoch,
            frame.sequence,
            frame.name,
        ):
            return
        self._newest = _Told(frame, epoch, at - frame.age_ms / 1000)
        self._unreached.append(self._newest)

    def reached(self, epoch: int, sequence: int) -> None:
        """The consistent image is durable at this position."""
        while self._unreached and (self._unreached[0].epoch != epoch or self._unreached[0].frame.sequence <= sequence):
            told = self._unreached.popleft()
            if told.epoch == epoch:
                self._held = told
        held = self._held
        if held is not None and (held.epoch != epoch or held.frame.sequence > sequence):
            self._held = None  # it is another image: of another run of the primary, or an earlier one

    def report(self, now: float, *, consistent: bool) -> ReplicaTransactions:
        """Both, at this moment. ``consistent``: the replica is an image of some moment."""
        held, newest = self._held if consistent else None, self._newest
        return ReplicaTransactions(_report(held, now), _report(newest, now))


def _report(told: _Told | None, now: float) -> ToldTransaction | None:
    if told is None or not told.frame.name:
        return None
    frame = told.frame
    age_s = round(max(0.0, now - told.submitted_at), 3)
    return ToldTransaction(frame.file_system, frame.name, frame.committed, age_s, f"{told.epoch:016x}", frame.sequence)

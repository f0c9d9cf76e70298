"""When a wait is over, well or not: everything is on the secondary, or all but blocks that it cannot get by itself."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from pydbt.core.primary.events import AnswerWait, WaitAsked, WaitGone
from pydbt.core.primary.file_system_transactions import FileSystemTransactions
from pydbt.core.primary.landing import Landing
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode
from pydbt.core.primary.state import State
from pydbt.core.transactions.asked_transaction import AskedTransaction


class Lack(Enum):
    """What keeps a wait, for which everything else is done, from being over."""

    NOTHING = "everything is on the secondary"
    TARGET = "its target does not take some blocks; they are tried again, and a patient wait goes on"
    SOURCE = "the source cannot give some blocks, or the secondary refuses the volume: waiting does not help"


class WaitAnswers:
    """Each wait is told once that it lacks something. It stays, because somebody may wait for the first of several
    secondaries, until it is answered well or gone."""

    def __init__(self, state: State, landing: Landing, transactions: FileSystemTransactions) -> None:
        self._state, self._landing, self._transactions = state, landing, transactions
        self._patient: dict[int, bool] = {}
        self._asked: dict[int, AskedTransaction] = {}
        self._told: set[int] = set()

    def told(self, event: WaitAsked | WaitGone) -> None:
        """Somebody waits, or does not any more."""
        if isinstance(event, WaitGone):
            self.gone(event.token)
        else:
            self.asked(event)

    def asked(self, event: WaitAsked) -> None:
        """Somebody waits."""
        self._patient[event.token] = event.patient
        self._told.discard(event.token)
        if event.transaction is not None:
            self._asked[event.token] = event.transaction
        self._landing.add_wait(event.token, event.position)

    def gone(self, token: int) -> None:
        """Nobody waits under this token any more."""
        self._patient.pop(token, None)
        self._asked.pop(token, None)
        self._told.discard(token)
        self._landing.drop_wait(token)

    def answer(self) -> None:
        """Answer the waits that are over; called after every event."""
        self._landing.note_sequence()
        for token, asked in list(self._asked.items()):
            if reason := self._transactions.lost.reason(asked):
                self.gone(token)
                self._state.effects.add(AnswerWait(token, lost=reason))
        for token in self._over():
            match self._lack():
                case Lack.NOTHING:
                    self.gone(token)
                    self._state.effects.add(AnswerWait(token))
                case Lack.TARGET if self._patient[token]:
                    pass
                case _ if token not in self._told:
                    self._told.add(token)
                    self._state.effects.add(AnswerWait(token, lacks=True))

    def _over(self) -> Collection[int]:
        if not self._patient:
            return ()
        if self._state.mode is Mode.REFUSED:
            return list(self._patient)
        if self._state.mode in FOLLOWING_MODES and not self._state.taints and not self._state.unwritten.waits:
            over = self._landing.waits_over()
            return [token for token in over if self._holds(self._asked.get(token))] if self._asked else over
        return ()

    def _holds(self, asked: AskedTransaction | None) -> bool:
        held = self._transactions.held
        return asked is None or (held is not None and asked.reached_by(held.name))

    def _lack(self) -> Lack:
        if self._state.mode is Mode.REFUSED or len(self._state.unreadable):
            return Lack.SOURCE
        return Lack.TARGET if self._state.replica.unwritable.total() else Lack.NOTHING

"""The connection as the primary's brain sees it: alive, owed an answer, dead, or due for another attempt."""

from __future__ import annotations

from math import inf

from pydbt.core.primary.interruption import Interruption, TcpView, Way, way_problem
from pydbt.core.protocol.heartbeat import HEARTBEAT_S, SILENT_S

FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 5.0
# A secondary that answers may take this many timeouts over its disk: a sync of a slow one lasts.
PROGRESS_PATIENCE = 4
# A connection that lived this long counts as good: the next loss starts with the shortest backoff again.
GOOD_AFTER_S = 10.0


class Link:
    """Deadlines of one connection. Times are seconds of a monotonic clock."""

    def __init__(self, acknowledge_timeout_s: float, now: float) -> None:
        self.acknowledge_timeout_s = acknowledge_timeout_s
        # Several questions fit into the shortest timeout, or an idle connection would be taken for dead.
        self.ping_interval_s = min(HEARTBEAT_S, acknowledge_timeout_s / 4)
        self.up = False
        self.connecting = False
        self.queued_bytes = 0
        self.reason = "not connected yet"
        self.interruption = Interruption()
        self._heard_at = self._progress_at = self._asked_at = self._up_at = now
        self._answered_at = now
        self._answered_token = self._needed_token = 0
        self._unanswered: dict[int, float] = {}
        self._backoff_s = FIRST_BACKOFF_S
        self._retry_at = now
        self._token = 0
        self._was_waiting = False

    def connected(self, now: float) -> None:
        self.up, self.connecting, self.queued_bytes, self.reason = True, False, 0, ""
        self._heard_at = self._progress_at = self._asked_at = self._up_at = now
        self._answered_at, self._needed_token = now, 0
        self._unanswered.clear()
        self._was_waiting = False
        self.interruption.begin_anew()
        self.interruption.heard(now)

    def lost(self, reason: str, now: float) -> None:
        if self.up and now - self._up_at > GOOD_AFTER_S:
            self._backoff_s = FIRST_BACKOFF_S
        if self.up or self.connecting:
            self._retry_at = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, LONGEST_BACKOFF_S)
        self.up, self.connecting, self.queued_bytes, self.reason = False, False, 0, reason
        self.interruption.begin_anew()

    def heard(self, now: float) -> None:
        self._heard_at = now
        self.interruption.heard(now)

    def seen(self, seen: Way | TcpView, now: float) -> None:
        """What the kernel knows of the connection. When the way is there again, the next attempt begins at once."""
        if isinstance(seen, TcpView):
            if self.up:
                self.interruption.tcp_seen(seen, now)
        elif self.interruption.way_seen(way_problem(seen), now) and not self.up:
            self.connecting = False  # an attempt without a way would only end when its own time is up
            self.retry_now(now)

    def answered(self, token: int) -> None:
        """The secondary answered this question: when it was asked, both directions worked."""
        asked_at = self._unanswered.get(token)
        if asked_at is not None:
            self._answered_at, self._answered_token = asked_at, token
            self._unanswered = {later: at for later, at in self._unanswered.items() if later > token}

    def ask_anew(self) -> float:
        """Answers to earlier questions tell nothing any more: ask at once. How long it is worth waiting for the answer."""
        self._needed_token, self._asked_at = self._token + 1, -inf
        return HEARTBEAT_S if self.up else 0.0

    @property
    def awaits_answer(self) -> bool:
        """Whether a question of this connection is not answered yet."""
        return self.up and bool(self._unanswered)

    @property
    def answered_at(self) -> float | None:
        """When the latest question was asked that is answered; None without a connection."""
        return self._answered_at if self.up else None

    def available(self, now: float) -> bool:
        """Whether the secondary answered, now: a question asked since it mattered, and it was not silent afterwards."""
        return self.up and self._answered_token >= self._needed_token and not self.silence(now)

    def silence(self, now: float) -> str:
        """What shows that a connection that is not given up yet does not work, in words; empty when nothing does."""
        if not self.up or self.interruption.problem:
            return self.interruption.problem if self.up else ""
        silent_s = now - self._heard_at
        return f"nothing was heard from the secondary for {silent_s:.1f} s" if silent_s > SILENT_S else ""

    def problem(self, now: float) -> str:
        """Why the secondary cannot be reached, in words; empty when it can, as far as is known."""
        return self.silence(now) or self.interruption.gone or self.reason

    def forgive(self, now: float) -> None:
        """Begin every deadline anew."""
        self._heard_at = self._progress_at = now
        self.interruption.begin_anew()

    def progress(self, now: float) -> None:
        self._progress_at = now

    def dead(self, now: float, waiting: bool) -> str:
        """Why the connection must be taken for dead; empty while it may live. ``waiting``: an answer is owed."""
        if waiting and not self._was_waiting:
            self._progress_at = now
        self._was_waiting = waiting
        if ended := self.interruption.ended(now):
            return ended
        if now - self._heard_at > self.acknowledge_timeout_s:
            return f"nothing was heard from the secondary for {self.acknowledge_timeout_s:g} s"
        patience_s = PROGRESS_PATIENCE * self.acknowledge_timeout_s
        if waiting and now - self._progress_at > patience_s:
            return f"the secondary is there but acknowledged nothing for {patience_s:g} s"
        return ""

    def ping_due(self, now: float) -> bool:
        return now - self._asked_at >= self.ping_interval_s

    def next_token(self, now: float) -> int:
        self._asked_at = now
        self._token += 1
        self._unanswered[self._token] = now
        return self._token

    def may_connect(self, now: float) -> bool:
        return not self.up and not self.connecting and now >= self._retry_at

    def retry_now(self, now: float) -> None:
        self._retry_at, self._backoff_s = now, FIRST_BACKOFF_S

    def deadline(self) -> float:
        if self.up:
            silent_at = self._heard_at + self.acknowledge_timeout_s
            return min(self._asked_at + self.ping_interval_s, silent_at, self.interruption.deadline())
        return inf if self.connecting else self._retry_at

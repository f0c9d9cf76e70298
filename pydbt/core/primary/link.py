"""The connection as the primary's brain sees it: alive, owed an answer, dead, or due for another attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from pydbt.core.primary.interruption import Interruption, TcpView, Way, way_problem
from pydbt.core.protocol.heartbeat import HEARTBEAT_S, SILENT_S

# The first attempts come quickly, since most interruptions are short; the wait doubles with each that fails. The longest one
# is all that a secondary has to wait when it is back, and makes few attempts at one that is gone for days.
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 5.0
# A secondary that answers may take this many timeouts over its disk: a sync of a slow one lasts.
PROGRESS_PATIENCE = 4
# A connection that lived this long counts as good: the next loss starts with the shortest backoff again.
GOOD_AFTER_S = 10.0
# A gap between two events longer than this is this process's own pause, and no silence of the secondary's.
STALL_S = 2.0


@dataclass(frozen=True, slots=True)
class Away:
    """Not connected, and no attempt under way; ``reason`` in words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Connecting:
    """An attempt is under way; ``reason``: why there was no connection before it, in words."""

    reason: str


@dataclass(slots=True)
class Up:
    """Connected ``since``. Nothing of it outlives the connection.

    ``heard_at``: something arrived; ``progress_at``: something was acknowledged, or began to be owed; ``asked_at``: the
    last question. ``answered_at``: when the latest question was asked that is answered, ``answered_token`` its token, and
    ``answer_at`` when the answer arrived; answers before ``needed_token`` tell nothing. ``unanswered``: token -> when it
    was asked. ``queued_bytes``: handed to the sender and not sent yet. ``waiting``: an answer was owed when that was looked
    at last.
    """

    since: float
    heard_at: float
    progress_at: float
    asked_at: float
    answered_at: float
    answer_at: float
    answered_token: int = 0
    needed_token: int = 0
    unanswered: dict[int, float] = field(default_factory=dict)
    queued_bytes: int = 0
    waiting: bool = False


class Link:
    """Deadlines of one connection. Times are seconds of a monotonic clock."""

    def __init__(self, acknowledge_timeout_s: float, now: float) -> None:
        self.acknowledge_timeout_s = acknowledge_timeout_s
        # Several questions fit into the shortest timeout, or an idle connection would be taken for dead.
        self.ping_interval_s = min(HEARTBEAT_S, acknowledge_timeout_s / 4)
        self.interruption = Interruption()
        self._state: Away | Connecting | Up = Away("not connected yet")
        self._backoff_s = FIRST_BACKOFF_S
        self._retry_at = now
        self._token = 0

    @property
    def up(self) -> bool:
        return isinstance(self._state, Up)

    @property
    def away(self) -> bool:
        """Whether there is neither a connection nor an attempt at one."""
        return isinstance(self._state, Away)

    @property
    def queued_bytes(self) -> int:
        """Handed to the sender and not sent yet; 0 without a connection."""
        return self._state.queued_bytes if isinstance(self._state, Up) else 0

    def attempt(self) -> None:
        """An attempt at a connection begins."""
        self._state = Connecting(self._reason)

    def connected(self, now: float) -> None:
        self._state = Up(now, heard_at=now, progress_at=now, asked_at=now, answered_at=now, answer_at=now)
        self.interruption.begin_anew()
        self.interruption.heard(now)

    def lost(self, reason: str, now: float) -> None:
        if isinstance(self._state, Up) and now - self._state.since > GOOD_AFTER_S:
            self._backoff_s = FIRST_BACKOFF_S
        if not self.away:
            self._retry_at = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, LONGEST_BACKOFF_S)
        self._state = Away(reason)
        self.interruption.begin_anew()

    def heard(self, now: float) -> None:
        if isinstance(self._state, Up):
            self._state.heard_at = now
        self.interruption.heard(now)

    def seen(self, seen: Way | TcpView, now: float) -> None:
        """What the kernel knows of the connection. When the way is there again, the next attempt begins at once."""
        if isinstance(seen, TcpView):
            if self.up:
                self.interruption.tcp_seen(seen, now)
        elif self.interruption.way_seen(way_problem(seen), now) and not self.up:
            self._state = Away(self._reason)  # an attempt without a way would only end when its own time is up
            self.retry_now(now)

    def handed_over(self, length_bytes: int) -> None:
        """The sender got this much more to send."""
        if isinstance(self._state, Up):
            self._state.queued_bytes += length_bytes

    def outbound(self, queued_bytes: int) -> None:
        """The sender told how much it has not sent yet."""
        if isinstance(self._state, Up):
            self._state.queued_bytes = queued_bytes

    def answered(self, token: int) -> None:
        """The secondary answered this question in what was ``heard`` just now: when it was asked, both directions worked."""
        if isinstance(up := self._state, Up) and (asked_at := up.unanswered.get(token)) is not None:
            up.answered_at, up.answered_token, up.answer_at = asked_at, token, up.heard_at
            up.unanswered = {later: at for later, at in up.unanswered.items() if later > token}

    def ask_anew(self) -> float:
        """Answers to earlier questions tell nothing any more: ask at once. How long it is worth waiting for the answer."""
        if not isinstance(self._state, Up):
            return 0.0
        self._state.needed_token, self._state.asked_at = self._token + 1, -inf
        return HEARTBEAT_S

    @property
    def awaits_answer(self) -> bool:
        """Whether a question of this connection is not answered yet."""
        return isinstance(self._state, Up) and bool(self._state.unanswered)

    @property
    def answered_at(self) -> float | None:
        """When the latest question was asked that is answered; None without a connection."""
        return self._state.answered_at if isinstance(self._state, Up) else None

    def since_answer(self, now: float) -> tuple[int, int] | None:
        """The latest question that is answered, and the whole milliseconds since its answer arrived; 0 and those since the
        connection before the first one. None without a connection."""
        up = self._state
        return (up.answered_token, int(max(now - up.answer_at, 0.0) * 1000)) if isinstance(up, Up) else None

    def available(self, now: float) -> bool:
        """Whether the secondary answered, now: a question asked since it mattered, and it was not silent afterwards."""
        up = self._state
        return isinstance(up, Up) and up.answered_token >= up.needed_token and not self.silence(now)

    def silence(self, now: float) -> str:
        """What shows that a connection that is not given up yet does not work, in words; empty when nothing does."""
        if not isinstance(self._state, Up):
            return ""
        if problem := self.interruption.problem(now):
            return problem
        silent_s = now - self._state.heard_at
        return f"nothing was heard from the secondary for {silent_s:.1f} s" if silent_s > SILENT_S else ""

    def problem(self, now: float) -> str:
        """Why the secondary cannot be reached, in words; empty when it can, as far as is known."""
        return self.silence(now) or self.interruption.gone(now) or self._reason

    def looked(self, before: float, now: float) -> None:
        """Its owner had its last event ``before``: it is this process that has not listened, when that is long ago."""
        if now - before > STALL_S:
            self.forgive(now)

    def forgive(self, now: float) -> None:
        """Begin every deadline anew."""
        if isinstance(self._state, Up):
            self._state.heard_at = self._state.progress_at = now
        self.interruption.begin_anew()

    def progress(self, now: float) -> None:
        if isinstance(self._state, Up):
            self._state.progress_at = now

    def dead(self, now: float, waiting: bool) -> str:
        """Why the connection must be taken for dead; empty while it may live. ``waiting``: an answer is owed."""
        if not isinstance(up := self._state, Up):
            return ""
        if waiting and not up.waiting:
            up.progress_at = now
        up.waiting = waiting
        if ended := self.interruption.ended(now):
            return ended
        if now - up.heard_at > self.acknowledge_timeout_s:
            return f"nothing was heard from the secondary for {self.acknowledge_timeout_s:g} s"
        patience_s = PROGRESS_PATIENCE * self.acknowledge_timeout_s
        if waiting and now - up.progress_at > patience_s:
            return f"the secondary is there but acknowledged nothing for {patience_s:g} s"
        return ""

    def ping_due(self, now: float) -> bool:
        return isinstance(self._state, Up) and now - self._state.asked_at >= self.ping_interval_s

    def next_token(self, now: float) -> int:
        """The token of a question that is asked now, each of them once."""
        self._token += 1
        if isinstance(self._state, Up):
            self._state.asked_at = self._state.unanswered[self._token] = now
        return self._token

    def may_connect(self, now: float) -> bool:
        return self.away and now >= self._retry_at

    def retry_now(self, now: float) -> None:
        self._retry_at, self._backoff_s = now, FIRST_BACKOFF_S

    def deadline(self) -> float:
        match self._state:
            case Up(heard_at=heard_at, asked_at=asked_at):
                silent_at = heard_at + self.acknowledge_timeout_s
                return min(asked_at + self.ping_interval_s, silent_at, self.interruption.deadline())
            case Connecting():
                return inf
            case Away():
                return self._retry_at

    @property
    def _reason(self) -> str:
        """Why there is no connection; empty when there is one."""
        return "" if isinstance(self._state, Up) else self._state.reason

"""The kernel's own view of a connection, which tells of an interruption sooner than the heartbeat does.

Two sources: the way to the peer (route, network interface, own address), and TCP's account of data that was sent
(``struct tcp_info`` in include/uapi/linux/tcp.h). Either can be missing; then the heartbeat alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydbt.core.protocol.heartbeat import HEARTBEAT_S, SILENT_S

# A way that is gone for longer than this ends the connection; a flap of the carrier does not.
GONE_PATIENCE_S = SILENT_S
# What still arrives this long after the way was gone shows that it is not: the packets take a way that was not looked at.
# Or they were under way, or waited in a queue of this machine for longer: only what goes on arriving shows it for good.
CONTRADICTED_AFTER_S = 0.5


@dataclass(frozen=True, slots=True)
class Way:
    """The way to ``remote``. ``interface`` empty: there is no route. ``local``: the connection's own address, empty without a
    connection; ``has_local``: this machine still has it."""

    remote: str
    local: str
    interface: str
    is_up: bool
    has_carrier: bool
    has_local: bool


@dataclass(frozen=True, slots=True)
class TcpView:
    """TCP's account at a moment. ``unacknowledged``: segments on their way; ``answer_age_s``: since the last acknowledgement;
    ``retransmissions``: timeouts in a row without an answer; ``delivery_rate_bytes`` per second, None where the rate of
    sending was the limit and not the network."""

    unacknowledged: int
    answer_age_s: float
    retransmissions: int
    delivery_rate_bytes: int | None


@dataclass(frozen=True, slots=True)
class LinkSeen:
    """An event: what the kernel knows of the connection, or of the way to the secondary."""

    seen: Way | TcpView


def way_problem(way: Way) -> str:
    """Why nothing can reach the peer, in words; empty when something may."""
    if not way.interface:
        return f"no route to {way.remote}"
    if not way.is_up:
        return f"the interface {way.interface} is down"
    if not way.has_carrier:
        return f"the interface {way.interface} has no carrier"
    if way.local and not way.has_local:
        return f"this machine does not have the address {way.local} any more"
    return ""


class Interruption:
    """Of one connection. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.delivery_rate_bytes: int | None = None
        self._gone, self._gone_at = "", 0.0
        self._contradicted_at: float | None = None  # the last time that something arrived although the way is gone
        self._unanswered_since: float | None = None
        self._unanswered = ""

    def way_seen(self, problem: str, now: float) -> bool:
        """The way changed, or was looked at for the first time. True when one that was gone is there again."""
        back = bool(self._gone) and not problem
        if problem and (not self._gone or self._contradicted_at is not None):
            self._gone_at, self._contradicted_at = now, None
        self._gone = problem
        return back

    def tcp_seen(self, view: TcpView, now: float) -> None:
        """Take down what TCP knows. The kernel does not tell when data was sent first, so the first look at it counts."""
        if view.delivery_rate_bytes is not None:
            self.delivery_rate_bytes = view.delivery_rate_bytes
        if not view.unacknowledged:
            self._unanswered_since, self._unanswered = None, ""
            return
        since = now if self._unanswered_since is None else self._unanswered_since
        self._unanswered_since = since = max(since, now - view.answer_age_s)
        told = now - since > HEARTBEAT_S and view.retransmissions > 0
        plural = "" if view.retransmissions == 1 else "s"
        words = f"unanswered for {now - since:.1f} s, {view.retransmissions} retransmission{plural}"
        self._unanswered = words if told else ""

    def heard(self, now: float) -> None:
        """Something arrived."""
        if self._gone and now - self._gone_at > CONTRADICTED_AFTER_S:
            self._contradicted_at = now

    def begin_anew(self) -> None:
        """Another connection, or this process did not look for a while: what TCP told is of the past."""
        self._unanswered_since, self._unanswered, self.delivery_rate_bytes = None, "", None

    def problem(self, now: float) -> str:
        """What interrupts the connection, in words; empty when nothing is known to."""
        return self.gone(now) or self._unanswered

    def gone(self, now: float) -> str:
        """Why there is no way to the peer, in words; empty when there is one, or it is not known."""
        at = self._contradicted_at
        return self._gone if at is None or now - at > SILENT_S else ""

    def ended(self, now: float) -> str:
        """Why the connection is not worth keeping, in words; empty while it is."""
        return self._gone if self._gone and now >= self.deadline() else ""

    def deadline(self) -> float:
        """When a way that is gone ends the connection, if nothing arrives until then; infinity when it is there."""
        if not self._gone:
            return float("inf")
        at = self._contradicted_at
        return self._gone_at + GONE_PATIENCE_S if at is None else at + SILENT_S + GONE_PATIENCE_S

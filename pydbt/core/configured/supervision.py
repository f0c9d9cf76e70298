"""Which of the configured volumes run: decisions of the process that has one child for each of them.

A volume that fails is started again after a pause that doubles with each failure; others are not touched by it. What ended in
order (``controller down``) stays ended until it is asked for again. A reload starts what was added, stops what was removed,
starts again what was changed, and touches nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

FIRST_RESTART_S = 1.0
LONGEST_RESTART_S = 300.0
"""A device that comes back is found within five minutes, and a start costs a second of a processor."""
GOOD_RUN_S = 60.0
"""A run of this length was a good one: the next failure has the first pause again, and is told again."""


class Condition(StrEnum):
    """Of one volume. RESTING: it failed, and is started again at a known time."""

    RUNNING = "running"
    STOPPING = "stopping"
    RESTING = "failed"
    ENDED = "ended"
    LEFT_TO_UNIT = "left to its unit"
    BROKEN = "wrongly configured"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One volume as it is configured now. ``settings`` and ``identity`` are compared with those that it was started with.

    ``unit``: the unit of systemd that is to run it, if one is enabled. ``problem``: its file cannot be used.
    """

    settings: str
    identity: str = ""
    unit: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Begin a process for a volume; ``Supervision.started`` is called then."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask the process of a volume to end, without dropping tracking."""

    name: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask the process of a volume to read its identity again."""

    name: str


@dataclass(frozen=True, slots=True)
class Tell:
    """A line of the log."""

    name: str
    words: str
    is_error: bool = False


Order = Start | Stop | Renew | Tell


@dataclass(slots=True)
class Member:
    """One volume. Times are of the monotonic clock. ``wanted`` None: it was removed, and is forgotten when it has ended."""

    wanted: Wanted | None
    condition: Condition
    since: float
    pause_s: float = 0.0
    start_at: float | None = None
    failure: str = ""
    failures: int = 0
    started_with: Wanted | None = None

    @property
    def alive(self) -> bool:
        return self.condition in (Condition.RUNNING, Condition.STOPPING)


@dataclass(slots=True)
class Supervision:
    """Called with what happened; each call returns what is to be done, in order."""

    members: dict[str, Member] = field(default_factory=dict)
    stopping: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing runs, and nothing will without another word."""
        waits = any(member.condition is Condition.RESTING for member in self.members.values()) and not self.stopping
        return not waits and not any(member.alive for member in self.members.values())

    def deadline(self) -> float | None:
        """When ``due`` has something to do; None: never, without an event before."""
        return min((at for member in self.members.values() if (at := _deadline(member)) is not None), default=None)

    # --- events -------------------------------------------------------------------------------------------
    def reload(self, wanted: dict[str, Wanted], now: float) -> list[Order]:
        """The configuration was read: what is different from before is changed."""
        if self.stopping:
            return []
        steps: list[Order] = []
        for name in [name for name in self.members if name not in wanted]:
            steps += self._remove(name, now)
        for name, one in wanted.items():
            steps += self._want(name, one, now)
        return steps

    def up(self, now: float) -> list[Order]:
        """Start everything that is configured and does not run, at once."""
        if self.stopping:
            return []
        idle = [
            name for name, member in self.members.items() if member.condition in (Condition.RESTING, Condition.ENDED)
        ]
        return [step for name in idle for step in self._start(name, now)]

    def stop(self) -> list[Order]:
        """End everything. Asked again, nothing more is done: each process is at its end already."""
        self.stopping = True
        return [
            step
            for name, member in self.members.items()
            if member.condition is Condition.RUNNING
            for step in self._stop(name, member)
        ]

    def spoils_the_stop(self, name: str, exit_code: int) -> bool:
        """Whether a volume's exit code is about the stop itself. Of one that was failing anyway it is not: that was told."""
        return self.stopping and exit_code > 0 and not self.members[name].failures

    def ended(self, name: str, exit_code: int, reason: str, now: float) -> list[Order]:
        """The process of a volume has ended; ``reason`` is its sentence about a failure."""
        member = self.members[name]
        was, member.since = member.condition, now
        if self.stopping:
            member.condition = Condition.ENDED
            return []
        if was is Condition.STOPPING:
            return self._after_stop(name, member, now)
        if exit_code == 0:
            member.condition, member.failure, member.failures, member.pause_s = Condition.ENDED, "", 0, 0.0
            return [Tell(name, "ended in order, and is not started again before 'controller up --all'")]
        return self._fail(name, member, reason or f"ended with exit code {exit_code}", now)

    def due(self, now: float) -> list[Order]:
        """What time alone brings: the next start after a failure, and the end of a bad time."""
        steps: list[Order] = []
        for name, member in self.members.items():
            at = _deadline(member)
            if at is None or now < at or self.stopping:
                continue
            if member.condition is Condition.RESTING:
                steps += self._start(name, now)
            else:
                steps.append(Tell(name, f"runs again, after {_count(member.failures, 'failure')}"))
                member.failure, member.failures, member.pause_s = "", 0, 0.0
        return steps

    # --- parts --------------------------------------------------------------------------------------------
    def _start(self, name: str, now: float) -> Iterator[Order]:
        member = self.members[name]
        member.condition, member.since, member.start_at = Condition.RUNNING, now, None
        member.started_with = member.wanted
        yield Start(name)

    def _stop(self, name: str, member: Member) -> Iterator[Order]:
        member.condition = Condition.STOPPING
        yield Stop(name)

    def _remove(self, name: str, now: float) -> Iterator[Order]:
        member = self.members[name]
        member.wanted = None
        if member.condition is Condition.RUNNING:
            yield Tell(name, "is not configured any more: it is stopped, and its writes stay tracked")
            yield from self._stop(name, member)
        elif member.condition is not Condition.STOPPING:
            del self.members[name]

    def _want(self, name: str, wanted: Wanted, now: float) -> Iterator[Order]:
        member = self.members.get(name)
        if member is None:
            member = self.members[name] = Member(wanted, Condition.ENDED, now)
            yield from self._begin(name, member, now)
            return
        before, member.wanted = member.wanted, wanted
        if member.condition is Condition.STOPPING or wanted == before:
            return
        if member.condition is Condition.RUNNING:
            yield from self._change(name, member, wanted)
        else:
            yield from self._begin(name, member, now)

    def _change(self, name: str, member: Member, wanted: Wanted) -> Iterator[Order]:
        """Of a volume that runs. One whose file is wrong now runs on with what it was started with."""
        began = member.started_with
        if wanted.problem:
            yield Tell(name, f"runs on with its settings of before: {wanted.problem}", is_error=True)
            return
        if wanted.unit:
            yield Tell(name, f"is left to {wanted.unit}: it is stopped here, and its writes stay tracked")
            yield from self._stop(name, member)
        elif began is None or wanted.settings != began.settings:
            yield Tell(name, "has other settings: it is started again, and its writes stay tracked")
            yield from self._stop(name, member)
        elif wanted.identity != began.identity:
            member.started_with = wanted
            yield Renew(name)

    def _begin(self, name: str, member: Member, now: float) -> Iterator[Order]:
        """Of a volume that does not run, and is new or changed."""
        wanted = member.wanted
        assert wanted is not None
        member.failure, member.failures, member.pause_s, member.since = wanted.problem, 0, 0.0, now
        member.start_at = None
        if wanted.problem:
            member.condition = Condition.BROKEN
            yield Tell(name, wanted.problem, is_error=True)
        elif wanted.unit:
            member.condition = Condition.LEFT_TO_UNIT
            yield Tell(name, f"is left to {wanted.unit}, which is enabled")
        else:
            yield from self._start(name, now)

    def _after_stop(self, name: str, member: Member, now: float) -> list[Order]:
        if member.wanted is None:
            del self.members[name]
            return []
        return list(self._begin(name, member, now))

    def _fail(self, name: str, member: Member, reason: str, now: float) -> list[Order]:
        new = reason != member.failure
        member.failures += 1
        member.failure, member.condition = reason, Condition.RESTING
        member.pause_s = min(member.pause_s * 2, LONGEST_RESTART_S) if member.pause_s else FIRST_RESTART_S
        member.start_at = now + member.pause_s
        again = f"it is started again after {member.pause_s:g} s, and after longer pauses from then on"
        return [Tell(name, f"{reason}; {again}", is_error=True)] if new else []


def _deadline(member: Member) -> float | None:
    if member.condition is Condition.RESTING:
        return member.start_at
    if member.condition is Condition.RUNNING and member.failures:
        return member.since + GOOD_RUN_S
    return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

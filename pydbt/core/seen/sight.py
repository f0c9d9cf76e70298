"""How a volume or replica stands, by its status and the age of that: the one decision that page, terminal and metrics share.

A status is never better than the truth. What nobody knows is None; a status that is old is never *good*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydbt.core.primary.modes import FOLLOWING_MODES, Mode
from pydbt.core.protocol.heartbeat import FRESH_S
from pydbt.core.seen.forecast import Outlook, outlook_of
from pydbt.core.seen.headline import divergence_words, handover_words, headline
from pydbt.core.seen.view import View
from pydbt.core.units import format_seconds

STALE_S = 5.0
"""A status that is older tells of the past. Controllers are asked every second, and a busy one may take a moment to answer."""
LEVELS_MAX = 16
"""Of lists and objects in each other. A status has five."""
_FOLLOWING = {*map(str, FOLLOWING_MODES), "streaming", "ready"}
_COPYING = {str(Mode.INITIAL_SYNC), str(Mode.RESYNCHRONIZING), "staging", "direct"}
# Of one of several secondaries: what its own entry in the status tells.
_OF_A_SECONDARY = (
    "secondary", "mode", "mode_since", "replica_state", "connected", "connection_problem", "lag_seconds", "lag_bytes",
    "out_of_sync_bytes", "unacknowledged_bytes", "last_in_sync", "progress",
)  # fmt: skip


def is_shallow(value: object, levels: int = LEVELS_MAX) -> bool:
    """Whether lists and objects are in each other no deeper than this: whoever tells a status may be another user."""
    layer = [value]
    for _ in range(levels + 1):
        inner: list[object] = []
        for one in layer:
            inner += one.values() if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else ()
        layer = inner
        if not layer:
            return True
    return False


class Level(StrEnum):
    """How a volume stands, for a colour and a shape. ``BEHIND``: the replica lacks something, and gets it without a person."""

    GOOD = "good"
    BEHIND = "behind"
    BAD = "bad"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


WORST_FIRST = (Level.BAD, Level.UNKNOWN, Level.STOPPED, Level.BEHIND, Level.GOOD)
"""By how much a volume or replica needs a person."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A status, and what is known of how it was come by.

    ``status``: as of ``status --json``; without ``running`` when none ever came. ``age_seconds``: since it was true. ``silence``:
    why no newer one came, in words; empty while the controller answers. ``wire_rate_bytes``: put on the wire per second.
    ``progress_back``: why less is done than a moment ago, in words. ``backlog_growth_bytes``: what a stream falls behind by
    per second, for long; None where it does not, or nobody knows.
    """

    status: Mapping[str, object]
    age_seconds: float
    silence: str = ""
    wire_rate_bytes: float | None = None
    progress_back: str = ""
    backlog_growth_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """A volume or replica as it is shown. Sizes are bytes, times as in ``status --json``; None where nobody knows."""

    id: str
    machine: str
    role: str
    name: str
    device: str
    level: Level
    words: str
    problem: str
    stale: bool
    age_seconds: float
    mode: str | None
    mode_since: str | None
    replica_state: str | None
    connected: bool | None
    lag_seconds: float | None
    lag_bytes: float | None
    out_of_sync_bytes: float | None
    unacknowledged_bytes: float | None
    last_in_sync: str | None
    last_verified: str | None
    write_rate_bytes: float | None
    wire_rate_bytes: float | None
    backlog_growth_bytes: float | None
    queue: dict[str, Any]
    log: dict[str, Any]
    progress: dict[str, Any]
    progress_back: str
    forecast: Outlook
    secondaries: list[dict[str, Any]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Its parts are not copied, which would take longer than all else of an answer: nobody may change them."""
        return {**{one.name: getattr(self, one.name) for one in fields(self)}, "forecast": asdict(self.forecast)}


def sight_of(asked: Asked, identity: str, machine: str, name: str, now: datetime) -> Sight:
    """Decide how it stands. ``identity``, ``machine`` and ``name`` are those under which it is shown."""
    report = View(asked.status)
    stale = is_stale(asked)
    return Sight(
        id=identity,
        machine=machine,
        role=report.text("role") or "unknown",
        name=name,
        device=report.text("source") or report.text("target") or report.text("device") or "",
        level=level_of(report, stale),
        words=words_of(asked, now),
        problem=asked.silence or report.text("problem") or report.text("connection_problem") or "",
        stale=stale,
        age_seconds=round(asked.age_seconds, 1),
        mode=report.text("mode"),
        mode_since=report.text("mode_since"),
        replica_state=report.text("replica_state"),
        connected=report.flag("connected"),
        lag_seconds=report.number("lag_seconds"),
        lag_bytes=report.number("lag_bytes"),
        out_of_sync_bytes=report.number("out_of_sync_bytes"),
        unacknowledged_bytes=report.number("unacknowledged_bytes"),
        last_in_sync=report.text("last_in_sync"),
        last_verified=report.part("verify").part("last").text("ended"),
        write_rate_bytes=None if stale else report.number("write_rate_bytes"),
        wire_rate_bytes=None if stale else asked.wire_rate_bytes,
        backlog_growth_bytes=None if stale else asked.backlog_growth_bytes,
        queue=report.part("queue").values,
        log=(report.part("log") or report.part("journal")).values,
        progress=report.part("progress").values,
        progress_back="" if stale else asked.progress_back,
        forecast=Outlook("", None, None)
        if stale
        else outlook_of(report, asked.wire_rate_bytes, asked.backlog_growth_bytes),
        secondaries=[_of_a_secondary(one, report, stale) for one in report.parts("secondaries")],
        status=report.values,
    )


def aged(sight: Sight, more_seconds: float, silence: str, now: datetime) -> Sight:
    """The same, this much later, when nothing newer has come. ``silence``: why."""
    age_s = sight.age_seconds + more_seconds
    asked = Asked(sight.status, age_s, silence, sight.wire_rate_bytes, "", sight.backlog_growth_bytes)
    return sight_of(asked, sight.id, sight.machine, sight.name, now)


def _of_a_secondary(one: View, report: View, stale: bool) -> dict[str, Any]:
    """Its own level as well: by its own part of the status, and by whether the controller runs at all."""
    level = level_of(View({**one.values, "running": report.flag("running"), "role": "primary"}), stale)
    return {"level": level, **{name: one.values.get(name) for name in _OF_A_SECONDARY}}


def is_stale(asked: Asked) -> bool:
    """Whether the status tells of the past alone: it is old, or its controller does not run."""
    return asked.age_seconds > STALE_S or not View(asked.status).flag("running")


def level_of(report: View, stale: bool) -> Level:
    """By what the status tells; what it does not tell is taken for the worse."""
    copying = report.text("mode") in _COPYING and bool(report.flag("connected")) and not stale
    bad_blocks = any(report.part(name).number("bytes") for name in ("unreadable", "unwritable"))
    problems = report.text("refused"), report.text("persist_problem"), report.text("target_problem")
    broken = bad_blocks or any(problems) or bool(report.part("epochs").text("problem"))
    undecided = handover_words(report) or divergence_words(report)
    if report.flag("tainted") or is_shut(report) or broken or undecided:
        return Level.BAD
    if report.text("replica_state") == "inconsistent" and not copying:
        return Level.BAD
    if report.flag("running") is False:
        return Level.STOPPED
    if stale or not report.flag("running") or report.text("mode") is None:
        return Level.UNKNOWN
    return _level_of_a_running(report, copying)


def is_shut(report: View) -> bool:
    """Whether the gate has found that the volume must not be mounted here."""
    return report.part("gate").text("outcome") == "shut"


def _level_of_a_running(report: View, copying: bool) -> Level:
    mode = report.text("mode")
    if copying or mode == Mode.PAUSED:
        return Level.BEHIND
    if mode not in _FOLLOWING or not report.flag("connected"):
        return Level.BAD
    return Level.GOOD if _lacks_nothing(report) else Level.BEHIND


def _lacks_nothing(report: View) -> bool:
    """A secondary follows while it lacks what its primary cannot read, or what a taint leaves open: its primary knows.

    What that told counts for as long as a heartbeat does.
    """
    if report.text("replica_state") == "up-to-date":
        return True
    follows = report.text("role") == "secondary" and report.text("replica_state") == "consistent"
    silent_s = report.number("silent_seconds")
    heard = silent_s is not None and silent_s <= FRESH_S
    return follows and heard and report.part("primary").number("behind_bytes") == 0


def words_of(asked: Asked, now: datetime) -> str:
    """The first line of ``controller status``; before it, of a status that is old, why, and for how long."""
    report = View(asked.status)
    if report.flag("running") is False:
        return report.text("problem") or "no controller is running"
    if report.flag("running") is None:
        return asked.silence or "nothing is known of it yet"
    line = headline(report, now)
    if not is_stale(asked):
        return line
    why = asked.silence or "the controller does not answer"
    return f"STALE: {why}; {format_seconds(asked.age_seconds)} ago: {line}"

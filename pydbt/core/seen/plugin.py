"""The answer of ``controller check``: a state of monitoring plug-ins, one line of words, and performance data.

The format is that of the Monitoring Plugins' Development Guidelines: https://www.monitoring-plugins.org/doc/guidelines.html.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from pydbt.core.seen.facts import IN_SYNC_STATE
from pydbt.core.seen.headline import headline
from pydbt.core.seen.sight import Level, is_shut, level_of
from pydbt.core.seen.view import View
from pydbt.core.units import format_seconds

LINE_BYTES_MAX = 4000
"""Nagios reads 4 KiB of words and performance data together, and what is behind that is lost: a label, or half of one."""
_WORDS_BYTES_MAX = 2000
"""Of several volumes: the other half is for performance data."""
_WORDS_BYTES_MAX_OF_ONE = 3000
_ENTRY_BYTES_MAX = 400
"""One whose reason is long hides no others."""
_QUOTED = re.compile(r"[\s=']")
_NOW_S = 1.0
"""Clocks are set right by a little all the time: a moment that is as little ahead is now."""


class PluginState(IntEnum):
    """The exit codes of monitoring plug-ins."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_WORST_FIRST = (PluginState.CRITICAL, PluginState.WARNING, PluginState.UNKNOWN, PluginState.OK)


@dataclass(frozen=True, slots=True)
class Limits:
    """The age, in seconds, above which a replica that was last in sync then is a warning, or critical."""

    warning_s: float
    critical_s: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One volume or replica. ``age_s``: the time since it was last in sync; None: unknown."""

    name: str
    state: PluginState
    words: str
    age_s: float | None
    out_of_sync_bytes: int | None
    size_bytes: int | None


def judged(name: str, status: View, now: datetime, limits: Limits) -> Judged:
    """How a status is to be told to monitoring. ``running`` false in it: no controller answers, and this was its last."""
    age_s = age_of(status, now)
    state, why = _state_of(status, age_s, limits)
    words = headline(status, now) if status.flag("running") else status.text("problem") or "no controller is running"
    last = "at an unknown time" if age_s is None else f"{format_seconds(age_s)} ago"
    words = f"{words}; last in sync {last}"
    return Judged(
        name,
        state,
        f"{why}: {words}" if why else words,
        age_s,
        status.whole("out_of_sync_bytes"),
        status.whole("size_bytes") or status.whole("size"),
    )


def age_of(status: View, now: datetime) -> float | None:
    """Seconds since the replica was last in sync; None where that is unknown."""
    running = status.flag("running") is True
    if status.text("role") == "secondary":
        if running and status.flag("connected") and status.text("replica_state") == IN_SYNC_STATE:
            return 0.0
        return _age_of_image(status.part("primary"), 0.0 if running else _since(status.text("saved_at"), now), now)
    lag_s = status.number("lag_seconds")
    if running:
        return None if lag_s is None else max(lag_s, 0.0)
    return _since(status.text("last_in_sync"), now)


def _age_of_image(primary: View, told_since_s: float | None, now: datetime) -> float | None:
    """How old the image of a replica is. ``told_since_s``: how long ago its status was made; None: nobody knows.

    Its moment is one of the primary's clock, which may be ahead of this one: an image is never called younger than what the
    primary told by that clock alone, and the silence since by this one. It may be behind as well; then it is called older.
    Where that clock was set back in between, so that the image is younger than what was told last, its age is unknown.
    """
    as_of, told, heard_s = (
        _moment(primary.text("as_of")),
        _moment(primary.text("told")),
        primary.number("heard_seconds"),
    )
    if as_of is None:
        return None
    by_this_clock = (now - as_of).total_seconds()
    has_told = primary.number("behind_bytes") is not None  # else it may be back, and have told that before it was away
    if told is None or heard_s is None or told_since_s is None or not has_told:
        return None if by_this_clock < 0 else by_this_clock
    if told < as_of:
        return None
    return max(by_this_clock, (told - as_of).total_seconds() + heard_s + told_since_s, 0.0)


def _since(moment: str | None, now: datetime) -> float | None:
    """None where it is unknown, also after the clock was set back: the moment is still to come then."""
    at = _moment(moment)
    if at is None or (age_s := (now - at).total_seconds()) < -_NOW_S:
        return None
    return max(age_s, 0.0)


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _state_of(status: View, age_s: float | None, limits: Limits) -> tuple[PluginState, str]:
    """The state, and what makes it worse than the age does. Bad on the page is never OK, and known although the age is not."""
    is_running = status.flag("running") is True
    level = level_of(status, stale=not is_running)
    if status.text("refused"):
        return PluginState.CRITICAL, "a person has to choose"
    if is_shut(status):
        return PluginState.CRITICAL, "a secondary was promoted"
    if age_s is not None and age_s > limits.critical_s:
        return PluginState.CRITICAL, ""
    is_usable = status.text("replica_state") in ("consistent", IN_SYNC_STATE, "outdated")
    if level is Level.BAD:
        is_cut_off = is_running and not status.flag("connected") and not status.text("connection_problem")
        why = "not connected" if is_cut_off else ""
        return PluginState.WARNING, why if is_usable else "the replica cannot be used"
    if age_s is None or level is Level.UNKNOWN:
        return PluginState.UNKNOWN, ""
    if not is_running:
        return PluginState.WARNING, ""
    if not is_usable:
        return PluginState.WARNING, "the replica cannot be used"
    return (PluginState.WARNING, "") if age_s > limits.warning_s else (PluginState.OK, "")


def worst(states: Sequence[PluginState]) -> PluginState:
    """Critical before warning before unknown; unknown when there is none."""
    return next((state for state in _WORST_FIRST if state in states), PluginState.UNKNOWN)


def plugin_line(volumes: Sequence[Judged], limits: Limits, proviso: str = "") -> str:
    """The one line. Text of others cannot end its first part: a ``|`` in it is shown as ``!``. ``proviso`` is told at its end.

    What does not fit is left out, from the least bad on, and how many these are is told.
    """
    ordered = sorted(volumes, key=lambda one: _WORST_FIRST.index(one.state))
    words = _plain(f"PYDBT {worst([one.state for one in volumes]).name} - {_words_of(ordered)}")
    end = _plain(f" ({proviso})" if proviso else "")
    several = len(volumes) > 1
    figures = {id(one): _performance(one, limits, several=several) for one in volumes}
    told = " ".join(figures[id(one)] for one in volumes)
    if _size(f"{words}{end} | {told}") > LINE_BYTES_MAX:
        note = "; performance data of {} left out"
        room = LINE_BYTES_MAX - _size(f"{words}{note}{len(volumes)}{end} | ")
        told, left_out = _joined([figures[id(one)] for one in ordered], " ", room)
        words += note.format(left_out)
    return f"{words}{end} | {told}"


def _words_of(ordered: Sequence[Judged]) -> str:
    """Of the worst first."""
    if len(ordered) == 1:
        return _cut(f"{ordered[0].name}: {ordered[0].words}", _WORDS_BYTES_MAX_OF_ONE)
    bad = [one for one in ordered if one.state]
    if not bad:
        return f"{len(ordered)} volumes and replicas are in sync"
    entries = [_cut(f"{one.name}: {one.state.name.lower()}: {one.words}", _ENTRY_BYTES_MAX) for one in bad]
    told, left_out = _joined(entries, "; ", _WORDS_BYTES_MAX)
    more = f"; and {left_out} more" if left_out else ""
    return f"{len(bad)} of {len(ordered)} are not as they should be: {told}{more}"


def _joined(parts: Sequence[str], between: str, bytes_max: int) -> tuple[str, int]:
    """As many as fit, from the first on; and how many do not."""
    count, size = 0, -_size(between)
    for part in parts:
        size += _size(between) + _size(part)
        if size > bytes_max:
            break
        count += 1
    return between.join(parts[:count]), len(parts) - count


def _cut(text: str, bytes_max: int) -> str:
    if _size(text) <= bytes_max:
        return text
    return text.encode(errors="replace")[: bytes_max - 3].decode(errors="ignore") + "..."


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))


def _plain(text: str) -> str:
    return text.replace("|", "!")


def _performance(one: Judged, limits: Limits, *, several: bool) -> str:
    """``'label'=value;warn;crit;min;max`` for each figure; U where it is unknown."""
    prefix = f"{one.name} " if several else ""
    age = "U" if one.age_s is None else f"{one.age_s:.1f}s"
    lacking = "U" if one.out_of_sync_bytes is None else f"{one.out_of_sync_bytes}B"
    size = "" if one.size_bytes is None else str(one.size_bytes)
    bounds = f"{limits.warning_s:g};{limits.critical_s:g}"
    return f"{_label(f'{prefix}age')}={age};{bounds};0; {_label(f'{prefix}out_of_sync')}={lacking};;;0;{size}"


def _label(text: str) -> str:
    """A label may have neither ``=`` nor an unpaired quote in it."""
    plain = _plain(text).replace("=", "-")
    return "'" + plain.replace("'", "''") + "'" if _QUOTED.search(plain) else plain


def unknown_line(words: str) -> str:
    """The line of a check that could not be made."""
    return f"PYDBT UNKNOWN - {_plain(words)}"

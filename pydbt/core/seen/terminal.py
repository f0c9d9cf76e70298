"""What ``controller top`` shows of volumes, as cells and lines of text with a style: pure, so that each line can be tested.

A level has a word, a shape and a style, so that it is told without colour too. Whatever is not known is *unknown*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydbt.core.seen.sight import WORST_FIRST, Level
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes, format_seconds

UNKNOWN_WORDS = "unknown"
_SHAPES = {Level.GOOD: "●", Level.BEHIND: "◐", Level.BAD: "▲", Level.STOPPED: "■", Level.UNKNOWN: "?"}
_PLAIN_SHAPES = {Level.GOOD: "+", Level.BEHIND: "~", Level.BAD: "!", Level.STOPPED: "#", Level.UNKNOWN: "?"}
_COPYING_MODES = ("resynchronizing", "initial-sync", "staging", "direct")
BAR_CELLS_MAX = 40
_BAR_CELLS_MIN = 10
_SECONDARIES_SHOWN = 16
# Of names and of sentences in the details, whatever their length: a screen has 1920 cells.
NAME_CHARACTERS_MAX = 60
WORDS_CHARACTERS_MAX = 480


@dataclass(frozen=True, slots=True)
class TableColumn:
    """``width`` in cells; 0 takes what is left, and ``least`` of it. A column is left out below ``from_width`` of the screen."""

    heading: str
    width: int
    from_width: int = 0
    least: int = 0
    right: bool = False


@dataclass(frozen=True, slots=True)
class Styled:
    """Text of one style: a level's name, ``heading``, ``stale`` or empty."""

    style: str
    words: str


TABLE_COLUMNS = (
    TableColumn("", 9),
    TableColumn("VOLUME", 0, least=10),
    TableColumn("MACHINE", 12, from_width=120),
    TableColumn("MODE", 15),
    TableColumn("OUT OF SYNC", 11, right=True),
    TableColumn("UNACKED", 9, right=True),
    TableColumn("LAG", 10, right=True),
    TableColumn("WRITTEN/s", 10, from_width=92, right=True),
    TableColumn("WIRE/s", 10, from_width=103, right=True),
)


def columns_for(width: int) -> list[int]:
    """The places in ``TABLE_COLUMNS`` of those that fit a screen of this many cells."""
    return [place for place, column in enumerate(TABLE_COLUMNS) if width >= column.from_width]


def cells_of(sight: View, *, plain: bool) -> tuple[Styled, ...]:
    """One volume, a cell for each of ``TABLE_COLUMNS``. ``plain``: the terminal has ASCII alone."""
    level = level_in(sight)
    style = "stale" if sight.flag("stale") else level
    return (
        Styled(level, f"{shape_of(level, plain=plain)} {level}"),
        Styled("", sight.text("name") or sight.text("device") or UNKNOWN_WORDS),
        Styled("", sight.text("machine") or ""),
        Styled(style, _mode_words(sight)),
        Styled("", _lacking(sight, "out_of_sync_bytes", format_bytes)),
        Styled("", _lacking(sight, "unacknowledged_bytes", format_bytes)),
        Styled("", _lacking(sight, "lag_seconds", format_seconds)),
        Styled("", format_bytes(sight.number("write_rate_bytes"))),
        Styled("", format_bytes(sight.number("wire_rate_bytes"))),
    )


def _lacking(sight: View, name: str, words: Callable[[float | None], str]) -> str:
    """Of a replica it stands in the line of its primary, which alone knows it."""
    value = sight.number(name)
    if value is None and sight.text("role") == "secondary":
        return "-"
    return UNKNOWN_WORDS if sight.flag("stale") else words(value)


def level_in(sight: View) -> Level:
    """The level that the status names; unknown where this version does not know the name."""
    try:
        return Level(sight.text("level") or "")
    except ValueError:
        return Level.UNKNOWN


def shape_of(level: Level, *, plain: bool) -> str:
    return (_PLAIN_SHAPES if plain else _SHAPES)[level]


def worst_first(sights: Iterable[View]) -> list[View]:
    """In the order in which they need a person, and by name among equals."""
    return sorted(sights, key=lambda one: (WORST_FIRST.index(level_in(one)), *_name_of(one)))


def by_name(sights: Iterable[View]) -> list[View]:
    return sorted(sights, key=_name_of)


def summary_words(machines: Sequence[View]) -> str:
    """``3 volumes: 1 bad, 2 good``; and each machine that is not reached."""
    sights = [sight for machine in machines for sight in machine.parts("volumes")]
    counts = [(level, sum(level_in(one) is level for one in sights)) for level in WORST_FIRST]
    words = ", ".join(f"{count} {level}" for level, count in counts if count)
    what = "volume" if len(sights) == 1 else "volumes"
    away = [
        f"{one.text('name') or UNKNOWN_WORDS} is not reached: {one.text('problem') or 'no reason is known'}"
        for one in machines
        if one.flag("reachable") is not True
    ]
    return "; ".join([f"{len(sights)} {what}: {words}" if sights else "no volume is known", *away])


def details_of(sight: View, width: int, *, plain: bool) -> list[Styled]:
    """The selected volume in full, a line each; the shell folds what is longer than the screen."""
    level = level_in(sight)
    style = "stale" if sight.flag("stale") else level
    name, role, device, machine = (_short(sight, key) for key in ("name", "role", "device", "machine"))
    head = f"{name}: {role} {device} on {machine}"
    words = _short(sight, "words", WORDS_CHARACTERS_MAX)
    lines = [Styled("heading", head), Styled(style, f"{shape_of(level, plain=plain)} {words}")]
    if (problem := sight.text("problem")) and problem not in (sight.text("words") or ""):
        lines.append(Styled(style, f"  {shortened(problem, WORDS_CHARACTERS_MAX)}"))
    lines += [Styled("", line) for line in (*_progress_lines(sight, width, plain=plain), *_figures(sight)) if line]
    return [*lines, *_secondary_lines(sight)]


def _mode_words(sight: View) -> str:
    if sight.flag("stale"):
        return "stopped" if level_in(sight) is Level.STOPPED else f"STALE {format_seconds(sight.number('age_seconds'))}"
    mode = sight.text("mode") or UNKNOWN_WORDS
    done, total = _progress(sight)
    return f"copying {_percent(done, total)} %" if mode in _COPYING_MODES and total else mode


def _progress(sight: View) -> tuple[int, int]:
    progress = sight.part("progress")
    return progress.whole("done_bytes") or 0, progress.whole("total_bytes") or 0


def _percent(done: int, total: int) -> int:
    return min(100 * max(done, 0) // max(total, 1), 100)


def bar_of(done: int, total: int, cells: int, *, plain: bool) -> str:
    """Full only when everything is done."""
    full = min(cells * max(done, 0) // max(total, 1), cells)
    filled, empty = ("#", ".") if plain else ("█", "░")
    return filled * full + empty * (cells - full)


def _progress_lines(sight: View, width: int, *, plain: bool) -> list[str]:
    done, total = _progress(sight)
    lines = []
    if total > 0:
        cells = min(max(width - 46, _BAR_CELLS_MIN), BAR_CELLS_MAX)
        bar = bar_of(done, total, cells, plain=plain)
        back = f"; {shortened(words)}" if (words := sight.text("progress_back")) else ""
        lines.append(f"  {bar} {_percent(done, total)} %, {format_bytes(done)} of {format_bytes(total)}{back}")
    if forecast := sight.part("forecast").text("words"):
        lines.append(f"  forecast: {shortened(forecast, WORDS_CHARACTERS_MAX)}")
    return lines


def _figures(sight: View) -> list[str]:
    """Of a status that is old they would tell of the past: only the last moments are left."""
    moments = [f"last in sync {_short(sight, 'last_in_sync')}", f"verified {_short(sight, 'last_verified')}"]
    if sight.flag("stale"):
        return [f"  last known {format_seconds(sight.number('age_seconds'))} ago", "  " + ", ".join(moments)]
    rooms = [_room("ring", sight.part("queue")), _room(_log_name(sight), sight.part("log"))]
    behind = [
        f"out of sync {format_bytes(sight.number('out_of_sync_bytes'))}",
        f"of it unacknowledged {format_bytes(sight.number('unacknowledged_bytes'))}",
        f"lag {format_seconds(sight.number('lag_seconds'))}",
    ]
    rates = [
        f"written {format_bytes(sight.number('write_rate_bytes'))}/s",
        f"wire {format_bytes(sight.number('wire_rate_bytes'))}/s",
        *(room for room in rooms if room),
    ]
    if sight.text("role") == "secondary":
        behind, rates, moments = [], rates[1:], []
    return ["  " + ", ".join(words) for words in (behind, rates, moments) if words]


def _log_name(sight: View) -> str:
    return "journal" if sight.text("role") == "secondary" else "log"


def _room(name: str, room: View) -> str:
    size, used = room.number("size"), room.number("used")
    return f"{name} {min(100 * used / size, 100):.0f} % of {format_bytes(size)}" if size and used is not None else ""


def _secondary_lines(sight: View) -> list[Styled]:
    """Each secondary of a primary; not of a status that is old."""
    secondaries = [] if sight.flag("stale") else sight.parts("secondaries")
    lines = []
    for one in secondaries[:_SECONDARIES_SHOWN]:
        connected = one.flag("connected")
        problem = shortened(one.text("connection_problem") or "not connected", WORDS_CHARACTERS_MAX)
        words = [
            "connected" if connected else problem,
            _short(one, "mode"),
            _short(one, "replica_state"),
            f"out of sync {format_bytes(one.number('out_of_sync_bytes'))}",
            f"lag {format_seconds(one.number('lag_seconds'))}",
        ]
        style = "" if connected else str(Level.BAD)
        lines.append(Styled(style, f"  to {_short(one, 'secondary')}: {', '.join(words)}"))
    if len(secondaries) > _SECONDARIES_SHOWN:
        lines.append(Styled("", f"  and {len(secondaries) - _SECONDARIES_SHOWN} more secondaries"))
    return lines


def _name_of(sight: View) -> tuple[str, str, str]:
    return sight.text("machine") or "", sight.text("name") or "", sight.text("id") or ""


def _short(told: View, name: str, characters: int = NAME_CHARACTERS_MAX) -> str:
    return shortened(told.text(name) or UNKNOWN_WORDS, characters)


def shortened(text: str, characters: int = NAME_CHARACTERS_MAX) -> str:
    """Text of others, so that it leaves room for what else is to be seen: its beginning and its end."""
    if len(text) <= characters:
        return text
    half = (characters - 3) // 2
    return f"{text[:half]}...{text[-half:]}"

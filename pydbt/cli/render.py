"""A report for people: rows of words, and two ways to print them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TextIO

from pydbt.cli.mark_words import marks_words, replica_marks_words
from pydbt.cli.transaction_words import replica_transaction_words, transaction_words
from pydbt.core.seen.headline import UNKNOWN_AMOUNT, gate_words, headline, of_several, progress_words
from pydbt.core.seen.view import View
from pydbt.core.seen.writers.words import writers_words
from pydbt.core.units import format_bytes, format_seconds

StatusRow = tuple[str, str]

_GOOD, _WAIT, _BAD = "green", "yellow", "red"
_COLOURS = {
    "normal": _GOOD,
    "epochs": _GOOD,
    "up-to-date": _GOOD,
    "consistent": _GOOD,
    "outdated": _WAIT,
    "initial-sync": _WAIT,
    "resynchronizing": _WAIT,
    "paused": _WAIT,
    "refused": _BAD,
    "stopped": _WAIT,
    "unsynchronized": _BAD,
    "inconsistent": _BAD,
}


def rows(report: View) -> list[StatusRow]:
    """The rows in order; a field that the report lacks is left out."""
    made: list[tuple[str, str | None]] = [("state", headline(report, datetime.now(UTC)))] if "mode" in report else []
    made += _secondary_rows(report) if report.text("role") == "secondary" else _primary_rows(report)
    made.append(("identity", report.part("identity").text("problem")))
    return [(name, words) for name, words in made if words]


def print_status(report: View, stream: TextIO) -> None:
    """Print the rows: coloured on a terminal, plain aligned text otherwise."""
    table = rows(report)
    if stream.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for name, words in table:
            grid.add_row(name, Text(words, style=_colour(name, words)))
        Console(file=stream).print(grid)
        return
    width = max((len(name) for name, _ in table), default=0)
    for name, words in table:
        print(f"{name:<{width}}  {words}", file=stream)


def summary(report: View) -> str:
    """One line: mode, replica, and how far behind."""
    words = [(report.text("mode") or "unknown") + of_several(report)]
    if state := report.text("replica_state"):
        words.append(f"replica {state}")
    if report.flag("tainted"):
        words.append("TAINTED")
    if report.number("out_of_sync_bytes") or _is_unknown(report, "out_of_sync_bytes"):
        words.append(f"out of sync {_amount(report, 'out_of_sync_bytes')}")
    if report.number("lag_bytes"):
        words.append(f"lag {_lag(report)}")
    if (sent := _bytes(report, "sent_bytes")) is not None:
        words.append(f"sent {sent}")
    return ", ".join(words)


def _capture_words(capture: View) -> str:
    """Why only addresses are captured; nothing when they were asked for, or everything is captured."""
    reason = capture.text("reason")
    return f"addresses only, because the data of writes cannot be captured: {reason}" if reason else ""


def _audit_words(audit: View) -> str:
    """Whether the kernel's counts agree with capture; nothing when they do."""
    verdict = audit.text("verdict") or ""
    return "" if verdict == "agrees" else verdict


def _snapshot_words(snapshots: View) -> str:
    """``12 in this run, every 10 s ...; the last of ...``; nothing where every write is followed."""
    if not snapshots:
        return ""
    number, interval = snapshots.whole("number") or 0, snapshots.number("interval_s") or 0
    words = f"{number:,} in this run, every {interval:g} s when anything is written"
    if last := snapshots.text("last"):
        words += f"; the last of {last} ({snapshots.text('kind')})"
    if longest := snapshots.number("frozen_ms_max"):
        words += f", writers held up {snapshots.number('frozen_ms_last') or 0:g} ms ({longest:g} ms at the most)"
    problem = snapshots.text("problem")
    return f"{words}; {problem}" if problem else words


def _intent_words(intent: View, size_bytes: float) -> str:
    """``era 23, since ...; compared since era 17: 240 MiB of 10 GiB``; nothing without write-intent."""
    if not intent:
        return ""
    era = intent.whole("era")
    words = [f"era {era}, since {intent.text('since')}" if era else "no era is remembered yet"]
    if compared := intent.part("compared"):
        words.append(
            f"compared since era {compared.whole('era')}: {_bytes(compared, 'bytes')} of {format_bytes(size_bytes)}"
        )
    return "; ".join([*words, *filter(None, [intent.text("problem")])])


def verify_words(verify: View) -> str:
    """``running, 34 %, ...``, or the result of the last verification and its time; nothing when there was none."""
    if running := verify.part("running"):
        found = f", {_bytes(running, 'differing_bytes')} differ" if running.number("differing_bytes") else ""
        return f"running, {progress_words(running)}{found}"
    last = verify.part("last")
    if rest := verify.part("rest"):
        return f"begins again at {rest.text('until')}: {rest.text('reason')}"
    if "ended" not in last:
        return ""
    compared, ended = _bytes(last, "compared_bytes"), last.text("ended")
    filled = filled_words(last)
    if last.number("unreadable_bytes"):
        compared = f"{compared} ({_bytes(last, 'unreadable_bytes')} cannot be read)"
    if not last.number("differing_bytes"):
        return f"{compared} the same on both sides{filled} at {ended}"
    fate = "differed and were copied" if last.flag("repaired") else "DIFFER"
    return f"{_bytes(last, 'differing_bytes')} of {compared} {fate}{filled}, at {ended}"


def filled_words(last: View) -> str:
    """``, and 3.0 MiB of free space filled in``: what was on neither side's account before; nothing when there was none."""
    return f", and {_bytes(last, 'filled_bytes')} of free space filled in" if last.number("filled_bytes") else ""


def _places_words(blocks: View, disk: str) -> str:
    """``4.0 KiB of the source: 4096 bytes at 31457280``; nothing when all of it can be read, or written."""
    if not blocks.number("bytes"):
        return ""
    places = [
        f"{place.whole('length_bytes')} bytes at {place.whole('offset_bytes')}" for place in blocks.parts("places")
    ]
    return f"{_bytes(blocks, 'bytes')} of {disk}: {', '.join(places)}"


def _primary_rows(report: View) -> list[tuple[str, str | None]]:
    return [
        ("source", report.text("source")),
        ("secondary", _with_connection(report, "secondary")),
        ("mode", report.text("mode")),
        ("gate", gate_words(report)),
        ("replica", report.text("replica_state")),
        *_each(report),
        ("tainted", _tainted(report)),
        ("epochs", _snapshot_words(report.part("epochs"))),
        ("write intent", _intent_words(report.part("write_intent"), report.number("size_bytes") or 0)),
        ("writers", writers_words(report.part("attribution"))),
        ("notice", "; ".join(report.texts("notices"))),
        ("capture", _capture_words(report.part("capture"))),
        ("audit", _audit_words(report.part("audit"))),
        ("verification", verify_words(report.part("verify"))),
        ("unreadable", _places_words(report.part("unreadable"), "the source")),
        ("unwritable", _places_words(report.part("unwritable"), "the target")),
        ("out of sync", _out_of_sync(report)),
        ("lag", _lag(report)),
        ("last in sync", _last_in_sync(report)),
        ("written", _bytes(report, "written_bytes")),
        ("sent", _bytes(report, "sent_bytes")),
        ("sequence", _counts(report.part("sequence"), ("submitted", "acknowledged"))),
        ("transactions", transaction_words(report)),
        ("marks", marks_words(report)),
        ("log", _log_words(report.part("log"))),
        ("lost records", _number(report, "lost_records")),
        ("progress", progress_words(report.part("progress"))),
    ]


def _each(report: View) -> list[tuple[str, str | None]]:
    """A line for each of several secondaries."""
    secondaries = report.parts("secondaries")
    return [(one.text("secondary") or "", one_line(one)) for one in secondaries] if len(secondaries) > 1 else []


def one_line(secondary: View) -> str:
    """The state of one secondary, and its problem."""
    problem = "" if secondary.flag("connected") else secondary.text("connection_problem")
    return f"{summary(secondary)} ({problem})" if problem else summary(secondary)


def _secondary_rows(report: View) -> list[tuple[str, str | None]]:
    connected = report.flag("connected")
    sequence = report.part("sequence")
    return [
        ("target", report.text("target")),
        ("listening at", report.text("listen")),
        ("mode", report.text("mode")),
        ("replica", report.text("replica_state")),
        ("primary", None if connected is None else "connected" if connected else "not connected"),
        ("sequence", _counts(sequence, sequence.names) if sequence else _number(report, "sequence")),
        ("transactions", replica_transaction_words(report)),
        ("marks", replica_marks_words(report)),
        ("size", _bytes(report, "size_bytes") or _bytes(report, "target_bytes")),
        ("unwritable", _places_words(report.part("unwritable"), "the target")),
        ("staged", _bytes(report, "staged_bytes")),
        ("journal", _used(report.part("journal"))),
    ]


def _with_connection(report: View, name: str) -> str | None:
    words, connected = report.text(name), report.flag("connected")
    if words is None or connected is None:
        return words
    return f"{words} ({'connected' if connected else 'not connected'})"


def _tainted(report: View) -> str | None:
    tainted, reasons = report.flag("tainted"), report.texts("taints")
    if tainted is None:
        return None
    return ("yes: " + "; ".join(reasons) if reasons else "yes") if tainted else "no"


def _out_of_sync(report: View) -> str | None:
    words, unacknowledged = _amount(report, "out_of_sync_bytes"), _bytes(report, "unacknowledged_bytes")
    is_some = words is not None and report.number("unacknowledged_bytes")
    return f"{words}, of which {unacknowledged} only wait for their acknowledgement" if is_some else words


def _lag(report: View) -> str | None:
    words, seconds = _amount(report, "lag_bytes"), report.number("lag_seconds")
    return words if words is None or seconds is None else f"{words}, {format_seconds(seconds)}"


def _last_in_sync(report: View) -> str | None:
    if "last_in_sync" not in report:
        return None
    return report.text("last_in_sync") or ("unknown" if _is_unknown(report, "out_of_sync_bytes") else "never")


def _log_words(log: View) -> str | None:
    words = _used(log)
    start, end, active = (_number(log, name) for name in ("start", "end", "active_transactions"))
    if words is not None and start is not None and end is not None:
        words += f", start {start}, end {end}"
    if words is not None and active is not None:
        words += f", {active} open updates"
    return words


def _used(room: View) -> str | None:
    if not room:
        return None
    return f"{format_bytes(room.number('used') or 0)} of {format_bytes(room.number('size') or 0)} used"


def _counts(values: View, names: tuple[str, ...]) -> str | None:
    words = [f"{name} {count}" for name in names if (count := _number(values, name)) is not None]
    return ", ".join(words) or None


def _number(report: View, name: str) -> str | None:
    value = report.whole(name)
    return None if value is None else f"{value:,}"


def _bytes(report: View, name: str) -> str | None:
    value = report.number(name)
    return None if value is None else format_bytes(value)


def _amount(report: View, name: str) -> str | None:
    return UNKNOWN_AMOUNT if _is_unknown(report, name) else _bytes(report, name)


def _is_unknown(report: View, name: str) -> bool:
    return name in report and report.number(name) is None


def _colour(name: str, words: str) -> str:
    if name == "tainted":
        return _GOOD if words == "no" else _BAD
    if name == "state":
        return _GOOD if words.startswith("up to date") else _BAD if words.startswith("REFUSED") else _WAIT
    return _COLOURS.get(words, "") if name in ("mode", "replica") else ""

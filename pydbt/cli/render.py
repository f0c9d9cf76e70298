"""A status for people: rows of words made of the report object, and two ways to print them."""

from __future__ import annotations

from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pydbt.cli.values import format_bytes, format_seconds

Status = dict[str, Any]
Row = tuple[str, str]

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
    "unsynchronized": _BAD,
    "inconsistent": _BAD,
}


def rows(status: Status) -> list[Row]:
    """What there is to say, in order; keys that a status lacks are left out."""
    if status.get("role") == "secondary":
        return _secondary_rows(status)
    return _primary_rows(status)


def print_status(status: Status, stream: TextIO) -> None:
    """Print the rows: coloured on a terminal, plain aligned text otherwise."""
    table = rows(status)
    if stream.isatty():
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


def summary(status: Status) -> str:
    """One line: mode, replica, and how far behind."""
    words = [str(status.get("mode") or "unknown") + _of_several(status)]
    if status.get("replica_state"):
        words.append(f"replica {status['replica_state']}")
    if status.get("tainted"):
        words.append("TAINTED")
    if status.get("out_of_sync_bytes"):
        words.append(f"out of sync {format_bytes(status['out_of_sync_bytes'])}")
    if status.get("lag_bytes"):
        words.append(f"lag {_lag(status)}")
    if status.get("sent_bytes") is not None:
        words.append(f"sent {format_bytes(status['sent_bytes'])}")
    return ", ".join(words)


def _of_several(status: Status) -> str:
    """`` (1 of 3 secondaries)``: how many are in the mode that the volume has for the worst of them."""
    secondaries = status.get("secondaries") or []
    alike = sum(one["mode"] == status.get("mode") for one in secondaries)
    return f" ({alike} of {len(secondaries)} secondaries)" if len(secondaries) > 1 else ""


def progress_words(progress: Status | None) -> str:
    """``34 %, 340 MiB of 1.0 GiB, 12 s left``, or nothing."""
    if not progress or not progress.get("total_bytes"):
        return ""
    done, total = progress.get("done_bytes") or 0, progress["total_bytes"]
    words = f"{min(100 * done // total, 100)} %, {format_bytes(done)} of {format_bytes(total)}"
    eta = progress.get("eta_seconds")
    return words if eta is None else f"{words}, {format_seconds(eta)} left"


def _audit_words(audit: Status | None) -> str:
    """Whether the kernel has counted what capture has seen; nothing when the two agree."""
    if not audit or audit.get("verdict") == "agrees":
        return ""
    return str(audit["verdict"])


def _epoch_words(epochs: Status | None) -> str:
    """``12, one every 10 s at most; the last at ..., frozen 20 ms (80 ms at the worst)``; nothing where writes are followed."""
    if not epochs:
        return ""
    words = f"{epochs['number']:,} in this run, every {epochs['interval_s']:g} s when anything is written"
    if epochs["last"]:
        words += f"; the last of {epochs['last']} ({epochs['kind']})"
    if epochs["frozen_ms_max"]:
        words += f", writers held up {epochs['frozen_ms_last']:g} ms ({epochs['frozen_ms_max']:g} ms at the most)"
    return f"{words}; {epochs['problem']}" if epochs["problem"] else words


def _intent_words(intent: Status | None, size_bytes: int) -> str:
    """``era 23, since ...; after a power loss era 17: 240 MiB of 10 GiB``; nothing where there is none."""
    if not intent:
        return ""
    words = [f"era {intent['era']}, since {intent['since']}" if intent["era"] else "no era is remembered yet"]
    if compared := intent["compared"]:
        words.append(
            f"compared since era {compared['era']}: {format_bytes(compared['bytes'])} of {format_bytes(size_bytes)}"
        )
    return "; ".join([*words, *filter(None, [intent["problem"]])])


def verify_words(verify: Status | None) -> str:
    """``running, 34 %, ...``, or what the last verification found and when; nothing when there was none."""
    if not verify:
        return ""
    running, last = verify.get("running"), verify.get("last")
    if running:
        found = f", {format_bytes(running['differing_bytes'])} differ" if running["differing_bytes"] else ""
        return f"running, {progress_words(running)}{found}"
    if not last or "ended" not in last:
        return ""
    if not last["differing_bytes"]:
        return f"{format_bytes(last['compared_bytes'])} the same on both sides at {last['ended']}"
    fate = "differed and were copied" if last["repaired"] else "DIFFER"
    return (
        f"{format_bytes(last['differing_bytes'])} of {format_bytes(last['compared_bytes'])} {fate}, at {last['ended']}"
    )


def _primary_rows(status: Status) -> list[Row]:
    sequence, log = status.get("sequence") or {}, status.get("log") or {}
    table = [
        ("source", status.get("source")),
        ("secondary", _with_connection(status, "secondary")),
        ("mode", status.get("mode")),
        ("replica", status.get("replica_state")),
        *_each(status),
        ("tainted", _tainted(status)),
        ("epochs", _epoch_words(status.get("epochs"))),
        ("write intent", _intent_words(status.get("write_intent"), status.get("size_bytes") or 0)),
        ("audit", _audit_words(status.get("audit"))),
        ("verification", verify_words(status.get("verify"))),
        ("out of sync", _bytes(status, "out_of_sync_bytes")),
        ("lag", _lag(status)),
        ("last in sync", status.get("last_in_sync") or ("never" if "last_in_sync" in status else None)),
        ("written", _bytes(status, "written_bytes")),
        ("sent", _bytes(status, "sent_bytes")),
        ("sequence", _counts(sequence, ("submitted", "acknowledged"))),
        ("log", _log_words(log)),
        ("lost records", _number(status.get("lost_records"))),
        ("progress", progress_words(status.get("progress"))),
    ]
    return [(name, str(words)) for name, words in table if words not in (None, "")]


def _each(status: Status) -> list[tuple[str, str]]:
    """A line for each of several secondaries."""
    secondaries = status.get("secondaries") or []
    return [(one["secondary"], one_line(one)) for one in secondaries] if len(secondaries) > 1 else []


def one_line(secondary: Status) -> str:
    """How one secondary stands, and what is wrong with it."""
    problem = "" if secondary.get("connected") else secondary.get("connection_problem")
    return f"{summary(secondary)} ({problem})" if problem else summary(secondary)


def _secondary_rows(status: Status) -> list[Row]:
    connected = status.get("connected")
    sequence = status.get("sequence")
    table = [
        ("target", status.get("target")),
        ("listening at", status.get("listen")),
        ("mode", status.get("mode")),
        ("replica", status.get("replica_state")),
        ("primary", None if connected is None else "connected" if connected else "not connected"),
        ("sequence", _counts(sequence, tuple(sequence)) if isinstance(sequence, dict) else _number(sequence)),
        ("size", _first_bytes(status, "size_bytes", "target_bytes")),
        ("staged", _bytes(status, "staged_bytes")),
        ("journal", _used(status.get("journal"))),
    ]
    return [(name, str(words)) for name, words in table if words not in (None, "")]


def _with_connection(status: Status, key: str) -> str | None:
    if status.get(key) is None:
        return None
    if status.get("connected") is None:
        return str(status[key])
    return f"{status[key]} ({'connected' if status['connected'] else 'not connected'})"


def _tainted(status: Status) -> str | None:
    tainted = status.get("tainted")
    if tainted is None:
        return None
    if isinstance(tainted, list):
        return "; ".join(map(str, tainted)) or "no"
    reasons = status.get("taints") or []
    return ("yes: " + "; ".join(map(str, reasons)) if reasons else "yes") if tainted else "no"


def _lag(status: Status) -> str | None:
    if status.get("lag_bytes") is None:
        return None
    seconds = status.get("lag_seconds")
    return format_bytes(status["lag_bytes"]) + ("" if seconds is None else f", {format_seconds(seconds)}")


def _log_words(log: Status) -> str | None:
    words = _used(log)
    if not words or not log:
        return None
    if "start" in log and "end" in log:
        words += f", start {log['start']:,}, end {log['end']:,}"
    if "active_transactions" in log:
        words += f", {log['active_transactions']:,} active transactions"
    return words


def _used(room: Any) -> str | None:
    if not isinstance(room, dict):
        return None
    return f"{format_bytes(room.get('used') or 0)} of {format_bytes(room.get('size') or 0)} used"


def _counts(values: Status, names: tuple[str, ...]) -> str | None:
    words = [f"{name} {values[name]:,}" for name in names if isinstance(values.get(name), int)]
    return ", ".join(words) or None


def _number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _bytes(status: Status, key: str) -> str | None:
    value = status.get(key)
    return format_bytes(value) if isinstance(value, int | float) else None


def _first_bytes(status: Status, *keys: str) -> str | None:
    return next((words for key in keys if (words := _bytes(status, key))), None)


def _colour(name: str, words: str) -> str:
    if name == "tainted":
        return _GOOD if words == "no" else _BAD
    return _COLOURS.get(words, "") if name in ("mode", "replica") else ""

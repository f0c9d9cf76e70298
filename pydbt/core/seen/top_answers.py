"""What a volume's controller answers to *events*, *writers* and *io*, as a few lines of a terminal.

It may be of another version, or not know the question: what is not there is left out, and never made up.
"""

from __future__ import annotations

from enum import StrEnum

from pydbt.core.seen.io_names import OPERATIONS
from pydbt.core.seen.terminal import UNKNOWN_WORDS, WORDS_CHARACTERS_MAX, Styled, shortened
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes

EVENTS_SHOWN = 8
WRITERS_SHOWN = 6
ATTACHING_WORDS = "the observing programs are being attached: figures come within seconds"


class Section(StrEnum):
    """A part of the details that has to be asked for. The value is the command."""

    EVENTS = "events"
    WRITERS = "writers"
    IO = "io"


_HEADINGS = {
    Section.EVENTS: "newest events",
    Section.WRITERS: "who writes",
    Section.IO: "block I/O of the last second",
}


def section_lines(section: Section, answer: object, problem: str) -> list[Styled]:
    """With its heading. ``answer`` is None as long as there is none; ``problem``: why there is none."""
    heading = Styled("heading", _HEADINGS[section])
    if problem or answer is None:
        return [heading, Styled("", f"  {problem or 'asking ...'}")]
    told = View(answer)
    waits = told.text("problem") or (ATTACHING_WORDS if told.flag("starting") else "")
    if waits:
        return [heading, Styled("", f"  {shortened(waits, WORDS_CHARACTERS_MAX)}")]
    lines = _LINES[section](told)
    return [heading, *(Styled("", f"  {line}") for line in lines or ["none"])]


def events_request(known: object) -> dict[str, object]:
    """The question for the events behind those that are known: not for all of them each time."""
    return {"command": "events", "since": View(known).whole("next") or 0, "timeout": 0}


def with_new_events(known: object, answer: dict[str, object]) -> dict[str, object]:
    """The newest events by both answers. After a new start of the controller its numbers begin anew, and are asked for anew."""
    before, now = View(known), View(answer)
    if before and before.values.get("run") != now.values.get("run"):
        return {"events": [], "run": now.values.get("run")}
    events = [*before.parts("events"), *now.parts("events")]
    return {**answer, "events": [event.values for event in events[-EVENTS_SHOWN:]]}


def _event_lines(answer: View) -> list[str]:
    events = answer.parts("events")[-EVENTS_SHOWN:]
    return [
        f"{shortened(one.text('moment') or UNKNOWN_WORDS)}  {shortened(one.text('name') or '')}: "
        f"{shortened(one.text('words') or '', WORDS_CHARACTERS_MAX)}"
        for one in reversed(events)
    ]


def _writer_lines(answer: View) -> list[str]:
    """Those that write most now. *Dirtied* is in memory, *written* reached the device."""
    rows = sorted(answer.parts("processes"), key=lambda row: -(row.number("written_rate_bytes") or 0))
    shown = [_writer(row) for row in rows[:WRITERS_SHOWN]]
    files = sorted(answer.parts("files"), key=lambda row: -(row.number("written_rate_bytes") or 0))
    sampled = ["in samples, because much is written: each written byte counts, some for a neighbour"]
    excess = answer.number("excess_bytes")
    twice = f"counted twice: {format_bytes(excess)} more than was captured, which is a fault"
    return [
        *([twice] if excess else []),
        *shown,
        *(_of_file(row) for row in files[: WRITERS_SHOWN // 2]),
        *(sampled if answer.flag("sampled") else []),
    ]


def _of_file(row: View) -> str:
    return f"file {_writer(row)}" if row.text("kind") == "file" else _writer(row)


def _writer(row: View) -> str:
    process = row.whole("process")
    name = shortened(row.text("name") or UNKNOWN_WORDS)
    who = f"{name} ({process})" if process else name
    written, dirtied = row.number("written_rate_bytes"), row.number("dirtied_rate_bytes")
    group = shortened(row.text("group") or "")
    return f"{who}: written {format_bytes(written)}/s, dirtied {format_bytes(dirtied)}/s{f', {group}' if group else ''}"


def _io_lines(answer: View) -> list[str]:
    now = answer.part("now")
    lines = []
    for name in OPERATIONS:
        one = now.part(name)
        if not one.number("per_second"):
            continue
        latency = one.part("latency_ns").part("total")
        times = [f"{label} {_latency(latency.number(key))}" for key, label in (("p50", "half"), ("p99", "99 %"))]
        rate = f"{one.number('per_second') or 0:,.0f} per second, {format_bytes(one.number('bytes_per_second'))}/s"
        lines.append(f"{name:<8}{rate}, {', '.join(times)}, at most {_latency(latency.number('max'))}")
    every = answer.whole("timed_every") or 1
    return [*lines, f"the time of one I/O in {every} is taken, and all are counted"] if lines and every > 1 else lines


def _latency(nanoseconds: float | None) -> str:
    if nanoseconds is None:
        return UNKNOWN_WORDS
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1000:.0f} µs"
    return (
        f"{nanoseconds / 1_000_000:.1f} ms" if nanoseconds < 1_000_000_000 else f"{nanoseconds / 1_000_000_000:.1f} s"
    )


_LINES = {Section.EVENTS: _event_lines, Section.WRITERS: _writer_lines, Section.IO: _io_lines}

"""The views of a trace: what fits on a small screen, and no text of others that does something there."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from pydbt.cli.tracing import outputs
from pydbt.cli.tracing.outputs import JsonLines, Lines, Screen, SummaryAlone
from pydbt.core.seen.io_meaning import FileId, IoFlag
from pydbt.core.seen.io_record import IO_RECORD
from pydbt.core.seen.io_recording import TraceBegin
from pydbt.core.seen.io_summary import IoSummary
from tests.core.seen.records import FLUSH, READ, record, records

BEGIN = TraceBegin("/dev/vdb", 1 << 30, 0)
SOME = records(
    *(record(process=number, name=b"\x1b[2J[red]x", inode=number, sector=8 * number) for number in range(1, 60)),
    record(operation=READ, flags=IoFlag.NO_SUBMITTER),
    record(operation=FLUSH, bytes=0),
)
NONE = np.zeros(0, IO_RECORD)


def no_name(file: FileId) -> str | None:
    return "/srv/[bold]\x1b]0;x\x07" if file.inode % 2 else None


def summed(some: np.ndarray) -> IoSummary:
    summary = IoSummary()
    summary.add(some)
    return summary


@pytest.mark.parametrize("width, height", [(80, 24), (40, 10), (200, 60)])
def test_the_screen_fits_and_shows_hostile_names_as_text(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    shown = io.StringIO()
    console = Console(
        file=shown, width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False
    )
    monkeypatch.setattr(outputs, "Console", lambda: console)
    monkeypatch.setattr(outputs, "_REFRESH_S", 0.0)
    screen = Screen(TraceBegin("/dev/vdb\x1b[2J\x07", 1 << 30, 0), no_name)
    try:
        shown.truncate(0)
        screen.show(SOME, 3)
        frame = shown.getvalue()
    finally:
        screen.close()
    text = frame.replace("\x1b[H", "")
    lines = [line for line in text.split("\n")]
    assert len(lines) <= height, "a screen that scrolls is not to be read"
    assert "\x1b" not in text and "\x07" not in text
    if width >= 80:
        assert "/dev/vdb" in text and "LOST" in text and "\\x1b[2J[red]x" in text
        assert "p99.9" in text and "write" in text and "process" in text
        last = lines[-1].split()
        assert "us" in last and "10" in last, "the latency of the last I/O has its place"


def test_a_trace_without_any_io_ends_with_a_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        outputs, "Console", lambda: Console(file=io.StringIO(), width=80, height=24, force_terminal=True)
    )
    screen = Screen(BEGIN, no_name)
    screen.show(NONE, 0)
    screen.end(IoSummary(), 1.0, 0)
    assert capsys.readouterr().out == "0 I/Os in 1.00 s\n"


def test_lines_tell_what_was_lost_where_it_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(BEGIN, no_name)
    lines.show(SOME[:1], 0)
    lines.show(NONE, 5)
    lines.show(SOME[1:2], 5)
    lines.end(summed(SOME[:2]), 1.0, 5)
    shown = capsys.readouterr().out
    assert shown.count("LOST") == 2 and "(5 I/Os were LOST here" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert shown.index("inode") > shown.index("/srv/[bold]\\x1b")


def test_json_lines_are_objects_and_the_last_one_is_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines(BEGIN, no_name, summary_only=False)
    lines.show(SOME[:3], 0)
    lines.show(NONE, 2)
    lines.end(summed(SOME[:3]), 1.0, 2)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [*map(len, told[:3])] == [16] * 3 and told[3] == {"lost": 2} and told[4]["summary"]["count"] == 3


def test_a_summary_alone_comes_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    for output in (SummaryAlone(no_name), JsonLines(BEGIN, no_name, summary_only=True)):
        output.show(SOME, 1)
        assert capsys.readouterr().out == ""
        output.end(summed(SOME), 1.0, 1)
        assert "61" in capsys.readouterr().out

"""Sizes, times, statuses and progress read the way people expect."""

from __future__ import annotations

import io
import logging
import os
import pty
import select

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.cli.progress import ProgressReporter
from pydbt.cli.render import print_status, rows, summary
from pydbt.cli.values import parse_size
from pydbt.core.errors import UsageError
from pydbt.core.seen.headline import progress_words
from pydbt.core.seen.view import View
from pydbt.core.units import GIB, KIB, MIB, format_bytes, format_seconds
from tests.cli.conftest import STATUS

SYNC = {
    **STATUS,
    "mode": "resynchronizing",
    "replica_state": "outdated",
    "out_of_sync_bytes": 600 * MIB,
    "progress": {"done_bytes": 400 * MIB, "total_bytes": GIB, "eta_seconds": 75.0},
}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512", 512),
        ("4k", 4 * KIB),
        ("4K", 4 * KIB),
        ("64M", 64 * MIB),
        ("64MiB", 64 * MIB),
        ("64MB", 64_000_000),
        ("1.5G", 3 * GIB // 2),
        ("2T", 2048 * GIB),
        (" 10 M ", 10 * MIB),
        ("2048s", MIB),
        ("7B", 7),
    ],
)
def test_sizes_as_people_write_them(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "M", "-1", "1e6", "0x10", "1,5G", "1 000", "12Q", "1..5M", "٣"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@settings(deadline=None)
@given(st.text(max_size=10))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        assert "is no size" in str(error) or "is too large" in str(error)


@pytest.mark.parametrize(
    "text", ["16777216T", "99999999999P", "9" * 90 + "P", "9" * 400, "9" * 5000 + "M", "1." + "0" * 5000]
)
def test_no_size_is_larger_than_what_is_counted_in_64_bits(text: str) -> None:
    with pytest.raises(ValueError, match=r"is too large|is no size"):
        parse_size(text)
    assert parse_size("16777215T") < 1 << 64


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (999 * KIB, "999 KiB"), (GIB, "1.0 GiB"), (5 << 50, "5120 TiB")],
)
def test_sizes_for_people(size_bytes: int, words: str) -> None:
    assert format_bytes(size_bytes) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (10.4, "10 s"), (125, "2 min 5 s"), (7260, "2 h 1 min"), (200_000, "2 d 7 h")],
)
def test_durations_for_people(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


def test_a_primarys_status_says_everything_that_matters() -> None:
    table = dict(rows(View(SYNC)))
    assert table["mode"] == "resynchronizing" and table["replica"] == "outdated" and table["tainted"] == "no"
    assert table["out of sync"] == "600 MiB" and table["lag"] == "20.0 KiB, 0.2 s"
    assert table["last in sync"] == "2026-01-02T03:04:05Z"
    assert table["log"] == "640 B of 1.0 MiB used, start 10, end 20, 5 open updates"
    assert table["progress"] == "39 %, 400 MiB of 1.0 GiB, 75 s left"
    assert table["lost records"] == "0" and "source" not in table


def test_a_taint_is_never_overlooked() -> None:
    tainted = {**STATUS, "tainted": True, "taints": ["an unknown operation wrote"]}
    assert dict(rows(View(tainted)))["tainted"] == "yes: an unknown operation wrote"
    assert "TAINTED" in summary(View(tainted))


def several() -> dict:
    """A status with three secondaries, one of which lags behind and has no connection."""
    base = {**STATUS, "connected": True, "connection_problem": ""}
    lags = {"mode": "unsynchronized", "replica_state": "outdated", "connected": False, "connection_problem": "no route"}
    secondaries = [{**base, "secondary": "a:1"}, {**base, "secondary": "b:2", **lags}, {**base, "secondary": "c:3"}]
    taint = {"tainted": True, "taints": ["an unknown operation wrote"], "replica_state": "inconsistent"}
    return {**base, **lags, **taint, "secondary": "a:1, b:2, c:3", "secondaries": secondaries}


def test_each_of_several_secondaries_has_a_line_of_its_own() -> None:
    status = several()
    assert summary(View(status)).startswith("unsynchronized (1 of 3 secondaries), replica inconsistent, TAINTED")
    table = dict(rows(View(status)))
    assert table["a:1"].startswith("normal, replica up-to-date") and table["b:2"].endswith("(no route)")


def test_the_bytes_to_compare_after_a_power_loss_are_told() -> None:
    def kept(era: int | None, compared: dict | None = None, problem: str = "") -> dict:
        return {"era": era, "since": "2026-01-02T03:04:05+00:00", "compared": compared, "problem": problem}

    words = dict(
        rows(View({**STATUS, "size_bytes": 10 * GIB, "write_intent": kept(23, {"era": 17, "bytes": 240 * MIB})}))
    )
    assert (
        words["write intent"] == "era 23, since 2026-01-02T03:04:05+00:00; compared since era 17: 240 MiB of 10.0 GiB"
    )
    words = dict(rows(View({**STATUS, "write_intent": kept(None, problem="dmsetup failed")})))
    assert words["write intent"] == "no era is remembered yet; dmsetup failed"
    assert "write intent" not in dict(rows(View(several())))


def test_a_single_secondary_is_not_counted() -> None:
    (one, *_) = several()["secondaries"]
    assert "secondaries" not in summary(View({**one, "secondaries": [one]}))


def test_a_volume_never_in_sync_says_never() -> None:
    assert dict(rows(View({**STATUS, "last_in_sync": None})))["last in sync"] == "never"


def test_a_secondarys_status_is_told_from_its_own_side() -> None:
    status = {
        "role": "secondary",
        "mode": "normal",
        "replica_state": "consistent",
        "connected": False,
        "target": "/dev/vdb",
        "sequence": 7,
        "staged_bytes": 2 * MIB,
        "journal": {"used": MIB, "size": GIB},
        "size_bytes": GIB,
    }
    table = dict(rows(View(status)))
    assert table["target"] == "/dev/vdb" and table["primary"] == "not connected" and table["sequence"] == "7"
    assert table["size"] == "1.0 GiB" and table["staged"] == "2.0 MiB"
    assert table["journal"] == "1.0 MiB of 1.0 GiB used"


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(STATUS)), st.none()))
def test_a_status_with_holes_is_still_printed(holes: dict[str, None]) -> None:
    stream = io.StringIO()
    print_status(View({**SYNC, **holes}), stream)
    assert summary(View({**SYNC, **holes}))
    print_status(View({}), stream)
    assert progress_words(View({"done_bytes": None, "total_bytes": 10, "eta_seconds": None})) == "0 %, 0 B of 10 B"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_of_the_log_comes_with_each_change_and_now_and_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream, clock = io.StringIO(), Clock()
    caplog.set_level(logging.INFO)
    with ProgressReporter(stream, clock) as progress:
        for done in range(100):
            clock.now += 0.5
            progress.update(View({**SYNC, "progress": {**SYNC["progress"], "done_bytes": done * MIB}}))
        progress.update(View(STATUS))
        for _ in range(100):
            clock.now += 1
            progress.update(View({**STATUS, "sent_bytes": STATUS["sent_bytes"] + int(clock.now)}))
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if line.startswith("resynchronizing")]) == 5
    assert lines[-1].startswith("normal, replica up-to-date")
    assert len(lines) == 6
    assert stream.getvalue() == "", "of one form with the rest of the log"


def test_a_burst_that_ends_mode_normal_for_a_moment_is_no_line(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    caplog.set_level(logging.INFO)
    with ProgressReporter(io.StringIO(), clock) as progress:
        progress.update(View(STATUS))
        for _ in range(20):
            clock.now += 1
            progress.update(View(SYNC))
            clock.now += 1
            progress.update(View(STATUS))
        assert len(caplog.records) == 1
        for _ in range(5):
            clock.now += 1
            progress.update(View(SYNC))
    modes = [record.getMessage().split(",")[0] for record in caplog.records]
    assert modes == ["normal", "resynchronizing"]


def test_on_a_terminal_one_line_is_kept_up_to_date() -> None:
    leader, follower = pty.openpty()
    clock = Clock()
    with os.fdopen(follower, "w") as stream:
        with ProgressReporter(stream, clock) as progress:
            for _ in range(3):
                progress.update(View(SYNC))
                clock.now += 1
        stream.flush()
        shown = b""
        while b"39 %" not in shown and select.select([leader], [], [], 10)[0]:
            shown += os.read(leader, 65536)  # a terminal hands over what it has, in pieces
    os.close(leader)
    assert b"39 %" in shown and b"resynchronizing" in shown and b"\x1b" in shown


def test_wrong_choices_are_worded_for_the_command_line() -> None:
    from pathlib import Path

    from pydbt.controller.options import PrimaryOptions, SecondaryOptions

    with pytest.raises(UsageError, match="--assume-in-sync"):
        PrimaryOptions(Path("/dev/x"), (("h", 1),), Path("/s"), assume_in_sync=True, whole_device=True)
    with pytest.raises(UsageError, match="--listen names port 65536"):
        SecondaryOptions(Path("/x"), "h", 65536, Path("/s"))

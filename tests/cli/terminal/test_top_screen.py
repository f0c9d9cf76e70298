"""The screen of ``controller top`` on a real pseudo terminal, as a person sees it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pydbt.core.seen.sight import Asked, sight_of
from tests.lab.terminal import Terminal, terminal

NOW = datetime(2026, 1, 2, 4, 4, 5, tzinfo=UTC)
STATUS: dict[str, Any] = {
    "running": True, "role": "primary", "source": "/dev/vdb", "mode": "normal", "replica_state": "up-to-date",
    "connected": True, "lag_seconds": 0.2, "out_of_sync_bytes": 8192, "unacknowledged_bytes": 8192, "write_rate_bytes": 1000,
    "last_in_sync": "2026-01-02T03:04:05Z", "queue": {"size": 1 << 20, "used": 1 << 18}, "log": {"size": 1 << 20, "used": 0},
    "secondaries": [{"secondary": "10.0.0.2:7790", "connected": True, "mode": "normal", "replica_state": "up-to-date"}],
}  # fmt: skip
COPYING: dict[str, Any] = {
    "mode": "resynchronizing", "replica_state": "outdated", "out_of_sync_bytes": 1 << 30,
    "progress": {"done_bytes": 1 << 30, "total_bytes": 4 << 30, "rate_bytes": 1 << 20, "eta_seconds": 40.0},
}  # fmt: skip


def seen(name: str, age_seconds: float = 0.1, **changes: Any) -> dict[str, Any]:
    asked = Asked({**STATUS, **changes}, age_seconds, "", 2000.0)
    return sight_of(asked, f"{abs(hash(name)):016x}"[:16], "alpha", name, NOW).to_json()


class Stage:
    """What the player shows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def play(self, *volumes: dict[str, Any], answers: dict[str, Any] | None = None, **machine: Any) -> None:
        known = {"name": "alpha", "reachable": True, "problem": "", "heard_seconds": 0.0, "volumes": list(volumes)}
        self._put({"machines": [{**known, **machine}], "answers": answers or {}})

    def halt(self) -> None:
        """No further picture comes."""
        self._put({**json.loads(self.path.read_text()), "halted": True})

    def fail(self, words: str) -> None:
        self._put({"fail": words})

    def _put(self, told: dict[str, Any]) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(told))
        os.replace(beside, self.path)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path / "machines.json")
    made.play(
        seen("data"), seen("logs", mode="unsynchronized", connected=False, connection_problem="no route to 10.0.0.2")
    )
    return made


@contextlib.contextmanager
def playing(
    stage: Stage, *words: str, columns: int = 80, rows: int = 24, interval_s: float = 0.1, **environment: str
) -> Iterator[Terminal]:
    program = [sys.executable, "-m", "tests.cli.terminal.player", str(stage.path), str(interval_s), *words]
    with terminal(program, columns=columns, rows=rows, **environment) as shown:
        yield shown


def test_each_volume_has_a_line_with_word_and_shape_and_the_worst_is_first_and_in_full(stage: Stage) -> None:
    with playing(stage) as shown:
        text = shown.until_shown("more of logs")
        lines = text.splitlines()
        assert "2 volumes: 1 bad, 1 good" in lines[0]
        assert lines[2].startswith("▲ bad") and "logs" in lines[2] and "unsynchronized" in lines[2]
        assert lines[3].startswith("● good") and "data" in lines[3] and "0.2 s" in lines[3]
        assert "no route to 10.0.0.2" in text and "? keys" in lines[-1]
        assert max(map(len, lines)) <= 80


def test_unacknowledged_stands_beside_out_of_sync(stage: Stage) -> None:
    stage.play(seen("data", out_of_sync_bytes=5 << 20))
    with playing(stage) as shown:
        shown.until_shown("more of data")
        assert re.search(r"data +normal +5\.0 MiB +8\.0 KiB", shown.text)


def test_the_keys_select_a_volume_and_its_details_are_shown(stage: Stage) -> None:
    with playing(stage) as shown:
        shown.until_shown("more of logs")
        for keys, name in (
            ("j", "data"),
            ("k", "logs"),
            ("\x1b[B", "data"),
            ("\x1b[A", "logs"),
            ("\x1b[F", "data"),
            ("\x1b[H", "logs"),
        ):
            shown.type(keys)
            shown.until_shown(f"more of {name}")
        shown.type("?")
        shown.until_shown("KEYS")
        shown.type("?")
        shown.until_shown("more of logs")
        shown.type("\r")
        shown.until(lambda text: "VOLUME" in text and "● good" not in text, "the details alone")
        shown.type("\r")
        shown.until_shown("● good")
        shown.type("s")
        shown.until(lambda text: text.index("data") < text.index("logs "), "by name")
        shown.type("q")
        assert shown.end() == 0


def test_the_open_details_are_asked_of_the_selected_volumes_controller(stage: Stage) -> None:
    event = {"number": 1, "moment": "2026-01-02T03:04:05Z", "name": "in_sync", "words": "in sync again after 4 s"}
    writer = {"name": "postgres", "process": 7, "written_rate_bytes": 5 << 20, "dirtied_rate_bytes": 1 << 20}
    stage.play(seen("data"), answers={"events": {"events": [event]}, "writers": {"processes": [writer]}})
    with playing(stage) as shown:
        shown.until(lambda text: "more of data" in text and "in sync again" not in text, "nothing is asked by itself")
        shown.type("e")
        shown.until_shown("in_sync: in sync again after 4 s")
        shown.type("w")
        shown.until_shown("postgres (7): written 5.0 MiB/s")
        shown.type("i")
        shown.until_shown("no such command: io")
        for key in "ewi":
            shown.type(key)
        shown.until(lambda text: "postgres" not in text and "newest events" not in text, "closed")
        assert shown.text.count("more of data") == 1


def test_a_selection_stays_on_its_volume_when_the_order_changes(stage: Stage) -> None:
    with playing(stage) as shown:
        shown.until_shown("more of logs")
        shown.type("j")
        shown.until_shown("more of data")
        stage.play(seen("data", tainted=True), seen("logs"))
        shown.until(lambda text: text.splitlines()[2].startswith("▲ bad") and "more of data" in text, "data on top")


def test_a_copy_has_a_bar_a_percentage_and_a_forecast(stage: Stage) -> None:
    stage.play(seen("data", **COPYING))
    with playing(stage) as shown:
        text = shown.until_shown("more of data")
        assert "copying 25 %" in text and "in sync in 40 s" in text
        bar = next(line for line in text.splitlines() if "█" in line)
        assert bar.count("█") * 3 <= bar.count("░") <= bar.count("█") * 3 + 3


def test_a_status_that_is_old_is_stale_and_nothing_of_it_looks_present(stage: Stage) -> None:
    stage.play(seen("data", age_seconds=42.0))
    with playing(stage) as shown:
        text = shown.until_shown("more of data")
        row = text.splitlines()[2]
        assert row.startswith("? unknown") and "STALE 42 s" in row and row.count("unknown") >= 4
        assert "STALE" in text.splitlines()[6] or "STALE: the controller does not answer" in text
        assert "● good" not in text


def test_pictures_that_stop_coming_make_everything_stale(stage: Stage) -> None:
    """The process that takes the pictures may fail in any way: the screen does not stay green."""
    stage.play(seen("data"))
    with playing(stage) as shown:
        shown.until_shown("● good")
        stage.halt()
        shown.until(lambda text: "● good" not in text and "STALE" in text, "stale")


def test_a_machine_that_is_not_reached_is_named(stage: Stage) -> None:
    stage.play(seen("data", age_seconds=9.0), reachable=False, problem="no route to host", name="beta")
    with playing(stage, columns=120) as shown:
        shown.until_shown("beta is not reached: no route to host")


def test_nothing_is_written_while_nothing_changes(stage: Stage) -> None:
    """Over a slow line only a change costs anything."""
    with playing(stage) as shown:
        shown.until_shown("more of logs")
        shown.until_quiet()
        before = len(shown.sent)
        shown.read(1.0)
        assert len(shown.sent) == before, "ten pictures that are the same"
        stage.play(seen("data", lag_seconds=0.7), seen("logs", mode="unsynchronized", connected=False))
        shown.until_shown("0.7 s")
        assert len(shown.sent) - before < 1500, "a whole screen has 1920 cells"


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (132, 50), (20, 4), (10, 2)])
def test_any_size_is_drawn_and_a_change_of_it_is_followed(stage: Stage, columns: int, rows: int) -> None:
    with playing(stage, columns=columns, rows=rows) as shown:
        shown.until(lambda text: bool(text.strip()), "something")
        shown.resize(100, 30)
        text = shown.until(lambda text: "WRITTEN/s" in text and "? keys" in text.splitlines()[-1], "the larger size")
        assert "WIRE/s" not in text
        shown.resize(columns, rows)
        shown.until(lambda text: "WRITTEN/s" not in text or columns > 100, "the size of before")
        shown.type("q")
        assert shown.end() == 0


@pytest.mark.parametrize(
    ("words", "environment"), [(["plain"], {"LC_ALL": "C"}), ([], {})], ids=["ASCII alone", "UTF-8"]
)
def test_without_colours_the_screen_has_none_and_words_and_shapes_tell_the_same(
    stage: Stage, words: list[str], environment: dict[str, str]
) -> None:
    with playing(stage, "mono", *words, **environment) as shown:
        text = shown.until_shown("more of logs")
        assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;)[0-9;]*m", shown.sent)
        assert ("! bad" in text and "+ good" in text and text.isascii()) if words else "▲ bad" in text


HOSTILE = "\x1b[2J\x1b]0;owned\x07 <b>\n\u202e{evil} 漢字漢字 e\u0301" + "x" * 4096


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_hostile_names_neither_move_the_cursor_nor_break_the_table(stage: Stage, locale: str) -> None:
    wide = [seen("漢字" * length + "e\u0301\u200b" * 9, connected=False) for length in (2, 3, 20, 21)]
    stage.play(seen(HOSTILE, source=HOSTILE, connection_problem=HOSTILE, connected=False), seen("data"), *wide)
    words = [] if locale == "C.UTF-8" else ["plain"]
    with playing(stage, *words, LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") as shown:
        text = shown.until(lambda text: "? keys" in text and "\\x1b[2J" in text, "the name, escaped")
        assert shown.screen.title == "" and b"\x1b]0" not in shown.sent and b"\x07" not in shown.sent
        assert "good" in text.splitlines()[7] and "data" in text.splitlines()[7]
        for _ in range(5):
            shown.type("j")
        shown.until_shown("more of data")
        shown.type("q")
        assert shown.end() == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143), (None, 0)], ids=str
)
def test_the_terminal_is_restored_however_it_ends(stage: Stage, number: int | None, code: int) -> None:
    with playing(stage) as shown:
        shown.until_shown("more of logs")
        assert shown.settings != shown.settings_before, "keys come one by one"
        if number is None:
            shown.type("q")
        assert shown.end(number) == code
        restored(shown)


def restored(shown: Terminal) -> None:
    assert shown.settings == shown.settings_before
    sent = bytes(shown.sent)
    switches = re.findall(rb"\x1b\[\?(?:1049|47)([hl])", sent)  # the one or the other by urwid's version
    assert switches[0] == b"h" and switches[-1] == b"l", "the screen of before"
    assert sent.rindex(b"\x1b[?25h") > sent.rindex(b"\x1b[?25l"), "the cursor"


def test_ctrl_c_is_typed_like_a_key(stage: Stage) -> None:
    with playing(stage) as shown:
        shown.until_shown("more of logs")
        shown.type("\x03")
        assert shown.end() == 130
        restored(shown)


def test_the_terminal_is_restored_when_something_fails(stage: Stage) -> None:
    with playing(stage) as shown:
        shown.until_shown("more of logs")
        stage.fail("made to fail")
        assert shown.end() == 1
        restored(shown)
        assert re.search(rb"\[\?(1049|47)l.*made to fail", shown.sent, re.DOTALL), "it is told where it can be read"


def test_ctrl_z_gives_the_terminal_back_and_it_is_drawn_again_afterwards(stage: Stage) -> None:
    with playing(stage) as shown:
        shown.until_shown("more of logs")
        shown.until_quiet()
        os.kill(shown.process, signal.SIGTSTP)
        while os.waitpid(shown.process, os.WUNTRACED | os.WNOHANG)[0] == 0:
            shown.read(0.05)
        shown.until_quiet()
        restored(shown)
        shown.screen.reset()
        os.kill(shown.process, signal.SIGCONT)
        shown.until_shown("more of logs")
        shown.type("q")
        assert shown.end() == 0

"""Every line of the log has one form: when, how grave, of which volume, and what; and nothing from outside can forge one."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.cli.commands import wait as wait_command
from pydbt.cli.logs import LineFormat, configure_logging, error_prefix, name_lines
from pydbt.core.errors import TimedOut
from pydbt.core.seen.advance import Advance
from tests.cli.conftest import STATUS, FakeController
from tests.lab.patience import PATIENCE_S
from tests.lab.programs import PROGRAM, ROOT, Outcome, command


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    logger = logging.getLogger()
    before = list(logger.handlers), logger.level
    yield
    logger.handlers[:], level = before
    logger.setLevel(level)


def line(words: str, level: int = logging.INFO, *, journal: bool = False, volume: str = "") -> str:
    form = LineFormat(tracebacks=True, journal=journal)
    form.volume = volume
    return form.format(logging.LogRecord("pydbt", level, "", 0, "%s", (words,), None))


def test_a_line_has_time_level_volume_and_words() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning vg/data: it is gone",
                        line("it is gone", logging.WARNING, volume="vg/data"))  # fmt: skip


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)]
)
def test_for_the_journal_a_line_has_its_priority_and_no_time(level: int, priority: int) -> None:
    assert line("it is gone", level, journal=True, volume="vda3") == f"<{priority}>vda3: it is gone"


def test_each_line_of_a_traceback_has_its_priority_in_the_journal() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.LogRecord("pydbt", logging.ERROR, "", 0, "it failed", (), sys.exc_info())
    lines = LineFormat(tracebacks=True, journal=True).format(record).split("\n")
    assert len(lines) > 2 and all(text.startswith("<3>") for text in lines)


def test_no_text_from_outside_ends_a_line_or_steers_a_terminal() -> None:
    for journal in (False, True):
        shown = line("no: \n<6>normal: in sync\x1b[2J\r\x9b0m\u2028", journal=journal)
        assert shown.isprintable() and "\\x1b[2J" in shown, shown


def test_the_place_of_a_process_is_named_in_each_of_its_lines() -> None:
    configure_logging(debug=False)
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler.formatter, LineFormat)
    for place, name in (("/dev/vda3", "vda3"), ("/dev/vg/data", "vg/data"), ("/srv/replica.img", "replica.img"),
                        ("/srv/a\nb", "a\\x0ab")):  # fmt: skip
        name_lines(place)
        assert handler.formatter.volume == name


def test_the_journal_is_recognized_by_device_and_inode_of_stderr(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert error_prefix(stream) == "<3>"
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert error_prefix(stream) == ""
    assert error_prefix(io.StringIO()) == ""


def test_a_service_under_the_journal_gives_each_line_its_priority(tmp_path, disk: str) -> None:
    """Its own lines, and the sentence that ends it."""
    log = tmp_path / "log"
    with log.open("w") as stream:
        status = os.fstat(stream.fileno())
        done = subprocess.run(
            [*PROGRAM, "run", disk, "--secondary", "unix:/nonexistent/s", "--no-wait", "--state", tmp_path / "state"],
            cwd=ROOT, stderr=stream, env={**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
        )  # fmt: skip
    assert done.returncode == 5
    assert all(re.match(r"<[3467]>", text) for text in log.read_text().splitlines()), log.read_text()


def wait_that_is_over_when_it_has_told(words: str, disk: str, controller: FakeController, **answer: object) -> Outcome:
    """It ends when the command has printed a line with these words. Before that it may say that no status came in time."""
    over, lines = threading.Event(), []
    controller.on_command["wait"] = lambda: {"ended": over.wait(PATIENCE_S), **answer}
    pipe = subprocess.PIPE
    process = subprocess.Popen([*PROGRAM, "wait", disk], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stderr is not None
        for told in process.stderr:
            if "gave no answer within 10 s, so it is unknown what for" not in told:
                lines.append(told)
            if words in told:
                break
        over.set()
        output, rest = process.communicate(timeout=PATIENCE_S)
    finally:
        over.set()
        process.kill()
    return Outcome(process.returncode, output, "".join(lines) + rest)


def test_a_wait_that_is_not_over_at_once_says_what_it_waits_for(disk: str, controller: FakeController) -> None:
    controller.status = {**STATUS, "mode": "resynchronizing", "waiting_for": "the maps to be written"}
    done = wait_that_is_over_when_it_has_told("resynchronizing", disk, controller, left_out=[])
    assert done.code == 0 and done.output == "", done
    lines = done.errors.splitlines()
    assert lines and all("resynchronizing" in line and "the maps to be written" in line for line in lines)


def test_a_wait_says_what_is_written_out_now_and_what_could_not_be(disk: str, controller: FakeController) -> None:
    controller.status = {**STATUS, "mode": "normal", "replica_state": "up-to-date", "writing_out": "/mnt\x1b[2J"}
    done = wait_that_is_over_when_it_has_told("/mnt", disk, controller, left_out=["/dev/x is in use"])
    assert done.code == 0 and done.output == "", done
    *meanwhile, at_the_end = done.errors.splitlines()
    assert set(meanwhile) == {"waiting: /mnt\\x1b[2J is being written out (sync)"}, "and not: up to date"
    assert "/dev/x is in use" in at_the_end and "may be missing" in at_the_end


def test_a_wait_whose_controller_does_not_tell_in_time_says_that(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_late(*_: object) -> None:
        raise TimedOut("the controller of /s gave no answer within 10 s")

    monkeypatch.setattr(wait_command, "ask", too_late)
    assert not wait_command._tell(Path("/s"), Advance())
    assert capsys.readouterr().err == (
        "waiting: the controller of /s gave no answer within 10 s, so it is unknown what for\n"
    )


@pytest.mark.parametrize(("words", "told"), [((), True), (("--no-sync",), False)])
def test_a_wait_says_when_the_controller_is_of_a_version_that_writes_nothing_out(
    disk: str, controller: FakeController, words: tuple[str, ...], told: bool
) -> None:
    controller.on_command["wait"] = lambda: {"sequence": 7}
    done = command("wait", disk, *words)
    assert done.code == 0 and ("earlier version" in done.errors) is told, done

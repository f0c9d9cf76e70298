"""The name of a peer, a file or a device cannot forge a line of the log or the status, nor command the terminal."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator

import pytest

from pydbt.cli.explain import explain, report
from pydbt.cli.logs import LineFormat, configure_logging, log_thread_failure
from pydbt.cli.render import print_status
from pydbt.core.errors import PeerError
from pydbt.core.seen.view import View

EVIL = "x\n2026-11-28T16:00:00.000Z info    normal: in sync at sequence 9\n\x1b[2J\x1b]0;pwned\x07 \ud800"


@pytest.fixture
def own_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging(False)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def is_harmless(text: str) -> bool:
    return text.isprintable() and text.isascii()


def test_a_line_of_the_log_stays_one_line(own_log: None, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("pydbt").warning("the secondary refused: %s", EVIL)
    (line,) = capsys.readouterr().err.splitlines()
    assert is_harmless(line) and "pwned" in line


def test_an_error_is_one_line() -> None:
    sentence, _ = explain(PeerError(f"the secondary refused: {EVIL}"))
    assert is_harmless(sentence)


def caused_by_others() -> BaseException:
    try:
        try:
            raise PeerError(EVIL)
        except PeerError as first:
            first.add_note(EVIL)
            raise OSError(5, EVIL, EVIL) from first
    except OSError as second:
        return second


@pytest.mark.parametrize("journal", [False, True])
def test_a_traceback_forges_no_line_and_commands_no_terminal(journal: bool) -> None:
    error = caused_by_others()
    record = logging.LogRecord("pydbt", logging.ERROR, "", 0, "it failed", (), (type(error), error, None))
    first, *rest = LineFormat(tracebacks=True, journal=journal).format(record).split("\n")
    assert first.endswith("it failed") and len(rest) > 4
    assert all(is_harmless(line) and line.startswith("<3>  " if journal else "  ") for line in rest), rest
    assert sum("pwned" in line for line in rest) >= 3, "the error, its cause and the note are all there"


def test_the_traceback_of_an_error_that_ends_a_command_is_harmless_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(caused_by_others(), debug=True) == 1
    *rest, last = capsys.readouterr().err.splitlines()
    assert len(rest) > 4 and all(is_harmless(line) and line.startswith("  ") for line in rest), rest
    assert is_harmless(last) and last.startswith("controller: OSError: ")


def test_a_thread_that_fails_is_logged_as_everything_else(
    own_log: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", log_thread_failure)

    def fail() -> None:
        raise PeerError(EVIL)

    thread = threading.Thread(target=fail, name=EVIL)
    thread.start()
    thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert is_harmless(line) and " error " in line and line.count("pwned") == 2, line


def test_a_status_has_its_own_rows_alone() -> None:
    report = {"role": "primary", "source": "/dev/x", "mode": "unsynchronized", "connection_problem": EVIL}
    shown = io.StringIO()
    print_status(View({**report, "secondaries": [{"secondary": EVIL, **report}]}), shown)
    assert all(is_harmless(line) for line in shown.getvalue().splitlines()), shown.getvalue()
    assert not any(line.startswith("2026") for line in shown.getvalue().splitlines())

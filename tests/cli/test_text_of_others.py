"""What another side, a file or a device is named cannot forge a line of the log or the status, nor command the terminal."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from pydbt.cli.explain import explain
from pydbt.cli.logs import configure_logging
from pydbt.cli.render import print_status
from pydbt.cli.view import View
from pydbt.core.errors import PeerError

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


def test_a_status_has_its_own_rows_alone() -> None:
    report = {"role": "primary", "source": "/dev/x", "mode": "unsynchronized", "connection_problem": EVIL}
    shown = io.StringIO()
    print_status(View({**report, "secondaries": [{"secondary": EVIL, **report}]}), shown)
    assert all(is_harmless(line) for line in shown.getvalue().splitlines()), shown.getvalue()
    assert not any(line.startswith("2026") for line in shown.getvalue().splitlines())

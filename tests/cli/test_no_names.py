"""Names that no file can have, in the place of each: one sentence, and the exit code of wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.cli.explain import explain
from pydbt.cli.group import cli, execute

LONG = f"/tmp/{'n' * 300}"
DEEP = "/d" * 2500
LINES = [
    "status X", "status --state X", "status --json X", "wait X", "wait --state X", "events --now X", "events --now --state X",
    "configcheck X", "check X", "check --state X", "down X", "down --state X", "promote X --state /nonexistent",
    "promote /dev/null --state X", "demote X --state /nonexistent", "demote /dev/null --state X",
    "invalidate /dev/null --state X", "secondary X --listen unix:/nonexistent/s --state /nonexistent/x",
    "secondary /dev/null --listen unix:/nonexistent/s --state X", "run X --secondary 127.0.0.1:1 --state /nonexistent/x",
    "run /dev/null --secondary 127.0.0.1:1 --state X", "transactions X", "trace X", "--config X status", "pki init X",
    "pki issue X name", "hold X", "mark X name", "verify X", "pause X", "resume X", "switchover X",
    "secondaries X", "gate X", "gate /dev/null --state X", "arm X", "arm /dev/null --state X", "disarm X",
    "dashboard --token-file X", "compile --image X", "layer create X name --snapshot-space X", "layer remove X",
    "secondary /dev/null --listen unix:X --state /nonexistent/x", "up X", "protect X", "cluster choose X",
]  # fmt: skip
TAKE_NO_PATH = {"help", "top"}


def test_every_command_is_given_such_a_name() -> None:
    assert {line.split()[0] for line in LINES} - {"--config"} == set(cli.commands) - TAKE_NO_PATH


@pytest.mark.parametrize("line", LINES)
def test_a_name_that_is_too_long_is_wrong_usage(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (LONG, DEEP):
        code = execute(line.replace("X", name).split())
        told = capsys.readouterr()
        assert "this is a bug" not in told.out + told.err and "OSError" not in told.out + told.err
        assert code == 3 if line.startswith(("check", "compile")) else code == 2, told


def test_a_link_that_leads_in_a_circle_is_wrong_usage_too(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(OSError) as caught:
        circle.stat()
    sentence, code = explain(caught.value)
    assert code == 2 and str(circle)[:60] in sentence and "symbolic links" in sentence

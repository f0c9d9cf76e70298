"""Members of the group see a controller that was killed or hangs as what it is, and never as one that is not there."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pydbt.cli import asked
from pydbt.cli.commands import check as command_check
from pydbt.cli.commands import status as command_status
from pydbt.cli.group import execute
from pydbt.controller import public_status as public
from pydbt.controller import registry
from pydbt.controller.control import ControlServer, call
from pydbt.core.errors import StateError
from tests.cli.conftest import STATUS


@pytest.fixture
def member(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who is not root, on a machine of its own."""
    for module in (asked, command_check, command_status):
        monkeypatch.setattr(module, "as_a_member", lambda state_dir: True)
    registry.RUN_DIR.mkdir()
    return alone


def tell(request: dict[str, Any], gone: Any) -> dict[str, Any]:
    return {**STATUS, "source": "/dev/vdx", "connected": True, "last_in_sync": datetime.now(UTC).isoformat()}


@contextlib.contextmanager
def serving(state_dir: Path) -> Iterator[None]:
    with ControlServer(public.public_socket(state_dir), tell):
        yield


@contextlib.contextmanager
def not_answering(state_dir: Path, is_killed: bool) -> Iterator[str]:
    """The socket of a controller that was killed, or hangs, for which no test waits; its path."""
    place, ask = public.public_socket(state_dir), call

    def asked_in_vain(path: Path, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        return ask(path, request, 0.01 if path == place else timeout_s)

    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        listener.bind(str(place))
        if not is_killed:
            listener.listen(16)
        patch.setattr(public, "call", asked_in_vain)
        yield str(place)


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_controller_that_does_not_answer_is_not_called_good(
    member: Path, capsys: pytest.CaptureFixture[str], is_killed: bool
) -> None:
    with serving(member / "well"):
        assert execute(["check", "--all"]) == 0
        assert "(without root this sees running controllers only)" in capsys.readouterr().out
        with not_answering(member / "silent", is_killed) as place:
            words = "no controller answers at" if is_killed else f"the controller at {place} gave no answer within 5 s"
            for arguments in (["check", "--all"], ["check"], ["check", "--state", str(member / "silent")]):
                assert execute(arguments) == 3
                line = capsys.readouterr().out
                assert line.startswith("PYDBT UNKNOWN - ") and words in line and place in line, line
            assert execute(["check", "/dev/vdx"]) == 0, "the one that is meant answers"
            assert execute(["check", "/dev/vdy"]) == 3, "it may be the one that does not answer"
            assert place in capsys.readouterr().out
            assert execute(["status"]) == 9
            lines = capsys.readouterr().out.splitlines()
            assert [line.split()[0] for line in lines] == [place, "/dev/vdx"] and words in lines[0]
            assert execute(["status", "--json"]) == 9
            silent = json.loads(capsys.readouterr().out)["volumes"][0]
            assert (silent["running"], silent["socket"]) == (False, place)
            assert execute(["status", "--state", str(member / "silent")]) == 9
            assert words in capsys.readouterr().err


def test_a_controller_that_this_user_may_not_ask_is_left_out(member: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> dict[str, Any]:
        raise StateError("the control socket may not be used") from PermissionError()

    with serving(member / "well"):
        monkeypatch.setattr(public, "call", refuse)
        assert public.public_reports() == []


def test_a_controller_that_ended_meanwhile_is_left_out(member: Path) -> None:
    assert public.public_reports(member / "ended") == []

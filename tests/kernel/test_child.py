"""A child that has the compiler: each way in which it may end is one error in a sentence."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from pydbt.core.errors import BusyError, MachineError, ShortNow
from pydbt.kernel import child
from pydbt.kernel.child import ask_child


@pytest.fixture(autouse=True, scope="session")
def machine() -> None:
    """In place of the fixture of this folder: nothing here needs root or loads a program."""


def asked(monkeypatch: pytest.MonkeyPatch, **ended: Any) -> Any:
    done = SimpleNamespace(**{"returncode": 0, "stdout": "", "stderr": "", **ended})
    monkeypatch.setattr(child, "run_tool", lambda *_, **__: done)
    return ask_child("a.module", {}, 60, "compiling them").result()


def test_an_answer_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, stdout='{"compiled": 7}', stderr="a warning: never mind") == {"compiled": 7}


def test_an_error_in_the_answer_is_raised_with_the_reason_that_the_compiler_gave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = '{"error": "somebody else has them", "kind": "BusyError"}'
    with pytest.raises(BusyError, match=r"^somebody else has them$"):
        asked(monkeypatch, stdout=answer)
    with pytest.raises(BusyError, match=r"^somebody else has them \(x.c:1: error: no type\)$"):
        asked(monkeypatch, stdout=answer, stderr="a line\nx.c:1: error: no type\nthe end")


def test_no_answer_is_an_error_with_the_last_line_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match=r"^compiling them failed: ImportError: nothing$"):
        asked(monkeypatch, returncode=1, stderr="Traceback\nImportError: nothing\n")
    with pytest.raises(MachineError, match=r"^compiling them failed: exit code 3$"):
        asked(monkeypatch, returncode=3, stdout="not JSON")


def test_a_child_that_takes_too_long_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("python", 60)

    monkeypatch.setattr(child, "run_tool", late)
    with pytest.raises(ShortNow, match=r"^compiling them took longer than 60 s$"):
        ask_child("a.module", {}, 60, "compiling them")

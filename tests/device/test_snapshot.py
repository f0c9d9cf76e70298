"""The output of LVM and device-mapper is understood, and a snapshot is used only when it shows that it is whole."""

from __future__ import annotations

import json

import pytest

from pydbt.device import logical, snapshot
from pydbt.device.commands import CommandFailed, run_command
from pydbt.device.logical import LogicalVolume
from pydbt.device.snapshot import problem_of

NAME = "pydbt_0123456789abcdef"
CLASSIC = LogicalVolume("group-one/data", "group-one", False, NAME, 64 << 20)
THIN = LogicalVolume("group-one/data", "group-one", True, NAME, 64 << 20)


class Commands:
    """Answers by the first word, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: object) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._answers = answers
        for module in (snapshot, logical):
            monkeypatch.setattr(module, "run_command", self._run)
        monkeypatch.setattr(logical, "_REMOVE_PAUSE_S", 0.0)

    def _run(self, *command: str) -> str:
        self.asked.append(command)
        answer = self._answers[command[0]]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


def report(*volumes: dict[str, str]) -> str:
    return json.dumps({"report": [{"lv": list(volumes)}]})


@pytest.mark.parametrize(
    ("volume", "status", "words"),
    [
        (CLASSIC, "0 131072 snapshot 16/8192 16\n", ""),
        (CLASSIC, "0 131072 snapshot 8192/8192 40\n", "is full"),
        (CLASSIC, "0 131072 snapshot Invalid\n", "became invalid"),
        (CLASSIC, "0 131072 snapshot Overflow\n", "became invalid"),
        (CLASSIC, "0 131072 snapshot Merge failed\n", "became invalid"),
        (CLASSIC, "", "failed"),
        (CLASSIC, "0 131072 error\n", "failed"),
        (THIN, "0 131072 thin 4096 131071\n", ""),
        (THIN, "0 131072 thin 0 -\n", ""),
        (THIN, "0 131072 thin Fail\n", "check its pool"),
        (THIN, "0 131072 thin Error\n", "check its pool"),
    ],
)
def test_a_snapshot_is_used_only_when_its_status_shows_that_it_is_whole(monkeypatch, volume, status, words):
    commands = Commands(monkeypatch, dmsetup=status)
    problem = problem_of(volume)
    assert words in problem
    assert bool(problem) == bool(words)
    assert commands.asked == [("dmsetup", "status", f"group--one-{NAME}")]


def test_a_leftover_is_known_by_its_name_and_removed_also_if_it_is_in_use_for_a_moment(monkeypatch):
    here = report({"lv_name": NAME})
    commands = Commands(monkeypatch, lvs=[here, here, report()], lvremove=[CommandFailed("in use"), ""])
    assert CLASSIC.remove_leftover()
    assert [words for words in commands.asked if words[0] == "lvremove"] == [
        ("lvremove", *logical._NO_ARCHIVE, "--yes", f"group-one/{NAME}")
    ] * 2
    commands = Commands(monkeypatch, lvs=report())
    assert not CLASSIC.remove_leftover()


def test_a_snapshot_that_cannot_be_removed_is_reported(monkeypatch):
    Commands(monkeypatch, lvs=report({"lv_name": NAME}), lvremove=CommandFailed("lvremove failed: in use"))
    with pytest.raises(CommandFailed, match="in use"):
        CLASSIC.remove_leftover()


def test_a_command_that_is_missing_or_fails_is_one_sentence():
    with pytest.raises(CommandFailed, match="is not installed on this machine"):
        run_command("no-such-command")
    with pytest.raises(CommandFailed, match=r"ls failed: .*no-such-file"):
        run_command("ls", "/no-such-file")

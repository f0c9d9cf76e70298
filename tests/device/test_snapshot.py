"""What LVM and device-mapper say of a snapshot is understood, and nothing they do not say is taken for good."""

from __future__ import annotations

import json

import pytest

from pydbt.device import snapshot
from pydbt.device.commands import CommandFailed, run_command
from pydbt.device.snapshot import LogicalVolume, Snapshots

CLASSIC = LogicalVolume("group-one/data", "group-one", thin=False)
THIN = LogicalVolume("group-one/data", "group-one", thin=True)
TAG = "0123456789abcdef"


class Commands:
    """Answers by the first word, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: object) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._answers = answers
        monkeypatch.setattr(snapshot, "run_command", self._run)
        monkeypatch.setattr(snapshot, "_REMOVE_PAUSE_S", 0.0)

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
        (THIN, "0 131072 thin Fail\n", "thin snapshot failed"),
        (THIN, "0 131072 thin Error\n", "thin snapshot failed"),
    ],
)
def test_only_a_snapshot_that_says_that_it_is_whole_is_trusted(monkeypatch, volume, status, words):
    commands = Commands(monkeypatch, dmsetup=status)
    problem = Snapshots(TAG, None).problem(volume)
    assert words in problem
    assert bool(problem) == bool(words)
    assert commands.asked == [("dmsetup", "status", f"group--one-pydbt_{TAG}")]


def test_a_leftover_is_known_by_its_name_and_removed_also_if_it_is_in_use_for_a_moment(monkeypatch):
    here = report({"lv_name": f"pydbt_{TAG}"})
    commands = Commands(monkeypatch, lvs=[here, here, report()], lvremove=[CommandFailed("in use"), ""])
    assert Snapshots(TAG, None).remove_leftover(CLASSIC)
    assert [words for words in commands.asked if words[0] == "lvremove"] == [
        ("lvremove", *snapshot._NO_ARCHIVE, "--yes", f"group-one/pydbt_{TAG}")
    ] * 2
    commands = Commands(monkeypatch, lvs=report())
    assert not Snapshots(TAG, None).remove_leftover(CLASSIC)


def test_one_that_cannot_be_removed_is_told(monkeypatch):
    Commands(monkeypatch, lvs=report({"lv_name": f"pydbt_{TAG}"}), lvremove=CommandFailed("lvremove failed: in use"))
    with pytest.raises(CommandFailed, match="in use"):
        Snapshots(TAG, None).remove_leftover(CLASSIC)


def test_a_command_that_is_missing_or_fails_is_one_sentence():
    with pytest.raises(CommandFailed, match="is not installed here"):
        run_command("no-such-command")
    with pytest.raises(CommandFailed, match=r"ls failed: .*no-such-file"):
        run_command("ls", "/no-such-file")

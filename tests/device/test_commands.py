"""Other programs are found and answer in the same words, whatever the caller's environment is."""

from __future__ import annotations

import pytest

from pydbt.device.commands import CommandFailed, run_command


def test_a_program_of_the_system_is_found_whatever_the_callers_path_is(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "losetup" in run_command("losetup", "--version")
    assert run_command("sh", "-c", "echo $PATH $LC_ALL").split() == ["/usr/sbin:/usr/bin:/sbin:/bin", "C"]


def test_a_program_that_is_missing_or_fails_is_told_in_one_sentence():
    with pytest.raises(CommandFailed, match=r"^nonsense is not installed on this machine$"):
        run_command("nonsense")
    with pytest.raises(CommandFailed, match=r"^the other failed: last words$"):
        run_command("sh", "-c", "echo first words >&2; echo last words >&2; exit 1", name="the other")


def test_one_that_a_signal_ended_is_told_by_the_signal():
    with pytest.raises(CommandFailed, match=r"^sh was killed by signal 9$"):
        run_command("sh", "-c", "kill -KILL $$")

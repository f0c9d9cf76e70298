"""Hooks hold nothing up: one that hangs delays later ones alone, one without room is counted, and an unsafe one is not run."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from pydbt.controller import hook_runner
from pydbt.controller.hook_runner import WAITING_HOOKS_MAX, HookRunner, why_unsafe
from pydbt.core.seen.event_names import ANY
from pydbt.core.seen.events import Event
from pydbt.core.seen.hooks import Hooks, Whose
from tests.lab.patience import until

WHOSE = Whose("primary", "/dev/vda3", "data", "/var/lib/pydbt/data")
MOMENT = "2026-01-01T00:00:00.000Z"


def event(name: str, number: int = 1, words: str = "", **figures: object) -> Event:
    return Event(number, MOMENT, name, words, figures)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its programs are safe: the folder of all temporary files above it is sticky."""
    return tmp_path


def program(folder: Path, text: str, name: str = "hook") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_hook_is_told_everything_in_its_environment_and_its_arguments_are_read_by_no_shell(folder: Path) -> None:
    out = folder / "out"
    hook = program(folder, f'printf "%s\\n" "$@" > {out}.tmp; env | sort >> {out}.tmp; mv {out}.tmp {out}')
    runner = HookRunner(Hooks((("tainted", (hook, "$HOME", "a b; rm -rf x")),)), WHOSE)
    runner.put(event("connected"), "")
    runner.put(event("tainted", 7, "x\n$(reboot)", secondary="10.0.0.2:7790", bytes=None, ok=True, lag_s=1.5), "ab-cd")
    until(out.exists, "it was run")
    runner.close()
    first, second, *variables = out.read_text().splitlines()
    assert (first, second) == ("$HOME", "a b; rm -rf x")
    told = dict(line.split("=", 1) for line in variables)
    assert {name: value for name, value in told.items() if name.startswith("PYDBT_")} == {
        "PYDBT_EVENT": "tainted", "PYDBT_NUMBER": "7", "PYDBT_MOMENT": MOMENT, "PYDBT_WORDS": "x\\x0a$(reboot)",
        "PYDBT_ROLE": "primary", "PYDBT_VOLUME": "data", "PYDBT_PLACE": "/dev/vda3", "PYDBT_STATE_DIR": "/var/lib/pydbt/data",
        "PYDBT_VOLUME_ID": "abcd", "PYDBT_SECONDARY": "10.0.0.2:7790", "PYDBT_DROPPED": "0",
        "PYDBT_FIGURE_BYTES": "", "PYDBT_FIGURE_OK": "true", "PYDBT_FIGURE_LAG_S": "1.5",
    }  # fmt: skip
    assert told.keys() - {name for name in told if name.startswith("PYDBT_")} <= {"PATH", "LANG", "PWD", "SHLVL", "_"}


def test_the_hook_of_the_name_and_the_one_of_all_are_both_run_in_order(folder: Path) -> None:
    out = folder / "out"
    hook = program(folder, f'echo "$1 $PYDBT_EVENT" >> {out}')
    runner = HookRunner(Hooks(((ANY, (hook, "any")), ("in-sync", (hook, "own")))), WHOSE)
    for name in ("started", "in-sync"):
        runner.put(event(name), "")
    runner.close()
    assert out.read_text().splitlines() == ["any started", "own in-sync", "any in-sync"]


def test_hooks_that_do_not_fit_are_dropped_and_the_next_hook_gets_their_count(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go, out = folder / "go", folder / "out"
    hook = program(folder, f"while [ ! -e {go} ]; do sleep 0.05; done; echo $PYDBT_DROPPED >> {out}")
    runner = HookRunner(Hooks(((ANY, (hook,)),)), WHOSE)
    runner.put(event("started"), "")
    until(lambda: runner._queue.empty(), "the first runs")
    with caplog.at_level(logging.WARNING):
        for number in range(WAITING_HOOKS_MAX + 5):
            runner.put(event("connected", number), "")
    assert [record.getMessage() for record in caplog.records] == [
        f"hooks are left out from the event connected on: {WAITING_HOOKS_MAX} others wait"
    ]
    go.touch()
    until(lambda: out.exists() and len(out.read_text().splitlines()) > 1, "the next one ran")
    runner.close()
    assert out.read_text().splitlines()[:3] == ["0", "5", "0"]


def test_a_hook_that_hangs_holds_neither_the_caller_nor_the_end_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hook_runner, "LAST_HOOKS_S", 0.2)
    runner = HookRunner(Hooks(((ANY, (program(folder, "exec sleep 1000"),)),), timeout_s=3600.0), WHOSE)
    for name in ("started", "tainted", "stopped"):
        runner.put(event(name), "")
    runner.close()
    assert "the end did not wait for hooks: one was killed, and 2 were not run" in caplog.text
    assert not any(thread.name == "hooks" for thread in threading.enumerate())


def test_a_failure_is_a_warning_and_output_goes_to_the_log(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        runner = HookRunner(Hooks(((ANY, (program(folder, "echo hello; exit 9"),)),)), WHOSE)
        runner.put(event("started"), "")
        runner.close()
    assert [record.getMessage() for record in caplog.records] == [
        "hook started: hello",
        f"the hook {folder}/hook for the event started failed: it ended with exit code 9",
    ]


def test_an_unsafe_program_is_not_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = folder / "out"
    hook = Path(program(folder, f"touch {out}"))
    hook.chmod(0o777)
    runner = HookRunner(Hooks(((ANY, (str(hook),)),)), WHOSE)
    runner.put(event("started"), "")
    runner.close()
    assert "is not run: expected a program that nobody else may write" in caplog.text and not out.exists()


def test_a_program_that_cannot_be_looked_at_costs_this_hook_and_no_later_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out, looks = folder / "out", iter([FileNotFoundError(2, "No such file or directory", "/etc/hooks")])

    def look(path: Path) -> str:
        for error in looks:
            raise error  # its folder is replaced just now
        return ""

    monkeypatch.setattr(hook_runner, "why_unsafe", look)
    runner = HookRunner(Hooks(((ANY, (program(folder, f"echo $PYDBT_EVENT >> {out}"),)),)), WHOSE)
    for name in ("started", "connected"):
        runner.put(event(name), "")
    runner.close()
    assert "for the event started failed: it cannot be run: [Errno 2]" in caplog.text
    assert out.read_text() == "connected\n"


def test_without_a_hook_there_is_no_thread() -> None:
    runner = HookRunner(Hooks(), WHOSE)
    runner.put(event("started"), "")
    assert not any(thread.name == "hooks" for thread in threading.enumerate())
    runner.close()


def test_a_machine_without_room_for_a_thread_loses_nothing_but_hooks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", full)
        runner = HookRunner(Hooks(((ANY, (program(folder, "exit 0"),)),)), WHOSE)
        runner.put(event("started"), "")
    assert "can't start new thread" in caplog.text
    runner.put(event("connected"), "")
    runner.close()


def test_only_an_executable_that_no_other_user_can_change_is_safe(folder: Path) -> None:
    good = Path(program(folder, "exit 0"))
    assert why_unsafe(good) == ""
    assert why_unsafe(Path("hook")).startswith("expected the absolute path")
    assert "No such file" in why_unsafe(folder / "missing")
    assert "regular file" in why_unsafe(folder)
    link = folder / "link"
    link.symlink_to(good)
    assert why_unsafe(link) == ""
    good.chmod(0o644)
    assert "may be executed" in why_unsafe(good)
    good.chmod(0o755)
    folder.chmod(0o777)
    assert f"others may write {folder}" in why_unsafe(good)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(good, 65533, 65533)
        assert "belongs to user 65533" in why_unsafe(good)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives links to another user")
@pytest.mark.parametrize("mode", [0o755, 0o1777], ids=["folder of root's", "sticky folder"])
def test_a_link_of_another_user_is_not_followed_wherever_it_is_on_the_way(folder: Path, mode: int) -> None:
    good = Path(program(folder, "exit 0"))
    shared, bin_folder = folder / "shared", folder / "bin"
    shared.mkdir()
    shared.chmod(mode)
    for link, goal in ((shared / "hook", good), (folder / "outer", shared / "hook"), (bin_folder, shared / "folder")):
        link.symlink_to(goal)
    (shared / "folder").symlink_to(folder)
    assert why_unsafe(shared / "hook") == why_unsafe(folder / "outer") == why_unsafe(bin_folder / "hook") == ""
    for link in (shared / "hook", shared / "folder"):
        os.lchown(link, 65533, 65533)
    for way in (shared / "hook", folder / "outer"):
        assert f"{shared}/hook belongs to user 65533, who could put another in its place" in why_unsafe(way)
    assert f"{shared}/folder belongs to user 65533" in why_unsafe(bin_folder / "hook")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives links to another user")
def test_a_link_of_another_user_is_not_safe_by_being_away_for_a_moment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, link = Path(program(folder, "exit 0")), folder / "shared" / "hook"
    link.parent.mkdir()
    link.parent.chmod(0o1777)
    real_lstat = os.lstat

    def away_at_the_first_look(path: str) -> os.stat_result:
        if str(path) != str(link) or os.path.lexists(good.parent / "looked"):
            return real_lstat(path)
        (good.parent / "looked").touch()
        try:
            return real_lstat(path)
        finally:
            link.symlink_to(good)
            os.lchown(link, 65533, 65533)

    monkeypatch.setattr("pydbt.posix.ownership.os.lstat", away_at_the_first_look)
    assert "expected a program that is there" in why_unsafe(link)

"""The process that runs every configured volume: real processes and signals, with children that only wait."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydbt.controller.supervisor import Child, Supervisor
from pydbt.controller.units import is_enabled, unit_of
from pydbt.core.configured.supervision import Condition, Wanted
from tests.lab.patience import until

# The folder has a file for each volume, with what its process does: "wait", "fail", "end" or "ignored". "failing" fails at once,
# and when it is started again not before it is stopped.
PROGRAM = """
import logging, os, signal, sys, time
from pathlib import Path
from pydbt.controller import registry
folder = Path(sys.argv[1])
registry.RUN_DIR = folder / "run"
from pydbt.controller.supervisor import Child, Supervisor
from pydbt.core.configured.supervision import Wanted
from pydbt.core.errors import UsageError

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")

def serve(name, what):
    def serving():
        signal.signal(signal.SIGHUP, lambda *_: (folder / f"{name}.renewed").touch())
        stopped = []
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
        # It has begun when it hears signals.
        with (folder / "log").open("a") as log:
            log.write(f"{name} {os.getpid()} {what}\\n")
        if what == "fail":
            return 6, f"{name} has no disk"
        if what == "end":
            return 0, ""
        if what == "failing" and (folder / "log").read_text().count(f"{name} ") == 1:
            return 6, f"{name} has no disk"
        while not stopped:
            time.sleep(0.02)
        return (6, f"{name} has no disk") if what == "failing" else (int(what.removeprefix("wait") or 0), "")
    return serving

def configured():
    if (folder / "broken").exists():
        (folder / "reads").touch()
        raise UsageError("the folder is gone") if (folder / "broken").read_text() else OSError(5, "Input/output error")
    found = {}
    for path in sorted(folder.glob("*.volume")):
        what, _, identity = path.read_text().partition(" ")
        problem = "the file is wrong" if what == "wrong" else ""
        found[path.stem] = Child(Wanted(what, identity, problem=problem), "/dev/x", "/s", serve(path.stem, what))
    return found

sys.exit(Supervisor("run", folder, configured).run())
"""


class Supervised:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def write(self, name: str, what: str) -> None:
        (self.folder / f"{name}.volume").write_text(what)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, self.folder], stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def begun(self) -> list[tuple[str, int, str]]:
        """Every process that was ever started: name, process, what it does."""
        log = self.folder / "log"
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        return [(name, int(process), what) for name, process, what in (line.split(" ") for line in lines)]

    def await_begun(self, *names: str) -> list[int]:
        until(lambda: sorted(name for name, _, _ in self.begun()) == sorted(names), f"{names} have begun")
        return [process for _, process, _ in self.begun()]

    def volumes(self) -> dict[str, dict[str, object]]:
        with contextlib.suppress(OSError, ValueError):
            (report,) = (self.folder / "run").glob("supervisor-run-*.json")
            return {volume["name"]: volume for volume in json.loads(report.read_text())["volumes"]}
        return {}

    def await_phase(self, name: str, phase: str) -> None:
        until(lambda: self.volumes().get(name, {}).get("phase") == phase, f"{name} is {phase}")

    def end(self) -> tuple[int, str]:
        assert self.process is not None
        _, words = self.process.communicate(timeout=60)
        return self.process.returncode, words


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    made = Supervised(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.communicate()
    for _, process, _ in made.begun():
        until(lambda process=process: not is_alive(process), "a child ends with its parent")


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_failure_touches_no_other_volume_and_is_told_once(supervised: Supervised) -> None:
    supervised.write("good", "wait")
    supervised.write("bad", "fail")
    supervised.start()
    until(lambda: len(supervised.begun()) >= 4, "it was started again")
    # The report of before the last start says "failed" too, and the end of a volume that fails while it is stopped is an error.
    until(lambda: supervised.volumes()["bad"]["failures"] == len(supervised.begun()) - 1, "the last start has failed")
    supervised.await_phase("bad", "failed")
    assert supervised.volumes()["bad"]["failure"] == "bad has no disk"
    assert [name for name, _, _ in supervised.begun()].count("good") == 1
    supervised.send(signal.SIGTERM)
    code, words = supervised.end()
    assert code == 0 and words.count("bad has no disk") == 1, words


def test_a_stop_that_meets_a_failing_volume_in_its_next_start_is_a_stop_in_order(supervised: Supervised) -> None:
    supervised.write("good", "wait")
    supervised.write("bad", "failing")
    supervised.start()
    supervised.await_begun("good", "bad", "bad")
    supervised.send(signal.SIGTERM)
    code, words = supervised.end()
    assert code == 0 and words.count("bad has no disk") == 1, words


def test_a_reload_starts_stops_and_changes_and_touches_nothing_else(supervised: Supervised) -> None:
    for name in ("same", "other", "gone"):
        supervised.write(name, "wait 1")
    supervised.start()
    supervised.await_begun("same", "other", "gone")
    before = {name: process for name, process, _ in supervised.begun()}
    supervised.write("other", "wait0 1")
    supervised.write("new", "wait 1")
    (supervised.folder / "gone.volume").unlink()
    supervised.send(signal.SIGHUP)
    supervised.await_begun("same", "other", "gone", "other", "new")
    until(lambda: not is_alive(before["gone"]) and not is_alive(before["other"]), "both have ended")
    assert is_alive(before["same"]) and not (supervised.folder / "same.renewed").exists()
    supervised.write("same", "wait 2")
    supervised.send(signal.SIGHUP)
    until((supervised.folder / "same.renewed").exists, "its identity was read again")
    supervised.write("same", "wrong")
    supervised.send(signal.SIGHUP)
    until(lambda: "gone" not in supervised.volumes(), "it is forgotten")
    assert is_alive(before["same"]), "a wrong file stops nothing"


def test_a_configuration_that_cannot_be_read_stops_nothing(supervised: Supervised) -> None:
    supervised.write("one", "wait")
    supervised.start()
    (one,) = supervised.await_begun("one")
    for number, words in ((signal.SIGHUP, "the folder is gone"), (signal.SIGUSR1, "")):
        (supervised.folder / "broken").write_text(words)
        supervised.send(number)
        until((supervised.folder / "reads").exists, "it was read")
        (supervised.folder / "reads").unlink()
    (supervised.folder / "broken").unlink()
    supervised.write("two", "wait")
    supervised.send(signal.SIGHUP)
    supervised.await_begun("one", "two")
    assert is_alive(one)
    supervised.send(signal.SIGTERM)
    code, told = supervised.end()
    assert code == 0 and "the folder is gone; everything runs on as before" in told, told
    assert "cannot be read: [Errno 5] Input/output error; everything runs on" in told, told


def test_a_volume_that_ended_in_order_is_started_by_up_alone(supervised: Supervised) -> None:
    supervised.write("a", "end")
    supervised.write("b", "wait")
    supervised.start()
    supervised.await_phase("a", "ended")
    supervised.send(signal.SIGHUP)
    supervised.send(signal.SIGUSR1)
    supervised.await_begun("a", "b", "a")
    supervised.await_phase("a", "ended")


def test_the_supervisor_ends_when_every_volume_has_ended(supervised: Supervised) -> None:
    supervised.write("a", "end")
    supervised.start()
    assert supervised.end()[0] == 0
    assert not list((supervised.folder / "run").glob("*.json"))


def test_a_last_state_that_was_not_saved_is_its_exit_code(supervised: Supervised) -> None:
    supervised.write("a", "wait7")
    supervised.write("b", "wait")
    supervised.start()
    supervised.await_begun("a", "b")
    until(lambda: supervised.volumes().keys() == {"a", "b"}, "the report is there")
    supervised.send(signal.SIGINT)
    assert supervised.end()[0] == 7


def test_a_second_supervisor_is_refused_and_wrong_files_alone_are_wrong_usage(
    supervised: Supervised, tmp_path: Path
) -> None:
    supervised.write("a", "wait")
    supervised.start()
    supervised.await_begun("a")
    second = subprocess.run([sys.executable, "-c", PROGRAM, tmp_path], capture_output=True, text=True, timeout=60)
    assert second.returncode != 0 and "BusyError" in second.stderr
    supervised.send(signal.SIGTERM)
    assert supervised.end()[0] == 0
    supervised.write("a", "wrong")
    supervised.start()
    code, words = supervised.end()
    assert code == 2 and "a: the file is wrong" in words


def test_children_end_with_a_supervisor_that_is_killed(supervised: Supervised) -> None:
    supervised.write("a", "wait")
    supervised.start()
    (process,) = supervised.await_begun("a")
    supervised.send(signal.SIGKILL)
    until(lambda: not is_alive(process), "it was asked to stop")


# --- units of systemd -------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Callable[[str], None]:
    def link(place: str) -> None:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink("/usr/lib/systemd/system/pydbt@.service", path)

    return link


def test_a_unit_is_enabled_by_a_link_of_another_unit(tmp_path: Path, linked: Callable[[str], None]) -> None:
    unit = unit_of("run", "data")
    assert not is_enabled(unit, tmp_path)
    linked("etc/systemd/system/multi-user.target.wants/pydbt@data2.service")
    linked("etc/systemd/system/multi-user.target.wants/pydbt-secondary@data.service")
    assert not is_enabled(unit, tmp_path)
    linked("etc/systemd/system/multi-user.target.wants/pydbt@data.service")
    assert is_enabled(unit, tmp_path) and is_enabled(unit_of("secondary", "data"), tmp_path)


@pytest.mark.parametrize("place", ["run/systemd/system/x.target.requires", "usr/lib/systemd/system/x.mount.wants"])
def test_other_places_of_links_count_too(tmp_path: Path, linked: Callable[[str], None], place: str) -> None:
    linked(f"{place}/pydbt@data.service")
    assert is_enabled("pydbt@data.service", tmp_path)


def test_a_masked_unit_runs_nothing(tmp_path: Path, linked: Callable[[str], None]) -> None:
    linked("etc/systemd/system/multi-user.target.wants/pydbt@data.service")
    (tmp_path / "etc/systemd/system/pydbt@data.service").symlink_to("/dev/null")
    assert not is_enabled("pydbt@data.service", tmp_path)


def test_a_process_that_cannot_be_started_is_a_failure_of_its_volume_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {name: Child(Wanted("x", name), "/dev/x", "/s", lambda: (0, "")) for name in ("one", "two")}
    supervisor = Supervisor("run", tmp_path, lambda: found)
    before, processes = len(os.listdir("/proc/self/fd")), [OSError(errno.EAGAIN, "Resource temporarily unavailable")]

    def fork() -> int:
        if processes:
            raise processes.pop()
        return 1 << 22

    monkeypatch.setattr(os, "fork", fork)
    supervisor._take(found)
    one, two = (supervisor._supervision.members[name] for name in ("one", "two"))
    assert (one.condition, two.condition) == (Condition.RESTING, Condition.RUNNING)
    assert "cannot be started: Resource temporarily unavailable" in one.failure and one.start_at is not None
    assert len(os.listdir("/proc/self/fd")) == before + 1, "descriptors of the one that failed are left"
    os.close(supervisor._processes.pop(1 << 22).reasons)


def test_no_error_of_a_reload_ends_the_volumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> dict[str, Child]:
        raise OSError(errno.EMFILE, "Too many open files")

    Supervisor("run", tmp_path, fails)._reload()
    assert "Too many open files" in caplog.text and "everything runs on as before" in caplog.text

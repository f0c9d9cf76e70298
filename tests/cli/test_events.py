"""`controller events` and `controller check` over control sockets: new starts, slow readers, hostile names, and who may ask."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pydbt.cli import following
from pydbt.cli.commands import events as command_events
from pydbt.cli.following import Followed, Following, Line
from pydbt.cli.group import execute
from pydbt.controller import public_status as public
from pydbt.controller import registry
from pydbt.controller.control import ControlServer, write_saved_status
from pydbt.controller.event_log import EventLog
from pydbt.core.seen.event_ring import EVENTS_MAX
from pydbt.core.seen.hooks import NO_HOOKS, Whose
from pydbt.store.replica_state import save_record
from pydbt.store.volume_state import VolumeState, save_state
from tests.cli.conftest import FakeController
from tests.cli.test_overview import as_member
from tests.cli.test_overview import members as members  # a fixture
from tests.core.secondary.test_brain import ADOPTED
from tests.core.seen.statuses import primary, secondary, secondary_keys
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import PROGRAM, ROOT, end_with_parent


class Controller:
    """The socket of a controller, with real events of a status that a test changes."""

    def __init__(self, state_dir: Path) -> None:
        state_dir.mkdir(exist_ok=True)
        self.state_dir, self.status = state_dir, {**primary(), "source": "/dev/vda3"}
        self.log = EventLog(NO_HOOKS, Whose("primary", "/dev/vda3", "data", str(state_dir)))
        self._now = 0.0

    def answer(self, request: dict[str, Any], gone: Any) -> dict[str, Any]:
        return self.status if request["command"] == "status" else self.log.answer(request, gone)

    def to_json(self) -> dict[str, Any]:
        return self.status

    def tell(self, **changed: Any) -> None:
        self.status = {**primary(secondary_keys(**changed)), "source": "/dev/vda3"}
        self._now += 10.0
        self.log.look(lambda: self, self._now)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        with ControlServer(self.state_dir, self.answer):
            yield


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for what does not come."""
    monkeypatch.setattr(following, "_POLL_S", 0.0)


def names(lines: list[Line]) -> list[str]:
    return [line.event.name for line in lines]


def test_the_present_state_comes_first_and_then_each_change_once(tmp_path: Path, quick: None) -> None:
    controller = Controller(tmp_path / "state")
    controller.tell()
    one = Followed(controller.state_dir, str(controller.state_dir))
    with controller.serving():
        (exists,) = one.exists()
        assert exists.text().endswith("/dev/vda3 exists: up to date; normal")
        assert exists.to_json()["figures"]["replica_state"] == "up-to-date" and exists.to_json()["role"] == "primary"
        assert one.more() == [], "what was before is in that line"
        controller.tell(connected=False, connection_problem="no route")
        assert [line.text().partition(" ")[2] for line in one.more()] == [
            "/dev/vda3 disconnected: not connected: no route (10.0.0.2:7790)"
        ]
        assert one.more() == []


@pytest.mark.parametrize(("clean", "between"), [(True, []), (False, ["not-running"])])
def test_a_controller_that_is_started_again_is_followed(
    tmp_path: Path, quick: None, clean: bool, between: list[str]
) -> None:
    first, second = Controller(tmp_path / "state"), Controller(tmp_path / "state")
    first.tell()
    one = Followed(first.state_dir, str(first.state_dir))
    with first.serving():
        one.exists()
        if clean:
            first.log.end()
            assert names(one.more()) == ["stopped"]
    assert names(one.more()) == between and one.more() == [], "told once"
    second.tell()
    with second.serving():
        assert names(one.more()) == ["exists", *(() if clean else ("gap",)), "started", "connected", "in-sync"]
        assert one.more() == []


def test_a_volume_that_a_command_makes_a_replica_is_told_as_soon_as_it_is_one(tmp_path: Path, quick: None) -> None:
    controller = Controller(tmp_path / "state")
    controller.tell()
    one = Followed(controller.state_dir, str(controller.state_dir))
    save_state(controller.state_dir, VolumeState("ab" * 16, ADOPTED.size_bytes, 4096, "/dev/vda3", {}))
    with controller.serving():
        one.exists()
        controller.log.end()
        assert names(one.more()) == ["stopped"]
    assert one.more() == [], "it is a volume as before"
    save_record(controller.state_dir, ADOPTED)
    assert [line.text().partition(" ")[2] for line in one.more()] == [
        "/dev/vda3 demoted: demoted by a command: it is a replica"
    ]
    (controller.state_dir / "volume.json").unlink()
    assert one.more() == [], "told once"
    write_saved_status(controller.state_dir, {**secondary(), "target": "/dev/vda3"})
    save_state(controller.state_dir, VolumeState("ab" * 16, ADOPTED.size_bytes, 4096, "/dev/vda3", {}))
    save_record(controller.state_dir, replace(ADOPTED, promoted="2026-01-02T03:04:05Z"))
    assert names(one.more()) == ["promoted"] and one.more() == []


def test_a_promotion_that_the_secondary_has_told_is_not_told_again(tmp_path: Path, quick: None) -> None:
    controller = Controller(tmp_path / "state")
    controller.status = {**secondary(), "target": "/dev/vdb"}
    one = Followed(controller.state_dir, str(controller.state_dir))
    save_record(controller.state_dir, ADOPTED)
    with controller.serving():
        one.exists()
        controller.log.say("promoted", "promoted by the operator")
        controller.log.end()
        assert names(one.more()) == ["promoted", "stopped"]
    save_record(controller.state_dir, replace(ADOPTED, promoted="2026-01-02T03:04:05Z"))
    assert "promoted" not in names([*one.more(), *one.more()])


def test_nothing_is_read_of_what_another_user_has_in_the_place_of_a_record(tmp_path: Path, quick: None) -> None:
    (state := tmp_path / "state").mkdir()
    os.mkfifo(state / "replica.json")
    os.chown(state, 65534, 65534)
    one = Followed(state, str(state), role="secondary")
    assert names(one.exists()) == ["not-running"] and one.more() == []


def test_an_earlier_promotion_is_no_event_of_now(tmp_path: Path, quick: None) -> None:
    (state := tmp_path / "state").mkdir()
    write_saved_status(state, {**secondary(), "target": "/dev/vdb"})
    save_record(state, replace(ADOPTED, promoted="2026-01-02T03:04:05Z"))
    one = Followed(state, str(state))
    assert names(one.exists()) == ["not-running"] and one.more() == []


def test_a_reader_that_is_too_slow_is_told_of_the_gap_and_holds_no_memory(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "WAITING_LINES_MAX", 3)
    monkeypatch.setattr(following, "_AGAIN_S", 0.01)
    controller = Controller(tmp_path / "state")
    controller.tell()
    with controller.serving():
        one, reader = Followed(controller.state_dir, str(controller.state_dir)), Following()
        one.exists()
        reader.follow(one)
        for number in range(EVENTS_MAX + 100):
            controller.log.say("problem", str(number))
        until(lambda: reader.lines.full(), "the queue is full")
        read = []
        while not read or read[-1].event.words != str(EVENTS_MAX + 99):
            assert reader.lines.qsize() <= 3
            read.append(reader.lines.get(timeout=PATIENCE_S))
        if len(read) < EVENTS_MAX + 100:
            assert "gap" in names(read), "what is missing is told"


def test_hostile_names_break_no_line(tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    controller = Controller(tmp_path / "state")
    controller.tell()
    controller.status["source"] = "/dev/x\n\x1b[2J<b>|evil"
    with controller.serving():
        for arguments in (["events", "--now"], ["events", "--now", "--json"], ["check"]):
            assert execute([*arguments, "--state", str(controller.state_dir)]) == 0
            output = capsys.readouterr().out
            assert "\x1b" not in output and output.count("\n") == (1 if arguments[0] == "check" else 2), output
            assert output.count("|") == (1 if arguments[0] == "check" else output.count("|"))


def test_a_controller_of_an_earlier_version_is_told_as_one_sentence(
    tmp_path: Path, controller: FakeController, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["events", "--state", str(controller.state_dir), "--now"]) == 2
    assert capsys.readouterr().err == "controller: its events cannot be followed: no such command: events\n"
    one = Followed(controller.state_dir, str(controller.state_dir))
    assert names(one.exists()) == ["exists", "gap"] and one.more() == [], "beside others it is told once"


def test_ctrl_c_ends_the_command_without_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    controller = Controller(tmp_path / "state")
    controller.tell()

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_events, "_LOOK_S", 0.01)
    monkeypatch.setattr(command_events, "_require_reader", interrupt)
    with controller.serving():
        assert execute(["events", "--state", str(controller.state_dir)]) == 130
        controller.log.end()
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_ends_it_although_nothing_happens(tmp_path: Path) -> None:
    controller = Controller(tmp_path / "state")
    controller.tell()
    with controller.serving():
        read_end, write_end = os.pipe()
        words = [*PROGRAM, "events", "--state", str(controller.state_dir)]
        process = subprocess.Popen(words, stdout=write_end, cwd=ROOT, preexec_fn=end_with_parent)
        os.close(write_end)
        with os.fdopen(read_end) as reader:
            assert " exists: " in reader.readline()
        assert process.wait(PATIENCE_S) == 141
        controller.log.end()


def test_a_user_who_may_ask_nobody_is_not_told_that_controllers_do_not_run(tmp_path: Path, members: int) -> None:
    controller = Controller(tmp_path / "state")
    with public.public_status(controller.state_dir, controller.answer):
        script = "from pydbt.cli.commands import events; events._print_all(None, None, False, True)"
        told = as_member(members + 1, script)
    assert told.startswith("MachineError: no running controller tells its events to this user"), told


def test_members_of_the_group_may_follow_and_change_nothing(tmp_path: Path, members: int) -> None:
    controller = Controller(tmp_path / "state")
    controller.tell()
    with public.public_status(controller.state_dir, controller.answer):
        controller.state_dir.chmod(0o700)
        place = str(public.public_socket(controller.state_dir))
        told = as_member(
            members, f"say(public.call({place!r}, {{'command': 'events', 'since': 0}}, 5)['events'][0]['name'])"
        )
        assert told == "started\n"
        assert "may look, and change nothing" in as_member(members, f"public.call({place!r}, {{'command': 'down'}}, 5)")


def test_a_member_goes_on_waiting_when_the_last_controller_is_away_for_a_restart(
    alone: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    controller = Controller(alone / "state")
    controller.tell()
    registry.RUN_DIR.mkdir()
    server = ControlServer(public.public_socket(controller.state_dir), controller.answer)
    looks = iter(range(3))

    def look() -> None:
        controller.log.end()
        server.stop()
        if next(looks, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(command_events, "as_a_member", lambda state_dir: True)
    monkeypatch.setattr(command_events, "_LOOK_S", 0.01)
    monkeypatch.setattr(command_events, "_NEW_ONES_S", 0.0)
    monkeypatch.setattr(command_events, "_require_reader", look)
    with server:
        assert execute(["events"]) == 130
    told = capsys.readouterr()
    assert told.err == "" and " exists: " in told.out
    assert execute(["events"]) == 3, "at the first look there has to be one"
    assert "no running controller tells its events" in capsys.readouterr().err


# --- check ------------------------------------------------------------------------------------------------


def check(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = execute(["check", *map(str, arguments)])
    told = capsys.readouterr()
    assert told.err == "" and told.out.count("\n") == 1
    return code, told.out


def test_a_check_ends_as_a_plug_in_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    controller = Controller(tmp_path / "state")
    with controller.serving():
        for lag_s, code, word in ((0.0, 0, "OK"), (61.0, 1, "WARNING"), (601.0, 2, "CRITICAL"), (None, 3, "UNKNOWN")):
            controller.tell(lag_seconds=lag_s, replica_state="consistent")
            found, line = check(capsys, "--state", controller.state_dir)
            assert (found, line.split()[1]) == (code, word), line
            assert re.search(r" \| age=(U|[0-9.]+s);60;600;0; out_of_sync=0B;;;0;\n$", line), line
        assert check(capsys, "--state", controller.state_dir, "-w", "1h", "-c", "2h")[0] == 3
    write_saved_status(controller.state_dir, {**controller.status, "last_in_sync": "2020-01-01T00:00:00Z"})
    assert check(capsys, "--state", controller.state_dir)[0] == 2, "no controller, and the last status is old"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--state", "/nonexistent"],
        ["-w", "soon"],
        ["-w", "9", "-c", "1"],
        ["--all", "--state", "/"],
        ["--bogus"],
        ["/dev/null"],
        ["a", "b"],
    ],
)
def test_wrong_usage_of_check_is_unknown_and_never_critical(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, line = check(capsys, *arguments)
    assert code == 3 and line.startswith("PYDBT UNKNOWN - ")


def test_a_broken_settings_file_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "controller.toml"
    broken.write_text("[check]\nwarning = 'soon'\n")
    assert execute(["--config", str(broken), "check"]) == 3
    assert capsys.readouterr().out.startswith("PYDBT UNKNOWN - ")
    broken.write_text("[run]\nnonsense = 1\n")
    assert execute(["--config", str(broken), "check", "--state", "/nonexistent"]) == 3
    assert "nonsense" not in capsys.readouterr().out, "another command's table is not read"


def test_all_of_the_machine_is_as_bad_as_its_worst(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, "--all")[0] == 3
    folder = alone / "lib" / "data"
    folder.parent.mkdir()
    controller = Controller(folder)
    (folder / "volume.json").touch()
    with controller.serving():
        code, line = check(capsys, "--all")
        assert (code, line.startswith("PYDBT OK - /dev/vda3: ")) == (0, True)
        (alone / "lib/other").mkdir()
        (alone / "lib/other/volume.json").touch()
        code, line = check(capsys)
        assert code == 3 and line.startswith("PYDBT UNKNOWN - 1 of 2 are not as they should be: ")
        assert execute(["events", "--now", "--json"]) == 9
        lines = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
        assert [one["name"] for one in lines] == ["exists", "not-running", "now"]

"""`status` without arguments, and by the name of a TARGET: everything of this machine is found, the worst first."""

from __future__ import annotations

import grp
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.cli.group import execute
from pydbt.cli.overview import in_order
from pydbt.controller import public_status as public
from pydbt.controller import registry
from pydbt.controller.control import ControlServer, write_saved_status
from pydbt.controller.registry import registered_primary, registered_secondary
from pydbt.core.errors import PydbtError
from pydbt.core.units import MIB
from pydbt.device.sysfs import BlockDevice
from pydbt.store.replica_state import save_record
from tests.cli.conftest import REPLICA, STATUS, FakeController
from tests.cli.test_planted_state import keep_a_replica, keep_a_volume
from tests.core.secondary.test_brain import ADOPTED
from tests.lab.disks import image, loop_over
from tests.lab.patience import run
from tests.lab.programs import Outcome


def test_a_secondary_is_found_by_its_target_while_it_runs_and_afterwards(
    alone: Path, disk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in (disk, str(image(alone / "replica.img", MIB))):
        state = alone / f"state-{Path(target).name}"
        state.mkdir()
        with (
            registered_secondary(target, state, "127.0.0.1", 47001, keep=True),
            ControlServer(state, lambda _, gone, target=target: {**REPLICA, "target": target}),
        ):
            assert execute(["status", target]) == 0
            assert "streaming" in capsys.readouterr().out
        write_saved_status(state, REPLICA)
        code = execute(["status", target])
        Outcome(code, *capsys.readouterr()).refused(9, "last known state: offline, replica consistent")
    code = execute(["status", str(image(alone / "other.img", MIB))])
    Outcome(code, *capsys.readouterr()).refused(2, "regular file")


def test_a_controller_that_starts_is_told_from_one_that_is_not_there(
    alone: Path, disk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with registered_primary(BlockDevice.identify(disk), alone / "not-made-yet"):
        code = execute(["status", disk])
    Outcome(code, *capsys.readouterr()).refused(9, "is starting or ending", "its log")


def test_a_replica_that_was_promoted_is_in_the_list_and_called_promoted(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, state = image(alone / "t.img", MIB), alone / "state"
    state.mkdir()
    with registered_secondary(target, state, "127.0.0.1", 0, keep=True):  # as promote does
        pass
    write_saved_status(state, {**REPLICA, "mode": "offline", "target": str(target)})
    save_record(state, replace(ADOPTED, promoted="2026-01-02T03:04:05Z"))
    assert execute(["status"]) == 9
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(str(target)) and "it was promoted at 2026-01-02 03:04:05 UTC" in line


def test_a_later_device_of_the_same_name_is_not_taken_for_an_earlier_target(alone: Path) -> None:
    (alone / "state").mkdir()
    with loop_over(image(alone / "one.img", MIB)) as target:
        with registered_secondary(target, alone / "state", "127.0.0.1", 1, keep=True):
            pass
        assert registry.secondary_state_dir_of(target) == alone / "state"
        run("losetup", "--detach", str(target))
        run("losetup", str(target), str(image(alone / "two.img", MIB)))
        assert registry.secondary_state_dir_of(target) is None


GOOD = {"running": True, "role": "primary", "mode": "normal", "replica_state": "up-to-date", "connected": True}


def test_the_worst_comes_first_as_on_the_page() -> None:
    changes: dict[str, dict[str, object]] = {
        "/dev/e": {},
        "/dev/d": {"replica_state": "consistent"},
        "/dev/c": {"running": False},
        "/dev/b": {"mode": None},
        "/dev/a4": {"persist_problem": "no space left"},
        "/dev/a3": {"mode": "unsynchronized", "connected": False},
        "/dev/a2": {"running": False, "gate": {"outcome": "shut"}},
        "/dev/a1": {"running": False, "replica_state": "inconsistent"},
    }
    reports = [GOOD | {"source": source} | change for source, change in changes.items()]
    assert [report["source"] for report in in_order(reports)] == sorted(changes)


def test_status_lists_every_volume_and_replica_of_the_machine(
    alone: Path, disk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["status"]) == 9
    assert "no volume and no replica is known" in capsys.readouterr().err
    state, stopped = alone / "state", alone / "lib" / "vdb"
    for folder in (state, stopped, alone / "two"):
        folder.mkdir(parents=True)
    (stopped / "replica.json").touch()
    write_saved_status(stopped, {**REPLICA, "target": "/dev/vdb"})
    target = image(alone / "t.img", MIB)
    with (
        registered_primary(BlockDevice.identify(disk), state),
        ControlServer(state, lambda _, gone: {**STATUS, "source": disk, "connected": True}),
        registered_secondary(target, alone / "two", "127.0.0.1", 1, keep=True),
        ControlServer(alone / "two", lambda _, gone: {**REPLICA, "target": str(target)}),
    ):
        assert execute(["status"]) == 9, "one of them does not run"
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["/dev/vdb", str(target), disk], lines
        assert "no controller is running; last known state" in lines[0] and "up to date; normal" in lines[2]
        assert execute(["status", "--json"]) == 9
        listed = json.loads(capsys.readouterr().out)["volumes"]
        assert [one["running"] for one in listed] == [False, True, True]
        assert listed[2]["state_dir"] == str(state)


# Without root


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> int:
    """The group that may read the status: one of this machine's own, as if it were called so."""
    gid = grp.getgrnam("nogroup").gr_gid
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", gid, [])))
    return gid


def as_member(gid: int, script: str) -> str:
    """Run Python as a user who is in the group; what it prints."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([gid])
        os.setgid(65533)
        os.setuid(65533)
        try:
            scope = {"public": public, "say": lambda words: os.write(writer, f"{words}\n".encode())}
            exec(script, scope)
        except PydbtError as error:
            os.write(writer, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as output:
        text = output.read()
    os.waitpid(child, 0)
    return text


def test_the_group_may_look_and_change_nothing(members: int, controller: FakeController) -> None:
    with public.public_status(controller.state_dir, controller.answer):
        controller.state_dir.chmod(0o700)
        place = next(registry.RUN_DIR.glob(f"status-{registry.name_of(os.path.realpath(controller.state_dir))}*"))
        assert (place.stat().st_mode & 0o777, place.stat().st_gid) == (0o660, members)
        mode = "normal"
        assert mode in as_member(
            members, f"say([one.get('mode') for one in public.public_reports({str(controller.state_dir)!r})])"
        )
        for asked in ("down", "wait", "pause", "resume", "verify", "add", "remove"):
            told = as_member(members, f"public.call({str(place)!r}, {{'command': {asked!r}}}, 5)")
            assert "may look, and change nothing" in told, asked
        assert as_member(65532, f"say(public.public_reports({str(controller.state_dir)!r}))") == "[]\n", "not a member"
    assert {request["command"] for request in controller.asked} == {"status"}
    assert not place.exists()


def test_everything_that_the_group_may_ask_is_named_where_people_decide_who_is_in_it() -> None:
    text = (Path(__file__).parents[2] / "docs/operating/security.md").read_text()
    about = text[text.index("- **Members of the group") :]
    about = about[: about.index("\n- ")]
    named = re.search(r"everything that the dashboard shows \((.*?)\)", about, re.DOTALL)
    assert named is not None and set(re.findall(r"`(\w+)`", named[1])) == public.READING_COMMANDS


def test_a_secondary_that_is_not_root_s_needs_no_place_in_root_s_folder(members: int) -> None:
    assert as_member(members, "with public.public_status('/x', lambda *_: {}): say('it runs')") == "it runs\n"


def test_without_the_group_there_is_no_socket(monkeypatch: pytest.MonkeyPatch, controller: FakeController) -> None:
    def unknown(name: str) -> grp.struct_group:
        raise KeyError(name)

    monkeypatch.setattr(grp, "getgrnam", unknown)
    with public.public_status(controller.state_dir, controller.answer):
        assert public.public_reports(controller.state_dir) == []


LARGE = (
    "numpy", "rich", "bcc", "pyroute2", "ssl", "cryptography", "importlib.metadata", "ctypes", "secrets",
    "pydbt.core.primary.state", "pydbt.device.snapshot",
)  # fmt: skip


def brought_by_status(*arguments: object) -> tuple[str, list[str]]:
    """What a status says in a process of its own, and the large libraries that it brings."""
    words = ["status", *map(str, arguments)]
    script = (
        "import json, sys; from pydbt.cli.group import execute; "
        f"execute({words!r}); print(json.dumps([name for name in {LARGE} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    told, _, brought = done.stdout.rstrip("\n").rpartition("\n")
    return told + done.stderr, json.loads(brought)


def test_status_brings_no_large_library(controller: FakeController) -> None:
    """It is asked every few seconds by monitoring: numpy, rich, TLS and the compiler cost more than all the rest."""
    assert brought_by_status("/dev/null")[1] == []
    told, brought = brought_by_status("--state", controller.state_dir)
    assert "normal" in told and brought == []
    assert brought_by_status("--json", "--state", controller.state_dir)[1] == []


def test_the_status_of_a_stopped_volume_imports_only_the_modules_that_read_its_map(tmp_path: Path) -> None:
    for keep in (keep_a_volume, keep_a_replica):
        place = tmp_path / keep.__name__
        place.mkdir(mode=0o700)
        keep(place, image(tmp_path / "t.img", MIB))
        told, brought = brought_by_status("--state", place)
        assert "last known state" in told and set(brought) <= {"numpy", "ctypes", "secrets"}, brought

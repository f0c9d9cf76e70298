"""`protect` and `hold` serve what is configured, tell what they cannot do, and leave a machine that others configure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.cli import protecting
from pydbt.cli.group import execute
from pydbt.cli.volume_files import VOLUMES, read_volume, volume_files
from pydbt.controller.protection import Protection
from pydbt.core.configured.target_rules import Match, TargetRule
from pydbt.store.replica_state import save_record
from tests.controller.test_holding import RECORD
from tests.lab.programs import Outcome

COMMAND = "pydbt.cli.commands.protect"
RULE = TargetRule("data", "/dev/vdb", Match("ATTRS{wwid}", "naa.5"))


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "volumes"
    folder.mkdir()
    monkeypatch.setenv("PYDBT_VOLUMES", str(folder))
    return folder


Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def called(*words: str) -> Outcome:
        code = execute(list(words))
        return Outcome(code, *capsys.readouterr())

    return called


def write(folder: Path, name: str, text: str) -> None:
    state = folder.parent / f"{name}.state"
    (folder / f"{name}.toml").write_text(f'{text}\nstate = "{state}"\n')


def test_a_volume_that_may_be_a_replica_by_its_file_or_its_state_is_asked_for_its_record(volumes: Path) -> None:
    write(volumes, "new", '[secondary]\ntarget = "/dev/a"\nlisten = "unix:/a"')
    write(volumes, "source", '[run]\nsource = "/dev/b"\nsecondary = "unix:/b"')
    for name, table, promoted in (("demoted", "[run]\nsource", ""), ("promoted", "[secondary]\ntarget", "2026-01-01")):
        write(volumes, name, f'{table} = "/dev/c"')
        (volumes.parent / f"{name}.state").mkdir()
        save_record(volumes.parent / f"{name}.state", replace(RECORD, promoted=promoted))
    (volumes / "broken.toml").write_text("[")
    write(volumes, "unread", '[secondary]\ntarget = "/dev/d"\nlisten = "unix:/d"')
    (volumes.parent / "unread.state").mkdir()
    (volumes.parent / "unread.state/replica.json").write_text("{")
    write(volumes, "volume", '[run]\nsource = "/dev/e"\nsecondary = "unix:/e"')
    (volumes.parent / "volume.state").mkdir()
    (volumes.parent / "volume.state/volume.json").touch()
    found = {one.name: one.by_file for one in protecting.may_be_replicas()}
    assert found == {"demoted": False, "new": True, "promoted": True, "source": False, "unread": True}
    configured = [protecting.replica_of(read_volume(path)) for path in volume_files() if path.stem != "broken"]
    assert [one.name for one in configured if one is not None] == ["demoted", "new", "unread"]


def test_protect_refuses_another_folder_of_volumes(volumes: Path, call: Call) -> None:
    call("protect").refused(2, "PYDBT_VOLUMES")


def stand_in(monkeypatch: pytest.MonkeyPatch, done: Protection) -> None:
    monkeypatch.setattr(f"{COMMAND}.protect_configured", lambda: done)
    monkeypatch.setattr(f"{COMMAND}.volumes_folder", lambda: VOLUMES)
    monkeypatch.setattr(f"{COMMAND}.renew_initramfs", lambda done: "the RAM disk" if done.changed else "")


def test_the_written_files_are_named_and_how_each_target_is_known(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, Protection([RULE], [tmp_path, tmp_path / "gone"]))
    done = call("protect")
    assert done.code == 0
    assert "data: /dev/vdb is left alone, known by ATTRS{wwid} naa.5" in done.output
    assert f"{tmp_path} was written" in done.output and "gone was removed" in done.output and "RAM disk" in done.output
    assert "RAM disk" not in call("protect", "--no-initramfs").output


def test_a_second_call_has_nothing_to_change(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Protection([RULE]))
    assert "nothing to change\n" in call("protect").output
    stand_in(monkeypatch, Protection())
    assert "no replica on a device" in call("protect").output


def test_a_target_that_others_may_take_fails_the_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Protection([RULE], problems=["data: mounted"]))
    done = call("protect")
    assert done.code == 4 and "warning: data: mounted" in done.output


def test_there_is_nothing_to_hold_of_a_volume_or_an_image_file(call: Call, volumes: Path, tmp_path: Path) -> None:
    write(volumes, "source", '[run]\nsource = "/dev/null"\nsecondary = "unix:/b"')
    done = call("hold", "source")
    assert done.code == 0 and "no record of a replica" in done.output
    write(volumes, "new", '[secondary]\ntarget = "/dev/null"\nlisten = "unix:/n"')
    done = call("hold", "new")
    assert done.code == 0 and "first start of its secondary" in done.output
    (volumes.parent / "new.state").mkdir()
    save_record(volumes.parent / "new.state", replace(RECORD, promoted="2026-01-01"))
    done = call("hold", "new")
    assert done.code == 0 and "was promoted" in done.output
    write(volumes, "file", f'[secondary]\ntarget = "{tmp_path}/image"\nlisten = "unix:/a"')
    done = call("hold", "file")
    assert done.code == 0 and "image file" in done.output


def test_a_hold_of_a_path_needs_its_state(call: Call, volumes: Path) -> None:
    call("hold", "/dev/null").refused(2, "--state")


def test_a_role_that_changed_writes_rules_only_for_what_this_machine_configures(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: list[bool] = []
    monkeypatch.setattr(protecting, "protect_configured", lambda: wrote.append(True) or Protection(problems=["one"]))
    write(volumes, "data", '[secondary]\ntarget = "/dev/null"\nlisten = "unix:/a"')
    protecting.role_changed(Path("/dev/null"), promoted=True)
    assert not wrote, "another folder"
    monkeypatch.setattr(protecting, "volumes_folder", lambda: protecting.VOLUMES)
    protecting.role_changed(Path("/dev/zero"), promoted=False)
    assert not wrote, "another device"
    protecting.role_changed(Path("/dev/null"), promoted=False)
    assert wrote

"""Bare `controller secondary` runs every configured replica; `up --all` and `down --all` are for all of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from pydbt.cli import overview
from pydbt.cli.commands import up as starting
from pydbt.cli.group import cli, execute
from pydbt.cli.supervising import configured
from pydbt.core.errors import UsageError
from tests.cli.conftest import FakeController
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import Controller, Outcome, command, status_of


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "volumes"
    folder.mkdir()
    monkeypatch.setenv("PYDBT_VOLUMES", str(folder))
    return folder


def configure(folder: Path, name: str, target: Path | None = None) -> Path:
    """A replica in an image file; its state directory."""
    place = target or folder.parent / f"{name}.img"
    text = f'[secondary]\ntarget = "{place}"\nlisten = "unix:{folder.parent}/{name}.sock"\ncreate = "1M"\n'
    (folder / f"{name}.toml").write_text(f'{text}state = "{folder.parent}/{name}"\njournal-size = "16M"\n')
    return folder.parent / name


@pytest.fixture
def replicas(volumes: Path, tmp_path: Path) -> Iterator[Controller]:
    for name in ("one", "two"):
        configure(volumes, name)
    configure(volumes, "bad", tmp_path)  # a directory
    started = Controller(tmp_path / "log", ["secondary"])
    yield started
    started.process.kill()
    started.process.wait()


def runs(state_dir: Path) -> bool:
    status = status_of(state_dir)
    return status is not None and status["mode"] == "offline"


def test_a_replica_that_fails_touches_no_other_and_is_in_the_status(replicas: Controller, tmp_path: Path) -> None:
    until(lambda: runs(tmp_path / "one") and runs(tmp_path / "two"), "both run")
    until(lambda: "bad: " in replicas.words(), "the failure is told")
    command("status", "bad").refused(9, "bad has not run yet", "'controller secondary' has", "neither a block device")
    listed = json.loads(command("status", "--json").output)["volumes"]
    failed = next(one for one in listed if one.get("state_dir") == str(tmp_path / "bad"))
    assert "neither a block device" in failed["problem"] and not failed["running"]
    assert json.loads(command("status", "one", "--json").output)["running"]

    assert command("down", "one").output == "stopped\n"
    until(lambda: "one: ended in order" in replicas.words(), "it was seen")
    asked = command("up", "--all")
    assert asked.code == 0 and "one: running\n" in asked.output and "two: running\n" in asked.output, asked
    until(lambda: runs(tmp_path / "one"), "it runs again")

    replicas.process.send_signal(signal.SIGTERM)
    assert replicas.process.wait(60) == 0
    assert replicas.words().count("bad: ") == 1 and "Traceback" not in replicas.words()
    command("up", "--all").refused(9, "'controller run'", "'controller secondary'")


def test_a_command_without_any_volume_names_the_file_and_the_keys_to_write(volumes: Path) -> None:
    command("run").refused(2, "/etc/pydbt/volumes/NAME.toml", "[run]", "SOURCE")
    command("secondary").refused(2, "/etc/pydbt/volumes/NAME.toml", "[secondary]", "TARGET")
    command("up", "--all").refused(2, "/etc/pydbt/volumes/NAME.toml")
    command("up").refused(2, "--all")
    configure(volumes, "one")
    command("run").refused(2, "[run]")


def test_files_that_are_all_wrong_are_told_and_are_wrong_usage(volumes: Path) -> None:
    (volumes / "one.toml").write_text("[secondary]\nlisten = 7\n")
    ended = command("secondary")
    assert ended.code == 2 and "one: " in ended.errors and "configcheck" in ended.errors, ended
    (volumes / "one.toml").write_text("[secondary\n")
    ended = command("secondary")
    assert ended.code == 2 and "one.toml line 1: is not TOML" in ended.errors, ended


@pytest.mark.parametrize(
    ("change", "mode", "words"),
    [
        (lambda text: text.replace("[secondary]", "[secondary"), 0o644, "is not TOML"),
        (lambda text: text + "x = \n", 0o644, "is not TOML"),
        (lambda text: text + "[run]\n", 0o644, "secondary: missing"),
        (lambda text: text + '[run]\nsource = "/dev/vda3"\n', 0o644, "in one table alone"),
        (lambda text: "", 0o644, "a table"),
        (lambda text: text, 0o666, "not safe from other users"),
    ],
)
def test_a_file_whose_role_cannot_be_read_is_not_taken_for_a_removed_file(
    volumes: Path, change: Callable[[str], str], mode: int, words: str
) -> None:
    configure(volumes, "one")
    file = volumes / "one.toml"
    file.write_text(change(file.read_text()))
    file.chmod(mode)
    with click.Context(cli):
        found = configured("secondary", cli, volumes.parent / "none.toml")
    assert words in found["one"].wanted.problem and found["one"].serve is None


def test_a_folder_of_volumes_that_is_gone_does_not_mean_that_all_volumes_were_removed(volumes: Path) -> None:
    configure(volumes, "one")
    none, away = volumes.parent / "none.toml", volumes.parent / "away"
    with click.Context(cli):
        assert list(configured("secondary", cli, none)) == ["one"]
        volumes.rename(away)
        with pytest.raises(UsageError, match=f"{volumes} is gone: put it back"):
            configured("secondary", cli, none)
        volumes.write_text("")
        with pytest.raises(UsageError, match=f"{volumes} cannot be read"):
            configured("secondary", cli, none)
        volumes.unlink()
        volumes.mkdir()
        assert configured("secondary", cli, none) == {}, "an empty folder is such a word"


def test_settings_whose_place_cannot_be_looked_at_are_not_missing(volumes: Path) -> None:
    configure(volumes, "one")
    with click.Context(cli):
        found = configured("secondary", cli, volumes / "one.toml" / "controller.toml")
    assert found["controller.toml"].wanted.problem


def test_settings_that_cannot_be_read_any_more_may_be_those_of_a_volume_that_runs(volumes: Path) -> None:
    general = volumes.parent / "controller.toml"
    for text, mode in (("[run\n", 0o644), ("[run]\n", 0o666)):
        general.write_text(text)
        general.chmod(mode)
        with click.Context(cli):
            assert configured("run", cli, general)["controller.toml"].wanted.problem


def test_down_all_takes_down_each_and_goes_on_behind_a_failure(
    controller: FakeController,
    disk: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reports = [
        {"source": "/dev/gone", "state_dir": str(tmp_path / "none"), "running": False},
        {"source": "/dev/broken", "state_dir": str(tmp_path / "broken"), "running": False},
        {"source": disk, "state_dir": str(controller.state_dir), "running": True},
    ]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/volume.json").write_text("nonsense")
    monkeypatch.setattr(overview, "all_reports", lambda: reports)
    controller.ends_when_asked()
    code = execute(["down", "--all", "--timeout", str(PATIENCE_S)])
    outcome = Outcome(code, *capsys.readouterr())
    # One that takes long to end, as on a machine with much to do, is asked for its status as well.
    assert [one["command"] for one in controller.asked if one["command"] != "status"] == ["down"], outcome
    assert outcome.output == f"{disk}: stopped and detached\n", outcome
    failures = [line for line in outcome.errors.splitlines() if line.startswith("controller: ")]
    assert len(failures) == 1 and "/dev/broken: " in failures[0] and outcome.code == 7, outcome
    execute(["down", "--all", disk])
    assert "give one of them" in capsys.readouterr().err


def test_a_replica_with_a_unit_of_its_own_is_begun_by_that_unit(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bare `controller secondary` leaves it to its unit, and would start nothing."""
    configure(volumes, "one")
    configure(volumes, "two")
    monkeypatch.setattr(starting, "is_enabled", lambda unit: unit == "pydbt-secondary@two.service")
    assert execute(["up", "--all"]) == 9
    said = capsys.readouterr().err
    assert "'systemctl start pydbt-secondary@two.service'" in said and "@one" not in said

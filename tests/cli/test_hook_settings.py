"""Hooks in the files of volumes and in controller.toml: each fault is one line with its place; the right ones reach the run."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from pydbt.cli.group import cli, execute
from pydbt.cli.supervising import configured
from pydbt.core.seen.hooks import Hooks
from tests.cli.test_volume_files import REPLICA, RIGHT, Machine
from tests.cli.test_volume_files import machine as machine  # a fixture
from tests.lab.patience import until
from tests.lab.programs import Controller


def hook(folder: Path, mode: int = 0o755) -> Path:
    path = folder / "page"
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def hooks_of(machine: Machine, role: str, name: str) -> Hooks | None:
    """As the process that runs all configured volumes would give them to that of a volume."""
    group = cli
    assert isinstance(group, click.Group)
    with click.Context(group):
        serve = configured(role, group, machine.general)[name].serve
    if serve is None:
        return None
    (options,) = (cell.cell_contents for cell in serve.__closure__ or () if hasattr(cell.cell_contents, "hooks"))
    return options.hooks


def test_every_fault_of_the_table_is_one_line_with_its_place(machine: Machine, tmp_path: Path) -> None:
    loose = hook(tmp_path, 0o777)
    table = (
        '[hooks]\nout-of-sink = "/bin/true"\nin-sync = "true"\ntainted = []\nstarted = ["/bin/true", 1]\nany = ["/nonexistent"]\n'
        f'timeout = "soon"\nout-of-sync-after = true\nstopped = "{loose}"\nverified = "/bin/true"\n'
    )
    file = machine.write("data", RIGHT + table)
    found = machine.run("configcheck")
    assert found.code == 2 and "8 errors in 1 of " in found.errors, found
    lines = found.output.splitlines()
    for line, key, words in (
        (6, 'out-of-sink = "/bin/true"', "unknown key, did you mean 'out-of-sync'?"),
        (7, 'in-sync = "true"', "expected an absolute path of the program"),
        (8, "tainted = []", "expected a list of texts, the program and its arguments"),
        (9, 'started = ["/bin/true", 1]', "expected a list of texts"),
        (10, 'any = ["/nonexistent"]', "expected a program that is there"),
        (11, 'timeout = "soon"', "is no time"),
        (12, "out-of-sync-after = true", "expected a time"),
        (13, f'stopped = ["{loose}"]', "expected a program that nobody else may write"),
    ):
        assert any(told.startswith(f"{file} line {line}: {key}: ") and words in told for told in lines), (line, found)
    assert not any("verified" in told for told in lines)


@pytest.mark.parametrize("value", ["0.5", '"2h"'])
def test_a_time_that_no_hook_may_have_is_refused(machine: Machine, value: str) -> None:
    machine.write("data", f"{RIGHT}[hooks]\ntimeout = {value}\n")
    found = machine.run("configcheck")
    assert found.code == 2 and "expected a time of at least 1 s and at most 3600 s" in found.output


def test_a_table_that_is_none_is_told(machine: Machine) -> None:
    file = machine.write("data", f"hooks = 1\n{RIGHT}")
    found = machine.run("configcheck")
    assert found.code == 2 and f"{file} line 1: hooks = 1: expected a line [hooks]" in found.output
    file.unlink()
    machine.general.write_text("hooks = 1\n")
    assert "expected a line [hooks]" in machine.run("configcheck").output
    machine.general.write_text('[hooks]\nanything = "/bin/true"\n')
    assert "line 2: anything" in machine.run("configcheck").output


def test_a_volume_has_the_hooks_of_its_file_or_else_the_general_ones(machine: Machine, tmp_path: Path) -> None:
    program = str(hook(tmp_path))
    machine.general.write_text(f'[hooks]\nany = "{program}"\ntimeout = 5\n')
    machine.write("data", f'{RIGHT}[hooks]\nstopped = ["{program}", "x"]\nout-of-sync-after = "2m"\n')
    machine.write("rep", REPLICA)
    assert machine.run("configcheck").code == 0
    assert hooks_of(machine, "run", "data") == Hooks((("stopped", (program, "x")),), late_after_s=120.0)
    assert hooks_of(machine, "secondary", "rep") == Hooks((("any", (program,)),), timeout_s=5.0)


def test_a_program_that_is_missing_is_an_error_of_the_check_and_keeps_no_volume_from_running(machine: Machine) -> None:
    machine.write("data", f'{RIGHT}[hooks]\nany = "/nonexistent"\n')
    assert machine.run("configcheck").code == 2
    assert hooks_of(machine, "run", "data") == Hooks((("any", ("/nonexistent",)),))


def test_other_hooks_are_another_configuration_and_the_same_ones_are_not(machine: Machine) -> None:
    group = cli
    assert isinstance(group, click.Group)

    def settings(hooks: str) -> str:
        machine.write("data", RIGHT + hooks)
        with click.Context(group):
            return configured("run", group, machine.general)["data"].wanted.settings

    one = '[hooks]\nany = "/bin/true"\n'
    assert settings("") != settings(one) == settings(f"# a comment\n{one}")
    machine.general.write_text(one)
    assert settings("") == settings(one)


def test_a_wrong_hook_ends_a_run_before_it_begins_and_no_other_command(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.general.write_text('[hooks]\nanything = "/bin/true"\n')
    assert machine.run("configcheck", "--help").code == 0
    assert "line 2" not in machine.run("status").errors
    code = execute(
        ["--config", str(machine.general), "secondary", f"{machine.volumes}/x.img", "--listen", f"unix:{machine.volumes}/s",
         "--state", f"{machine.volumes}/state", "--create", "1M"]
    )  # fmt: skip
    assert code == 2 and f"{machine.general} line 2: anything of [hooks]: unknown key" in capsys.readouterr().err


def test_a_replica_that_runs_by_its_name_runs_its_hooks_until_its_end(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = hook(tmp_path)
    program.write_text(f'#!/bin/sh\necho "$PYDBT_VOLUME $PYDBT_ROLE $PYDBT_EVENT $1" >> {out}\n')
    machine.write(
        "rep",
        f'[secondary]\ntarget = "{tmp_path}/rep.img"\nlisten = "unix:{tmp_path}/s"\ncreate = "1M"\nstate = "{tmp_path}/state"\n'
        f'journal-size = "16M"\n[hooks]\nany = ["{program}", "$HOME"]\nstopped = ["/nonexistent"]\n',
    )
    for words in (["secondary"], ["secondary", "rep"]):
        out.unlink(missing_ok=True)
        started = Controller(tmp_path / "log", words)
        try:
            until(lambda: out.exists() and "started" in out.read_text(), "it is run")
            assert started.terminate() == 0
        finally:
            started.end()
        assert out.read_text().splitlines() == ["rep secondary started $HOME", "rep secondary stopped $HOME"]
        assert (
            "the hook /nonexistent for the event stopped is not run: expected a program that is there"
            in started.words()
        )

"""Completion in the shells: everything of the program is offered, nothing is started for it, and no user sees an error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click
import pytest

from pydbt.cli.group import cli
from tests.packages.shells import Terminal

NOBODY = 65534
# As bash calls it at a Tab, with the cursor at the end of the line.
ASK = """
ask() { COMP_LINE=$1 COMP_POINT=${#1}; _controller 2>&1; printf '%s\\n' "${COMPREPLY[@]}"; }
set -u
ask "$1"
"""


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A folder of a machine with a volume, a replica, and what is neither."""
    folder = tmp_path / "volumes"
    folder.mkdir()
    (folder / "data.toml").write_text('# a volume\n[run]\nsource = "/dev/vda3"\n')
    (folder / "copy.toml").write_text('[secondary]\ntarget = "/dev/vdb"\n')
    (folder / "notes.txt").write_text("[run]")
    (folder / "$(touch forbidden).toml").write_text("[run]")
    return folder


def offered(generated: Path, line: str, volumes: Path, folder: Path | None = None, **how: int) -> list[str]:
    """What bash offers for a line, in its order."""
    script = (generated / "bash/controller").read_text() + ASK
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", line], cwd=folder or volumes, capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "PYDBT_VOLUMES": str(volumes)}, **how,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


def every_command(group: click.Group = cli, path: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = [(path, group)]
    for name, command in group.commands.items():
        more = (
            every_command(command, f"{path}{name} ")
            if isinstance(command, click.Group)
            else [(f"{path}{name} ", command)]
        )
        found += more
    return found


@pytest.mark.parametrize(("path", "command"), every_command())
def test_bash_offers_every_command_and_every_option(
    path: str, command: click.Command, generated: Path, volumes: Path
) -> None:
    options = {name for one in command.params if isinstance(one, click.Option) for name in one.opts}
    assert set(offered(generated, f"controller {path}-", volumes)) == options | {"-h", "--help"}
    if isinstance(command, click.Group):
        assert offered(generated, f"pydbt {path}", volumes) == list(command.commands)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("controller pr", ["promote", "protect"]),
        ("controller --debug --config /x pr", ["promote", "protect"]),
        ("controller run --capture ", ["payload", "addresses"]),
        ("controller run --capture=p", ["payload"]),
        ("controller run --timeout", []),
        ("controller run --log-size ", []),
        ("controller pki i", ["init", "issue"]),
        ("controller promote c", ["copy"]),
        ("controller demote d", ["data"]),
        ("controller status ", ["copy", "data"]),
        ("controller secondary --state /x c", ["copy"]),
        ("controller help st", ["status"]),
        ("controller help run st", ["status"]),
        ("controller up ", ["--all", "--timeout", "-h", "--help"]),
        ("controller nonsense ", []),
    ],
)
def test_bash_offers_what_fits_at_that_place(
    line: str, words: list[str], generated: Path, volumes: Path, tmp_path: Path
) -> None:
    found = [word for word in offered(generated, line, volumes, tmp_path) if "/" not in word and word != "volumes"]
    assert found == words


def test_names_are_of_the_role_and_nothing_in_them_is_carried_out(generated: Path, volumes: Path) -> None:
    before = sorted(volumes.iterdir())
    names = [word for word in offered(generated, "controller run ", volumes) if "/" not in word]
    assert names == ["data"] and sorted(volumes.iterdir()) == before


def test_block_devices_of_the_machine_are_offered_for_a_source(generated: Path, volumes: Path) -> None:
    devices = []
    for entry in sorted(Path("/sys/class/block").iterdir()):
        mapped = entry / "dm/name"
        if (entry / "size").exists() and not entry.name.startswith("loop") and (entry / "size").read_text() != "0\n":
            name = f"mapper/{mapped.read_text().strip()}" if mapped.exists() else entry.name.replace("!", "/")
            devices.append(f"/dev/{name}")
    assert devices and set(devices) <= set(offered(generated, "controller run ", volumes))


def test_files_and_folders_are_offered_where_they_are_meant(generated: Path, volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "some.identity").touch()
    assert offered(generated, "controller run --state s", volumes, tmp_path) == ["state"]
    assert offered(generated, "controller run --identity s", volumes, tmp_path) == ["some.identity", "state"]
    assert offered(generated, "controller run --identity=so", volumes, tmp_path) == ["some.identity"]
    assert "copy" in offered(generated, "controller secondary c", volumes, tmp_path)


@pytest.mark.parametrize(
    "line", ["controller ", "controller run ", "controller status ", "controller wait --secondary "]
)
def test_a_user_who_may_read_nothing_sees_no_error(line: str, generated: Path, volumes: Path) -> None:
    volumes.chmod(0o700)
    found = offered(generated, line, volumes, Path("/"), user=NOBODY, group=NOBODY)
    assert "data" not in found and ("status" in found) == (line == "controller ")


def test_nothing_of_the_program_is_needed_at_a_tab(generated: Path, volumes: Path) -> None:
    """The start of the program costs 0.3 seconds of processor time, and more on a machine that is busy."""
    for script in ("bash/controller", "zsh/_controller", "fish/controller.fish"):
        text = (generated / script).read_text()
        assert "python" not in text and "_COMPLETE" not in text
    assert offered(generated, "controller ", volumes), "PATH has no such program"


def test_a_tab_completes_in_a_real_bash(generated: Path, volumes: Path, tmp_path: Path) -> None:
    with Terminal(["bash", "--norc", "-i"], tmp_path, PYDBT_VOLUMES=str(volumes), PS1="ready> ") as bash:
        bash.until("ready> ")
        bash.keys(f"source {generated}/bash/controller; PS1='do''ne> '\n")
        bash.until("done> ")
        bash.keys("controller prom\t")
        bash.until("controller promote ")
        bash.keys("co\t")
        bash.until("copy ")
        bash.keys("--forc\t")
        bash.until("--force ")


def test_zsh_has_every_command_and_every_option_with_its_text(generated: Path) -> None:
    text = (generated / "zsh/_controller").read_text().replace("'\\''", "'").replace("\\[", "[").replace("\\]", "]")
    for path, command in every_command():
        summary = (command.help or "").partition("\n")[0].rstrip(".")
        assert not path or f"{path.split()[-1]}:{summary}" in text, path
        for one in command.params:
            if isinstance(one, click.Option):
                for name in one.opts:
                    assert f"{name}{'' if one.is_flag else '='}[{(one.help or '').rstrip('.')}]" in text, (
                        f"{path}{name}"
                    )


@pytest.mark.packages
def test_a_tab_completes_in_a_real_zsh(generated: Path, volumes: Path, tmp_path: Path) -> None:
    with Terminal(["zsh", "-f", "-i"], tmp_path, PYDBT_VOLUMES=str(volumes), PS1="ready> ") as zsh:
        zsh.until("ready> ")
        zsh.keys(f"fpath=({generated}/zsh $fpath); autoload -Uz compinit; compinit -u -D; PROMPT='do''ne> '\n")
        zsh.until("done> ")
        for typed, shown in (
            ("controller prom", "controller promote "),
            ("controller promote co", "controller promote copy "),
            ("pydbt pki rev", "pydbt pki revoke "),
            ("controller run --cap", "controller run --capture="),
            ("controller run --capture add", "controller run --capture addresses "),
            ("controller run da", "controller run data "),
            ("controller help stat", "controller help status "),
        ):
            zsh.keys(f"{typed}\t")
            zsh.until(
                shown.removeprefix(typed).rstrip("=") if shown.endswith("=") else shown.rstrip().removeprefix(typed)
            )
            zsh.keys("\x15")


@pytest.mark.packages
def test_zsh_says_nothing_at_any_tab(generated: Path, volumes: Path, tmp_path: Path) -> None:
    with Terminal(["zsh", "-f", "-i"], tmp_path, PYDBT_VOLUMES=str(volumes), PS1="ready> ") as zsh:
        zsh.until("ready> ")
        zsh.keys(f"fpath=({generated}/zsh $fpath); autoload -Uz compinit; compinit -u -D; PROMPT='do''ne> '\n")
        zsh.until("done> ")
        for number, (path, _) in enumerate(every_command()):
            # ^U takes the line away, and an empty command ends the question.
            zsh.keys(f"controller {path}\t\x15: asked {number}\n")
            shown = zsh.until("done> ")
            for word in ("_arguments", "_alternative", "not found", "bad ", "error", "_controller"):
                assert word not in shown, shown


def fish(generated: Path, volumes: Path, home: Path, *lines: str) -> list[list[str]]:
    """What fish offers for each line, without the texts beside it."""
    script = f"source {generated}/fish/controller.fish; source {generated}/fish/pydbt.fish\n"
    script += "".join(f"echo ==; complete -C '{line}'\n" for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], cwd=home, capture_output=True, text=True, timeout=300,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PYDBT_VOLUMES": str(volumes)},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [[row.split("\t")[0] for row in part.splitlines() if row] for part in done.stdout.split("==\n")[1:]]


@pytest.mark.packages
def test_fish_offers_every_command_and_every_option(generated: Path, volumes: Path, tmp_path: Path) -> None:
    commands = every_command()
    answers = fish(generated, volumes, tmp_path, *(f"controller {path}--" for path, _ in commands))
    for (path, command), found in zip(commands, answers, strict=True):
        options = {max(one.opts, key=len) for one in command.params if isinstance(one, click.Option)}
        assert set(found) == options | {"--help"}, path


@pytest.mark.packages
def test_fish_offers_what_fits_at_that_place(generated: Path, volumes: Path, tmp_path: Path) -> None:
    asked = {
        "controller prom": ["promote"],
        "pydbt pki re": ["renew", "revoke"],
        "controller run --capture ": ["addresses", "payload"],
        "controller run d": ["data"],
        "controller promote ": ["copy"],
        "controller status ": ["copy", "data"],
        "controller help stat": ["status"],
        "controller nonsense ": [],
    }
    for line, found in zip(asked, fish(generated, volumes, tmp_path, *asked), strict=True):
        assert [word for word in found if "/" not in word and "." not in word and word != "volumes"] == asked[line], (
            line
        )

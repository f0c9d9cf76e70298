"""The help of every command is short enough to be read whole in a list, and every option is explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pydbt.cli.group import cli
from pydbt.cli.sections import SectionedCommand

SUMMARY_LENGTH = 45  # more is cut off in `controller --help`
COMMANDS = Path(__file__).resolve().parents[2] / "pydbt/cli/commands"


def all_commands(group: click.Group = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{path}{name} ")


EVERY = pytest.mark.parametrize("command", [pytest.param(command, id=path) for path, command in all_commands()])


@EVERY
def test_the_summary_of_a_command_is_one_whole_sentence(command: click.Command) -> None:
    first = (command.help or "").partition("\n")[0]
    assert first.endswith(".") and len(first) <= SUMMARY_LENGTH, first
    assert command.get_short_help_str(SUMMARY_LENGTH).rstrip(".") == first.rstrip("."), "it is cut off"


@EVERY
def test_every_option_of_a_command_has_a_help_text(command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_no_command_imports_another_one() -> None:
    for path in COMMANDS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(("pydbt.cli.commands", "pydbt.cli.group")), path


def test_the_options_of_run_stand_in_sections_each_in_one() -> None:
    run = cli.commands["run"]
    assert isinstance(run, SectionedCommand)
    placed = [name for names in run.sections.values() for name in names]
    known = {max(option.opts, key=len).removeprefix("--") for option in run.params if isinstance(option, click.Option)}
    assert sorted(placed) == sorted(known | {"help"})
    shown = run.get_help(click.Context(run, info_name="run"))
    assert all(f"{heading}:" in shown for heading in run.sections) and "Other options" not in shown


@pytest.mark.parametrize("width", range(40, 101, 4))
@pytest.mark.parametrize("name", ["gate", "run"])
def test_a_name_with_a_hyphen_stands_in_one_line(name: str, width: int) -> None:
    command = cli.commands[name]
    shown = command.get_help(click.Context(command, info_name=name, terminal_width=width, max_content_width=width))
    assert "on-unreachable" in shown and "\N{NON-BREAKING HYPHEN}" not in shown
    assert not [line for line in shown.splitlines() if re.search(r"\w-$", line)]


def test_a_command_that_is_loaded_when_it_is_asked_for_is_in_the_list() -> None:
    assert len(cli.commands) == len(set(cli.commands)) >= 15
    assert "nonsense" not in cli.commands and cli.commands.get("nonsense") is None

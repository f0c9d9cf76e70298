"""The man pages: formatted without a warning, and with every option and every key of the program."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest

from pydbt.cli.explain import EXIT_CODES
from pydbt.cli.group import cli
from pydbt.cli.once import OnceOption
from pydbt.controller.options import ALLOW_SHORT_TIMES
from pydbt.controller.state_dir import ALLOW_MEMORY
from tests.lab.programs import ROOT

sys.path.append(str(ROOT / "packaging"))
from generate.examples import EXAMPLES, OF_THE_PROGRAM
from generate.roff import Page, escape, marked

PAGES = ["controller.8", *(f"controller-{name}.8" for name in cli.commands), "pydbt-volume.5", "controller.toml.5"]
EVERY = pytest.mark.parametrize("name", PAGES)
# Requests and macros that the pages use; any other at the begin of a line is a text that was not escaped.
MACROS = {".TH", ".SH", ".SS", ".PP", ".TP", ".IP", ".nf", ".fi", ".RS", ".RE", ".br"}
# A macro of the programs for the kernel, and variables for tests alone.
NOT_FOR_USERS = {"PYDBT_PAYLOAD", "PYDBT_TARGET", ALLOW_MEMORY, ALLOW_SHORT_TIMES}  # the second is a property of udev
# What a hook finds in its environment: docs/reference/events.md.
FOR_HOOKS = {"PYDBT_DROPPED"}


def words_of(path: Path) -> str:
    """The text of a page without fonts and escapes."""
    text = re.sub(r"\\f[BIR]|\\&", "", path.read_text())
    for escaped, plain in ((r"\-", "-"), (r"\(aq", "'"), (r"\(dq", '"'), (r"\(ga", "`"), (r"\(ti", "~"), (r"\e", "\\")):
        text = text.replace(escaped, plain)
    return " ".join(text.split())


def test_there_is_a_page_for_every_command_and_every_kind_of_file_and_no_other(generated: Path) -> None:
    assert {path.name for path in (generated / "man").iterdir()} == {*PAGES, "pydbt.8"}
    assert (generated / "man/pydbt.8").read_text() == ".so man8/controller.8\n"


@EVERY
def test_mandoc_and_man_format_a_page_without_a_warning(name: str, generated: Path) -> None:
    page = generated / "man" / name
    linted = subprocess.run(["mandoc", "-Tlint", page], capture_output=True, text=True, timeout=60)
    assert linted.returncode == 0 and not linted.stdout + linted.stderr, linted.stdout
    # As lintian does.
    formatted = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
        capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
    )  # fmt: skip
    assert formatted.returncode == 0 and formatted.stdout and not formatted.stderr, formatted.stderr


@EVERY
def test_a_page_has_every_section_that_a_reader_looks_for(name: str, generated: Path) -> None:
    sections = re.findall(r'^\.SH "(.+)"$', (generated / "man" / name).read_text(), flags=re.MULTILINE)
    assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"] and sections[-1] == "SEE ALSO"
    assert {"EXIT STATUS", "FILES", "EXAMPLES" if name.endswith("8") else "ERRORS"} <= set(sections)
    assert len(sections) == len(set(sections))


@EVERY
def test_no_text_is_taken_for_a_macro_and_no_hyphen_for_a_dash(name: str, generated: Path) -> None:
    for line in (generated / "man" / name).read_text().splitlines():
        assert not line.startswith("'") and (not line.startswith(".") or line.split()[0] in MACROS), line
        assert line.startswith(".TH") or not re.search(r"(?<!\\)-", line), line
        assert line.isascii() and line == line.rstrip(), line


@EVERY
def test_a_page_that_another_names_exists(name: str, generated: Path) -> None:
    for named, section in re.findall(r"((?:controller|pydbt)[\w.-]*)\((\d)\)", words_of(generated / "man" / name)):
        assert f"{named}.{section}" in PAGES, f"{named}({section})"


def every_command(group: click.Group = cli, path: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        found += (
            every_command(command, f"{path}{name} ") if isinstance(command, click.Group) else [(path + name, command)]
        )
    return found


@pytest.mark.parametrize(("path", "command"), every_command())
def test_every_option_of_a_command_is_on_its_page_with_its_help(
    path: str, command: click.Command, generated: Path
) -> None:
    words = words_of(generated / f"man/controller-{path.split()[0]}.8")
    for option in command.params:
        if isinstance(option, click.Option):
            for name in option.opts:
                assert f" {name} " in words, f"{path} {name}"
            assert option.help and " ".join(option.help.replace("`", "").split()) in words, f"{path} {option.opts}"
    assert f"controller {path}" in words


def test_the_page_of_the_program_has_its_commands_options_and_variables(generated: Path) -> None:
    words = words_of(generated / "man/controller.8")
    for name in cli.commands:
        assert f"controller-{name}(8)" in words
    for option in cli.params:
        assert max(option.opts, key=len) in words
    sources = "".join(path.read_text() for path in (ROOT / "pydbt").rglob("*.py"))
    named = set(re.findall(r'"(PYDBT_[A-Z_]+)"', sources)) - NOT_FOR_USERS - FOR_HOOKS
    assert "PYDBT_CONFIG" in named and not [one for one in named if f".TP {one} " not in words]


@pytest.mark.parametrize("name", [page for page in PAGES if page.endswith("8")])
def test_a_page_of_a_command_has_every_exit_code(name: str, generated: Path) -> None:
    words = words_of(generated / "man" / name)
    for code, meaning in re.findall(r"^ *(\d+)  (.+)$", EXIT_CODES, flags=re.MULTILINE):
        assert f"{code} {meaning}" in words


def keys_of(command: click.Command) -> set[str]:
    """The keys of the table of a command, judged apart from the code that makes the pages."""
    keys = set()
    for one in command.params:
        if isinstance(one, click.Option) and not isinstance(one, OnceOption):
            keys.add(max(one.opts, key=len).removeprefix("--"))
        elif isinstance(one, click.Argument) and one.nargs == 1:
            keys.add(str(one.name))
    return keys


@pytest.mark.parametrize("role", ["run", "secondary"])
def test_every_key_of_a_volumes_file_is_on_its_page(role: str, generated: Path) -> None:
    text = (generated / "man/pydbt-volume.5").read_text()
    (section,) = re.findall(
        rf'^\.SH "KEYS OF \[{role.upper()}\]"\n(.*?)(?=^\.SH)', text, flags=re.MULTILINE | re.DOTALL
    )
    found = {
        key.replace("\\-", "-") for key in re.findall(r"^\.TP\n\\fB([\w\\-]+)\\fR = \\fI", section, flags=re.MULTILINE)
    }
    assert found == keys_of(cli.commands[role]) - {"no-wait"}


@cache
def tables(page: Path) -> dict[str, set[str]]:
    parts = re.split(r'^\.SS "\[(\w+)\]"\n', page.read_text().partition('.SH "VALUES"')[0], flags=re.MULTILINE)[1:]
    found = zip(parts[::2], parts[1::2], strict=True)
    return {
        name: {key.replace("\\-", "-") for key in re.findall(r"^\\fB([\w\\-]+)\\fR = ", part, flags=re.MULTILINE)}
        for name, part in found
    }


def test_every_key_of_every_other_table_is_on_the_page_of_the_settings_file(generated: Path) -> None:
    found = tables(generated / "man/controller.toml.5")
    for name, command in cli.commands.items():
        if isinstance(command, click.Group) or name == "help":
            assert name not in found
        elif name in ("run", "secondary"):
            assert found.get(name, set()) == keys_of(command) & {"no-wait"}
        else:
            assert found.get(name, set()) == keys_of(command)


@pytest.mark.parametrize("line", [line for group in (OF_THE_PROGRAM, *EXAMPLES.values()) for _, line in group])
def test_an_example_is_a_command_with_options_that_exist(line: str) -> None:
    words = line.removeprefix("sudo ").removeprefix("controller ").split()
    path = next(name for name, _ in every_command() if words[: len(name.split())] == name.split())
    context = dict(every_command())[path].make_context(path, words[len(path.split()) :], resilient_parsing=True)
    known = {name for option in context.command.params for name in option.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= known


HAZARDS = [
    ".SH is no heading",
    "'quoted' at the begin",
    "--a-b",
    r"back\fBslash",
    'a "quote"',
    "tilde ~ caret ^ grave",
    "em — dash",
]


@pytest.mark.parametrize("text", HAZARDS)
def test_a_text_with_roffs_own_characters_is_read_as_it_was_written(text: str, tmp_path: Path) -> None:
    page = Page("hazard", 8, "2026-01-02", "pydbt 1")
    page.heading("name")
    page.one_line(escape("hazard") + r" \- a test")
    page.heading(text)
    page.paragraph(text)
    page.item(text, text)
    page.bullet(text)
    page.code([text])
    (tmp_path / "hazard.8").write_text(page.text())
    shown = subprocess.run(
        ["mandoc", "-Tutf8", "-Owidth=200", tmp_path / "hazard.8"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    plain = re.sub(r".\x08", "", shown)
    assert plain.count(text) >= 4 and plain.upper().count(text.upper()) >= 5, plain


def test_marks_of_the_documents_become_fonts() -> None:
    assert marked("`--a`, **b** and *c* of [this page](x.md#y)") == r"\fB\-\-a\fR, \fBb\fR and \fIc\fR of this page"

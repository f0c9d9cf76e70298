"""The documents are true where a test can tell: links, files, names, commands, options, exit codes and keys of the status."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from pydbt.cli.explain import EXIT_CODES
from pydbt.cli.group import cli
from pydbt.cli.once import OnceOption
from pydbt.cli.program import INTERRUPTED, PIPE_CLOSED, TERMINATED
from pydbt.cli.volume_files import NEEDED, checked_values, read_volume
from pydbt.controller.secondary.report import SecondaryServiceReport
from pydbt.core import errors
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.secondary.replica import ReplicaState
from pydbt.core.secondary.status import ReplicaStatus
from pydbt.core.secondary.told_transactions import ReplicaTransactions

PROJECT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
REFERENCE = PROJECT / "docs/reference"
DECISIONS = PROJECT / "docs/internals/decisions.md"
# Folders at the top whose files a document may name.
PLACES = ("pydbt", "tests", "docs", "bpf", "scripts", "packaging", ".ci")
# Options of other programs that documents mention.
FOREIGN_OPTIONS = {
    "--no-block",
    "--now",
    "--direct-io",
    "--inplace",
    "--no-whole-file",
    "--ignore-times",
    "--setra",
    "--net",
    "--path",
    "--suffix",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def slug_of(heading: str) -> str:
    """The anchor that a heading has on code hosts."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


@cache
def anchors_of(path: Path) -> frozenset[str]:
    text = path.read_text()
    headings = (slug_of(line.lstrip("#")) for line in text.splitlines() if line.startswith("#"))
    return frozenset([*headings, *re.findall(r'<a id="([^"]+)">', text)])


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_link_leads_to_a_file_and_to_a_heading_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        assert file.exists(), f"{name_of(path)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors_of(file), f"{name_of(path)} links to {target}: there is no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_file_of_the_project_that_a_document_names_exists(path: Path) -> None:
    named = re.findall(rf"(?<![\w/.~-])((?:{'|'.join(map(re.escape, PLACES))})/[\w./-]*\w)", path.read_text())
    missing = [name for name in named if not (PROJECT / name).exists() and not (PROJECT / f"{name}.py").exists()]
    assert not missing, f"{name_of(path)} names {', '.join(missing)}: there is no such file"


def test_the_tests_that_the_scenarios_name_exist() -> None:
    for words in re.findall(r"`([^`]+)`", (PROJECT / "docs/internals/scenarios.md").read_text()):
        if re.fullmatch(r"[\w/]+/\w+", words):
            place = PROJECT / ("" if words.startswith("tests/") else "tests") / words
            assert place.with_suffix(".py").exists() or place.is_dir(), f"the scenarios name {words}, which is no test"


def test_the_words_of_a_test_that_the_scenarios_quote_are_in_a_name_of_its_file() -> None:
    quoted = 0
    for row in (PROJECT / "docs/internals/scenarios.md").read_text().splitlines():
        places = [PROJECT / "tests" / f"{name}.py" for name in re.findall(r"`([\w/]+/test_\w+)`", row)]
        names = [name for place in places for name in re.findall(r"def test_(\w+)", place.read_text())]
        for words in re.findall(r"\*([a-z][a-z ]+ [a-z ]+)\*", row.rpartition(" | ")[2]):
            quoted += 1
            assert any(words.replace(" ", "_") in name for name in names), f"no test of {places} is called *{words}*"
    assert quoted > 20


# --- names of the code ------------------------------------------------------------------------------------


@cache
def names_in(module: Path) -> frozenset[str]:
    """What a module defines at its top, and ``Class.member`` for the members of its classes."""
    return frozenset(_defined(ast.parse(module.read_text()), ""))


def _defined(tree: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name
            case ast.ClassDef(name=name):
                yield prefix + name
                yield from _defined(node, f"{prefix}{name}.")
            case ast.Assign(targets=targets):
                yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield prefix + name


def cells_of(line: str) -> list[str]:
    """A ``|`` that belongs to the text of a cell is written ``\\|``."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))]


def rows_of(text: str, columns: int) -> Iterator[list[str]]:
    """The cells of table rows with this many columns, without heads."""
    for line in text.splitlines():
        cells = cells_of(line)
        if line.startswith("|") and len(cells) == columns and not set(cells[0]) <= set("- :"):
            yield cells


def ragged_rows(text: str) -> Iterator[str]:
    """Rows of tables that have more or fewer cells than the head of their table."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, flags=re.MULTILINE):
        lines = block.splitlines()
        columns = len(cells_of(lines[0]))
        yield from (line for line in lines if len(cells_of(line)) != columns)


def test_a_row_with_a_cell_too_few_or_too_many_is_found() -> None:
    assert list(ragged_rows("| a | b |\n|---|---|\n| 1 | `x \\| y` |\n| 2 |\n| 3 | 4 | 5 |\n")) == [
        "| 2 |",
        "| 3 | 4 | 5 |",
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_each_row_of_a_table_has_as_many_cells_as_its_head(path: Path) -> None:
    ragged = list(ragged_rows(path.read_text()))
    assert not ragged, f"{name_of(path)}: these rows do not fit their table: {ragged}"


def test_each_decision_is_made_where_the_table_of_decisions_says() -> None:
    made = 0
    for decision, places in rows_of(DECISIONS.read_text(), 2):
        if decision == "decision":
            continue  # the head of a table
        found = re.findall(r"`(pydbt/[\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", places)
        assert found, f"the decision {decision!r} names no module and function"
        for module, names in found:
            for name in re.findall(r"`([\w.]+)`", names):
                assert name in names_in(PROJECT / module), f"{decision!r}: {module} has no {name}"
                made += 1
        own = frozenset().union(*(names_in(PROJECT / module) for module, _ in found))
        for name in re.findall(r"`([A-Za-z_.]+)`", places):  # also one that stands behind the words of another
            assert name in own, f"{decision!r} names {name}, which is in none of its modules"
    assert made >= 10


ARCHITECTURE = PROJECT / "ARCHITECTURE.md"
# Names of the kernel, which look as if they were names of the program.
NAMES_OF_THE_KERNEL = {"block_bio_queue", "O_DIRECT"}


@cache
def names_of_the_program() -> frozenset[str]:
    """Names that one word may stand for: those of code, also without their class, of folders, commands, modes and states."""
    places = [path for path in (PROJECT / "pydbt").rglob("*") if "__pycache__" not in path.parts]
    known = frozenset().union(*(names_in(path) for path in places if path.suffix == ".py"))
    folders = {path.name for path in (*places, *PROJECT.iterdir()) if path.is_dir()}
    states = {str(one) for kind in (Mode, Phase, ReplicaState) for one in kind}
    return known | {name.rpartition(".")[2] for name in known} | folders | set(cli.commands) | states


def unknown_names(text: str) -> list[str]:
    """Names between backquotes that are not in the program: ``Class``, ``Class.member``, ``function`` and ``function(...)``."""
    quoted = (words.partition("(")[0] for words in re.findall(r"`([^`]+)`", text))
    names = [words for words in quoted if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)?", words)]
    known = names_of_the_program() | NAMES_OF_THE_KERNEL
    return [name for name in names if name not in known and name not in texts_of_the_program()]


def test_names_that_are_not_in_the_program_are_found() -> None:
    known = "`Primary`, `PrimaryLoop.turn`, `handle(event, now)`, `wake_at`, `core`, `dashboard`, `unsynchronized`, `volume.json`"
    assert not unknown_names(known)
    unknown = "`Primery`, `PrimaryLoop.turned`, `handled(event)`, `wake_up_at`, `cores`"
    assert unknown_names(unknown) == ["Primery", "PrimaryLoop.turned", "handled", "wake_up_at", "cores"]


def test_the_names_of_code_in_the_architecture_exist() -> None:
    assert not unknown_names(ARCHITECTURE.read_text())


def test_the_architecture_describes_every_folder_of_the_program_and_every_file_of_the_kernel_s() -> None:
    text = ARCHITECTURE.read_text()
    described = set(re.findall(r"`((?:pydbt|bpf)/[\w./]+)`", text))
    folders = {name_of(path.parent) for path in (PROJECT / "pydbt").rglob("*.py")} - {"pydbt"}
    files = {name_of(path) for path in (PROJECT / "bpf").glob("*.[ch]")}
    assert not (folders | files) - described


# --- commands and options ---------------------------------------------------------------------------------


def commands_of(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


COMMANDS = dict(commands_of(cli))


def options_of(command: click.Command) -> dict[str, click.Option]:
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return {max(option.opts, key=len): option for option in options}


@cache
def sections_of(path: Path) -> dict[str, str]:
    """What stands below each heading of the second level."""
    parts = re.split(r"^## (.+)$", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section_of(command: str) -> str:
    """The section of the reference for a command; commands of a group, and two that belong together, share one."""
    first = command.split()[0]
    return next(text for title, text in sections_of(REFERENCE / "commands.md").items() if first in title.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_has_every_option_of_a_command_and_no_other(command: str) -> None:
    section = section_of(command)
    first = command.split()[0]
    together = [name for name in COMMANDS if section_of(name) is section]
    documented = set(re.findall(r"^\| `(--[\w-]+)", section, flags=re.MULTILINE))
    known = {option for name in together for option in options_of(COMMANDS[name])}
    assert documented == known, f"docs/reference/commands.md, {first}"
    assert f"controller {command}" in section, f"docs/reference/commands.md shows no use of {command}"
    for option, meaning in options_of(COMMANDS[command]).items():
        if meaning.show_default and not meaning.is_flag and meaning.default is not None:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{option}"))
            shown = str(meaning.default).removesuffix(".0")
            assert f"`{shown}`" in row, f"{command} {option}: its default is {shown}"


def test_the_reference_lists_every_command_and_every_option_of_all() -> None:
    text = (REFERENCE / "commands.md").read_text()
    for name in cli.commands:
        assert re.search(rf"^\|.*\[`{name}`\]", text, flags=re.MULTILINE), f"the table of commands lacks {name}"
    for option in (*options_of(cli), "--help"):
        assert f"`{option}" in sections_of(REFERENCE / "commands.md")["For every command"]


@cache
def all_options() -> frozenset[str]:
    """Every option of the program, and of the project's scripts."""
    places = [*(PROJECT / "scripts").iterdir(), *(PROJECT / "tests").rglob("*.py"), PROJECT / "tests/vm/lab"]
    scripts = {option for place in places for option in re.findall(r"--[a-z][\w-]+", place.read_text())}
    own = {option for command in COMMANDS.values() for option in options_of(command)}
    return frozenset(scripts | own | set(options_of(cli)) | {"--help"})


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_an_option_that_a_document_names_exists(path: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", path.read_text()))
    unknown = named - all_options() - FOREIGN_OPTIONS
    assert not unknown, f"{name_of(path)} names {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_controller_command_in_a_document_has_these_options(path: Path) -> None:
    """Lines to be copied: the command exists, and knows each option on its line."""
    for line in re.findall(
        r"^ {4,}(?:sudo )?(?:\.venv/bin/)?controller ([^\n#]*)", path.read_text(), flags=re.MULTILINE
    ):
        words = line.split()
        name = next((known for known in COMMANDS if words[: len(known.split())] == known.split()), None)
        if name is None:
            alone = words[0] in options_of(cli).keys() | cli.commands.keys() | {"--help"} or words[0].startswith("[")
            assert alone, f"{name_of(path)}: controller {line}"
            continue
        unknown = set(re.findall(r"--[a-z][\w-]+", line)) - options_of(COMMANDS[name]).keys()
        assert not unknown, f"{name_of(path)}: controller {line}"


# --- the configuration ------------------------------------------------------------------------------------


def keys_of(role: str) -> dict[str, click.Parameter]:
    """The keys of a file of a volume: the parameters of the role's command, but for those of one start by hand."""
    named = {(parameter.name or "", parameter): parameter for parameter in COMMANDS[role].params}
    keys = {}
    for (name, _), parameter in named.items():
        is_option = isinstance(parameter, click.Option)
        keys[max(parameter.opts, key=len).removeprefix("--") if is_option else name] = parameter
    return {key: one for key, one in keys.items() if key != "no-wait" and not isinstance(one, OnceOption)}


@pytest.mark.parametrize("role", ["run", "secondary"])
def test_the_reference_has_every_key_of_a_volume_s_file_and_no_other(role: str) -> None:
    text = (REFERENCE / "configuration.md").read_text()
    section = text.split(f"### Keys of `[{role}]`")[1].split("\n#")[0]
    documented = {cells[0].strip("`"): cells for cells in rows_of(section, 4) if cells[0] != "key"}
    assert documented.keys() == keys_of(role).keys()
    for key, parameter in keys_of(role).items():
        _, kind, default, meaning = documented[key]
        assert ("true or false" in kind) == getattr(parameter, "is_flag", False), key
        assert ("a list" in kind) == getattr(parameter, "multiple", False), key
        assert (default == "required") == (key in NEEDED[role]), key
        assert meaning.endswith("."), key


def test_the_tables_of_the_configuration_are_those_that_are_made_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import generated as g; print(g.with_tables(g.CONFIGURATION.read_text()), end='')"],
        cwd=PROJECT / "packaging", capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == (REFERENCE / "configuration.md").read_text(), (
        "packaging/generated.py --documents writes it anew"
    )


@pytest.mark.parametrize(("role", "file"), [("run", "volume.toml"), ("secondary", "replica.toml")])
def test_a_sample_has_every_key_of_a_volume_s_file_with_its_default_and_is_right(
    role: str, file: str, tmp_path: Path
) -> None:
    text = (PROJECT / "docs/samples" / file).read_text()
    whole = re.sub(r"^#(?=[a-z-]+ = )", "", text, flags=re.MULTILINE)
    table = tomllib.loads(whole)[role]
    assert table.keys() == keys_of(role).keys()
    for key, parameter in keys_of(role).items():
        if isinstance(parameter, click.Option) and parameter.show_default and not parameter.is_flag:
            assert str(table[key]) == str(parameter.default).removesuffix(".0"), key
        if getattr(parameter, "is_flag", False):
            assert table[key] is False, key
    for sample in (text, whole):
        (tmp_path / file).write_text(sample)
        values, problems = checked_values(read_volume(tmp_path / file), COMMANDS[role])
        assert not problems and values


# --- exit codes and status --------------------------------------------------------------------------------


def exit_codes() -> dict[int, str]:
    rows = list(rows_of((REFERENCE / "exit-codes.md").read_text(), 2))[1:]
    return {int(code): meaning for code, meaning in rows}


def test_the_table_of_exit_codes_is_that_of_the_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PydbtError)]
    assert exit_codes().keys() == {0, INTERRUPTED, PIPE_CLOSED, TERMINATED, *(kind.exit_code for kind in kinds)}


def test_the_table_of_exit_codes_has_the_words_of_the_help() -> None:
    told = {int(code): words for code, words in re.findall(r"^ *(\d+)  (.+)$", EXIT_CODES, flags=re.MULTILINE)}
    documented = exit_codes()
    assert told.keys() == documented.keys()
    for code, words in told.items():
        assert documented[code].startswith(words), f"exit code {code}"


def keys_in(section: str) -> set[str]:
    """The keys in the first column of a section's tables."""
    return {key for cells in rows_of(section, 2) for key in re.findall(r"`(\w+)`", cells[0])}


def golden_reports() -> list[dict[str, Any]]:
    """Reports of a primary: of one secondary, of several, with addresses only. A test holds the code to them."""
    return [json.loads(path.read_text()) for path in sorted((PROJECT / "tests/controller/golden").glob("*.json"))]


def test_the_keys_of_a_primary_s_status_are_documented_and_no_others() -> None:
    made = {key for report in golden_reports() for key in report}
    made |= {key for report in golden_reports() for one in report["secondaries"] for key in one}
    section, _ = sections_of(REFERENCE / "status.md")["Of a primary"].split("The keys of `statistics`")
    assert keys_in(section) == made | {"running", "cluster", "role_differs"}


def test_the_counters_of_a_status_are_documented_and_no_others() -> None:
    made = {key for report in golden_reports() for key in report["statistics"]}
    _, section = sections_of(REFERENCE / "status.md")["Of a primary"].split("The keys of `statistics`")
    assert keys_in(section) == made


def test_the_parts_of_a_key_of_the_status_are_documented() -> None:
    """Those of a table of figures, such as ``log``; each has to be named in its row."""
    section = sections_of(REFERENCE / "status.md")["Of a primary"]
    rows = {key: row for row in rows_of(section, 2) for key in re.findall(r"`(\w+)`", row[0])}
    for report in golden_reports():
        for key, value in report.items():
            for part in value if isinstance(value, dict) and key != "statistics" else ():
                assert f"`{part}`" in rows[key][1], f"{key} has {part}, which docs/reference/status.md does not name"


def test_the_keys_of_a_secondary_s_status_are_documented_and_no_others() -> None:
    made = {field.name for field in fields(SecondaryServiceReport)} - {"replica", "transactions"}
    made |= {field.name for part in (ReplicaStatus, ReplicaTransactions) for field in fields(part)}
    made |= {"running", "user", "cluster", "role_differs"}
    assert keys_in(sections_of(REFERENCE / "status.md")["Of a secondary"]) == made


@cache
def texts_of_the_program() -> tuple[str, ...]:
    """Every text in the program; what an f-string fills in is left out."""
    found = []
    for path in (PROJECT / "pydbt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(map(str, parts)))
    return tuple(found)


def test_a_message_that_the_troubleshooting_quotes_is_one_of_the_program() -> None:
    text = (PROJECT / "docs/operating/troubleshooting.md").read_text()
    quoted = [
        phrase for line in text.splitlines() if line.startswith("|") for phrase in re.findall(r"\*([^*]+)\*", line)
    ]
    assert len(quoted) > 10
    for phrase in quoted:
        parts = phrase.split(" ... ")
        assert any(all(part in told for part in parts) for told in texts_of_the_program()), f"nothing says {phrase!r}"

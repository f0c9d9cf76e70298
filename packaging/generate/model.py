"""The program's commands, options and keys, read from the program itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from pydbt.cli.group import cli
from pydbt.cli.once import OnceOption
from pydbt.cli.sections import SectionedCommand
from pydbt.cli.values import ADDRESS, DURATION, LATENCY, ON_SILENCE, RATE, SIZE, SPACE
from pydbt.cli.volume_files import FOR_ONE_START, NEEDED, ROLES, STATE_ROOT
from pydbt.core.seen.event_names import ANY, NAMES
from pydbt.core.seen.hooks import DEFAULT_HOOK_TIMEOUT_S, HOOK_TIMEOUT, HOOK_TIMES, OUT_OF_SYNC_AFTER
from pydbt.core.seen.lateness import DEFAULT_LATE_AFTER_S

PROGRAM, OTHER_NAME = "controller", "pydbt"
VALUES = (SIZE, RATE, DURATION, LATENCY, ADDRESS)
"""The kinds of values that need to be explained."""


@dataclass(frozen=True)
class Parameter:
    """An option or an argument. ``names`` is empty for an argument, ``metavar`` for a flag.

    ``kind`` says in words which values it takes, ``default`` is as people write it, and empty when there is none.
    """

    key: str
    names: tuple[str, ...]
    metavar: str
    help: str
    kind: str
    default: str = ""
    choices: tuple[str, ...] = ()
    is_flag: bool = False
    several: bool = False
    required: bool = False
    once: bool = False


@dataclass(frozen=True)
class Command:
    """One command. ``path`` has the words that lead to it, without the program's name."""

    path: tuple[str, ...]
    summary: str
    paragraphs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    sections: tuple[tuple[str, tuple[Parameter, ...]], ...]
    commands: tuple[Command, ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)

    @property
    def options(self) -> tuple[Parameter, ...]:
        return tuple(one for one in self.parameters if one.names)

    @property
    def arguments(self) -> tuple[Parameter, ...]:
        return tuple(one for one in self.parameters if not one.names)


HELP = Parameter("help", ("-h", "--help"), "", "Print the help and end.", "", is_flag=True)


def program() -> Command:
    """The program itself, with all of its commands."""
    return _command(cli, ())


def leaves(command: Command) -> Iterator[Command]:
    """The commands that do something, in order: those of a group, and not the group."""
    for one in command.commands:
        yield from leaves(one) if one.commands else (one,)


def _command(command: click.Command, path: tuple[str, ...]) -> Command:
    text = inspect.cleandoc((command.help or "").partition("\f")[0])
    summary, *rest = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    parameters = (*(_parameter(one) for one in command.params if not _is_hidden(one)), HELP)
    commands = command.commands.items() if isinstance(command, click.Group) else ()
    return Command(
        path,
        summary.rstrip("."),
        tuple(rest),
        parameters,
        _sections(command, parameters),
        tuple(_command(one, (*path, name)) for name, one in commands),
    )


def _is_hidden(parameter: click.Parameter) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _sections(
    command: click.Command, parameters: tuple[Parameter, ...]
) -> tuple[tuple[str, tuple[Parameter, ...]], ...]:
    headings = command.sections if isinstance(command, SectionedCommand) else {}
    by_key = {one.key: one for one in parameters if one.names}
    return tuple((heading, tuple(by_key[name] for name in names)) for heading, names in headings.items())


def _parameter(parameter: click.Parameter) -> Parameter:
    if not isinstance(parameter, click.Option):
        name = parameter.name or ""
        metavar = parameter.metavar or name.upper() + ("..." if parameter.nargs == -1 else "")
        return Parameter(name, (), metavar, "", _kind(parameter), required=parameter.required)
    choices = tuple(map(str, parameter.type.choices)) if isinstance(parameter.type, click.Choice) else ()
    shows = parameter.show_default and not parameter.is_flag and parameter.default is not None
    return Parameter(
        max(parameter.opts, key=len).removeprefix("--"),
        tuple(parameter.opts),
        "" if parameter.is_flag else parameter.metavar or "|".join(choices) or _words_of(parameter.type).upper(),
        parameter.help or "",
        _kind(parameter),
        str(parameter.default).removesuffix(".0") if shows else "",
        choices,
        parameter.is_flag,
        parameter.multiple,
        parameter.required,
        isinstance(parameter, OnceOption),
    )


def _words_of(kind: Any) -> str:
    return "number" if isinstance(kind, click.IntRange) else str(kind.name)


def _kind(parameter: click.Parameter) -> str:
    kind: Any = parameter.type
    if getattr(parameter, "is_flag", False):
        return "true or false"
    if isinstance(kind, click.Choice):
        return " or ".join(f"`{choice}`" for choice in kind.choices)
    if isinstance(kind, click.IntRange):
        return f"a number from {kind.min} to {kind.max}"
    named = {SIZE: "a size", SPACE: "a size, or a path", RATE: "a rate", DURATION: "a time", ADDRESS: "an address",
             LATENCY: "a latency", ON_SILENCE: "`wait TIME`, `wait TIME, then refuse`, `mount` or `refuse`"}  # fmt: skip
    word = named.get(kind, "a path" if isinstance(kind, click.Path) else "a name")
    return f"{word}, or a list of them" if getattr(parameter, "multiple", False) else word


def value_definitions() -> list[str]:
    """A sentence for each kind of value: how it is written."""
    return [" ".join((inspect.getdoc(kind) or "").split()) for kind in VALUES]


# --- the keys of the configuration ------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """A key of a table: which values it takes, and what it means. ``default`` is empty when there is none."""

    name: str
    kind: str
    default: str
    meaning: str
    required: bool


def volume_keys(role: str) -> list[Key]:
    """The keys of the table of a file of a volume (``run``) or a replica (``secondary``)."""
    keys = []
    for key in _settings(_by_name(role)):
        if key.name in FOR_ONE_START:
            continue
        required = key.name in NEEDED[role]
        default = f"{STATE_ROOT}/NAME" if key.name == "state" else key.default
        keys.append(Key(key.name, key.kind, "" if required else default, key.meaning, required))
    return keys


def hook_keys() -> list[Key]:
    """The keys of the table ``[hooks]``: the names of events, and the times."""
    defaults = {HOOK_TIMEOUT: f"{DEFAULT_HOOK_TIMEOUT_S:g}s", OUT_OF_SYNC_AFTER: f"{DEFAULT_LATE_AFTER_S:g}s"}
    program = "a program, or a list of it and its arguments"
    keys = [Key(name, program, "", named.meaning, required=False) for name, named in NAMES.items()]
    keys.append(Key(ANY, program, "", "Every event, beside the hook of its own name.", required=False))
    return [*keys, *(Key(name, "a time", defaults[name], words, required=False) for name, words in HOOK_TIMES.items())]


def table_keys() -> Iterator[tuple[str, list[Key]]]:
    """Each table of the settings file, with its keys, but for those that are keys of a file of a volume as well."""
    for command in program().commands:
        if command.commands or command.name == "help":
            continue
        known = {key.name for key in volume_keys(command.name)} if command.name in ROLES else set()
        if keys := [key for key in _settings(command) if key.name not in known]:
            yield command.name, keys


def _by_name(name: str) -> Command:
    return next(command for command in program().commands if command.name == name)


def _settings(command: Command) -> Iterator[Key]:
    for one in command.parameters:
        if not one.once and one is not HELP and not one.metavar.endswith("..."):
            default = "false" if one.is_flag else one.default
            meaning = _in_a_file(one.help) or MEANINGS.get((command.name, one.key)) or OTHERS[one.key]
            yield Key(one.key, one.kind, default, meaning, required=False)


def _in_a_file(meaning: str) -> str:
    """Without the advice to give an option several times: in a file it is a list."""
    return re.sub(r"(; give| Give) it once per secondary\.", "", meaning.rstrip()).rstrip(".") + "." * bool(meaning)


# Of arguments, for which click has no help.
MEANINGS = {
    ("run", "source"): "The block device to replicate; it may be mounted.",
    ("secondary", "target"): "The block device or image file of the replica; it is overwritten.",
    ("transactions", "volume"): "The block device or image file whose log is read.",
    ("trace", "device"): "The block device to look at.",
    ("mark", "name"): "The name of the mark; it is better typed each time.",
}
OTHERS = {
    "source": "The SOURCE of the volume, or the TARGET of the replica.",
    "target": "The TARGET of the replica.",
    "volume": "The NAME of the volume.",
}

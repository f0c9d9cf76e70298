"""Defaults for the command line from a file, so that a service needs no long command line."""

from __future__ import annotations

import errno
import os
import re
import select
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pydbt.cli.once import OnceOption
from pydbt.core.configured.problems import did_you_mean
from pydbt.core.errors import UsageError
from pydbt.posix.ownership import file_intruder

if TYPE_CHECKING:
    from pydbt.core.configured.toml_text import TomlText

DEFAULT_FILE = Path("/etc/pydbt/controller.toml")
HOOKS_TABLE = "hooks"
"""The one table that is no command's: programs that are run when something changes."""
MAX_CHARACTERS = 1 << 20
"""A settings file of every option is a hundredth of it; more is another kind of file, or one without an end."""
# These take the place of the volume from the table of the command that runs it, when their own table names none.
_OF_A_VOLUME = ("secondaries", "wait", "verify", "pause", "resume", "down")


class Wrong(NamedTuple):
    """A setting that no command takes. ``sentence`` names key and table, ``words`` stand behind key and value."""

    key: str
    sentence: str
    words: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The tables of a TOML file, one per command. ``values`` are in the form for click, by command."""

    path: Path
    text: TomlText
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tables(self) -> dict[str, Any]:
        return self.text.tables

    def where(self, command: str, key: str = "") -> str:
        """``FILE line 7``: the place of a key of a table, or of the table."""
        number = self.text.line_of(command, key)
        return f"{self.path} line {number}" if number else f"{self.path}"

    def origin_of(self, command: str, message: str, typed: list[str]) -> str:
        """The place of the setting that an error of a command speaks of; empty when it speaks of none, or it was typed."""
        table = self.tables.get(command)
        for key, value in table.items() if isinstance(table, dict) else ():
            option = f"--{key}"
            if option not in typed and (
                re.search(rf"{option}\b", message) or (len(str(value)) > 3 and str(value) in message)
            ):
                return self.where(command, key)
        return ""


def read_settings(named: Path | None) -> Settings | None:
    """The file, parsed. ``named`` is one that a person named: it must exist; without it ``DEFAULT_FILE`` may be missing."""
    path = named or DEFAULT_FILE
    if named is None and is_missing(path):
        return None
    settings = Settings(path, read_toml_file(path, "name the one with the settings, or leave --config out"))
    for broken in settings.text.broken:
        raise UsageError(f"{path} line {broken.line}: {broken.words}" if broken.line else f"{path} {broken.words}")
    return settings


def is_missing(path: Path) -> bool:
    """Whether there is no such file; False when that cannot be told, so that it is told where the file is read."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def read_toml_file(path: Path, hint: str, *, only_regular: bool = False) -> TomlText:
    """A file of TOML, also one with broken lines. UsageError when it cannot be read; ``hint``: what to do if it is missing.

    ``only_regular``: a pipe is refused as well, which a shell may name in the place of a file, ``<(...)``.
    """
    try:
        text = _read_own(path, only_regular)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}: {hint}") from None
    except PermissionError:
        raise UsageError(f"{path} may not be read: run this as root, with sudo") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path} is not TOML: it is not text in UTF-8") from None
    from pydbt.core.configured.toml_text import read_toml  # most machines have no such file

    return read_toml(text)


def _read_own(path: Path, only_regular: bool) -> str:
    """The text. UsageError when another user could have written it: it says what is overwritten. OSError, ValueError.

    A pipe is opened without a wait for its writer, and is waited for only when it is this user's or root's.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if wrong := file_intruder(path, status):
            raise UsageError(f"the settings file {path} is not safe from other users: {wrong}")
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if only_regular and not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        os.set_blocking(descriptor, True)
        if stat.S_ISFIFO(status.st_mode):
            # Until there is data, or there was a writer: to open it anew would wait for ever where the writer has ended by then.
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll()
        # An end of a line stays what it is: what TOML takes for one is TOML's to say. Some editors begin with a byte order mark.
        with open(descriptor, encoding="utf-8-sig", newline="", closefd=False) as file:
            text = file.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise UsageError(
                f"{path} is longer than {MAX_CHARACTERS} characters: name a settings file, which is far shorter"
            )
        return text
    finally:
        os.close(descriptor)


def load_defaults(group: click.Group, settings: Settings, only: str | None = None) -> dict[str, dict[str, Any]]:
    """Check every table, or the one of the command ``only``, and return the values for click.

    UsageError, which names file and line, for anything that no command takes.
    """
    for command, table in settings.tables.items():
        if command == HOOKS_TABLE:
            continue  # it is read by the commands that run hooks
        known, wrong = command_of(group, command, table)
        if known is not None and (only is None or command == only):
            settings.values[command], wrong = checked_table(known, command, table)
        for first in wrong:
            place = ("", command) if known is None and not isinstance(table, dict) else (command, first.key)
            raise UsageError(f"{settings.where(*place)}: {first.sentence}")
    _lend_the_volume(settings)
    return settings.values


def _lend_the_volume(settings: Settings) -> None:
    lenders = [table for name in ("run", "secondary") if isinstance(table := settings.tables.get(name), dict)]
    if not lenders:
        return
    named = {"source": lenders[0].get("source"), "state_dir": lenders[0].get("state")}
    for command in _OF_A_VOLUME:
        own = settings.values.setdefault(command, {})
        if not own.keys() & named.keys():
            own |= {name: value for name, value in named.items() if isinstance(value, str)}


def command_of(group: click.Group, command: str, table: Any) -> tuple[click.Command | None, list[Wrong]]:
    """The command that a table is for, or why there is none."""
    if command not in group.commands or command == "help":
        guess = did_you_mean(command, list(group.commands))
        words = f"expected a table named as a command, such as [run]{guess}"
        return None, [
            Wrong("", f"there is no command {command!r}{guess}; the tables are named as commands, such as [run]", words)
        ]
    if not isinstance(table, dict):
        sentence = f"{command} is no table: put its settings below a line [{command}]"
        return None, [Wrong("", sentence, f"expected a line [{command}] with its settings below")]
    known = group.commands[command]
    if isinstance(known, click.Group):
        return None, [
            Wrong("", f"there is no command {command!r} that takes settings", "expected no table of this name")
        ]
    return known, []


def checked_table(known: click.Command, command: str, table: dict[str, Any]) -> tuple[dict[str, Any], list[Wrong]]:
    """The values for click by the names of parameters, and every setting that the command does not take."""
    parameters = {_name(parameter): parameter for parameter in known.params}
    values, wrong = {}, []
    for key, value in table.items():
        parameter = parameters.get(key)
        if parameter is None:
            guess, keys = did_you_mean(key, list(parameters)), ", ".join(sorted(parameters))
            sentence = f"[{command}] knows no {key!r}{guess}; it knows {keys}"
            wrong.append(Wrong(key, sentence, f"unknown key{guess or f'; expected one of {keys}'}"))
            continue
        if isinstance(parameter, OnceOption) and value is not False:
            once = f"is a decision for once, and a file would repeat it each time: take it out, and type --{key} when needed"
            wrong.append(Wrong(key, f"{key} of [{command}] {once}", f"it {once}"))
            continue
        assert parameter.name is not None
        try:
            values[parameter.name] = _value(parameter, value)
        except click.BadParameter as error:
            wrong.append(Wrong(key, f"{key} of [{command}]: {error.message}", error.message))
        except TypeError as error:
            wrong.append(Wrong(key, f"{key} of [{command}] must be {error}", f"expected {error}"))
    return values, wrong


def _value(parameter: click.Parameter, value: Any) -> Any:
    """In the form for click: a truth value, a text, or a list of texts for an option that may be given several times.

    TypeError with what was expected for another type, click.BadParameter for a text that is no such value.
    """
    several, is_flag = getattr(parameter, "multiple", False), getattr(parameter, "is_flag", False)
    if several and isinstance(value, list) and all(isinstance(one, str) for one in value):
        texts = value
    elif isinstance(value, bool) != is_flag or not isinstance(value, str | int | float):
        raise TypeError(
            "true or false" if is_flag else "a text or a list of texts" if several else "a text or a number"
        )
    elif is_flag:
        return value
    else:
        texts = [str(value)]
    for text in texts:
        parameter.type(text, param=parameter)
    return texts if several else texts[0]


def _name(parameter: click.Parameter) -> str:
    """The name on the command line: an option's long name, or an argument's own."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len).removeprefix("--")
    return parameter.name or ""

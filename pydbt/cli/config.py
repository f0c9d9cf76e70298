"""Defaults for the command line from a file, so that a service needs no long command line."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from pydbt.cli.once import OnceOption
from pydbt.core.errors import UsageError
from pydbt.posix.ownership import file_intruder

DEFAULT_FILE = Path("/etc/pydbt/controller.toml")
# These take the place of the volume from the table of the command that runs it, when their own table names none.
_OF_A_VOLUME = ("secondaries", "wait", "verify", "pause", "resume", "down")
_PLACE = ("source", "state")


@dataclass(frozen=True, slots=True)
class Settings:
    """The tables of a TOML file, one per command. ``values`` are in the form for click, by command."""

    path: Path
    text: str
    tables: dict[str, Any]
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    def where(self, command: str, key: str = "") -> str:
        """``FILE line 7``: the place of a key of a table, or of the table."""
        number = _line_of(self.text, command, key)
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
    try:
        text = _read_own(path)
        import tomllib

        return Settings(path, text, tomllib.loads(text))
    except FileNotFoundError:
        if named is None:
            return None
        raise UsageError(f"there is no file {named}: name the one with the settings, or leave --config out") from None
    except PermissionError:
        raise UsageError(f"{path} may not be read: run this as root, with sudo") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # also of a file that is not UTF-8
        raise UsageError(f"{path} is not TOML: {error}") from None


def _read_own(path: Path) -> str:
    """The text. UsageError when another user could have written it: it says what is overwritten. OSError, ValueError.

    A pipe, as of a shell's ``<(...)``, belongs to who runs this.
    """
    with path.open(encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and (wrong := file_intruder(path, status)):
            raise UsageError(f"the settings file {path} is not safe from other users: {wrong}")
        return file.read()


def load_defaults(group: click.Group, settings: Settings, only: str | None = None) -> dict[str, dict[str, Any]]:
    """Check every table, or the one of the command ``only``, and return the values for click.

    UsageError, which names file and line, for anything that no command takes.
    """
    for command, table in settings.tables.items():
        _require_command(group, settings, command, table)
        if only is None or command == only:
            settings.values[command] = _values(group.commands[command], settings, command, table)
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
            own |= {name: str(value) for name, value in named.items() if value is not None}


def _require_command(group: click.Group, settings: Settings, command: str, table: Any) -> None:
    if command not in group.commands or command == "help":
        guess = did_you_mean(command, list(group.commands))
        raise UsageError(
            f"{settings.where(command)}: there is no command {command!r}{guess}; the tables are named as commands, "
            "such as [run]"
        )
    if not isinstance(table, dict):
        raise UsageError(
            f"{settings.where('', command)}: {command} is no table: put its settings below a line [{command}]"
        )


def _values(known: click.Command, settings: Settings, command: str, table: dict[str, Any]) -> dict[str, Any]:
    if isinstance(known, click.Group):
        raise UsageError(f"{settings.where(command)}: there is no command {command!r} that takes settings")
    parameters = {_name(parameter): parameter for parameter in known.params}
    values = {}
    for key, value in table.items():
        parameter = parameters.get(key)
        if parameter is None:
            guess = did_you_mean(key, list(parameters))
            raise UsageError(
                f"{settings.where(command, key)}: [{command}] knows no {key!r}{guess}; it knows "
                f"{', '.join(sorted(parameters))}"
            )
        if isinstance(parameter, OnceOption) and value is not False:
            raise UsageError(
                f"{settings.where(command, key)}: {key} of [{command}] is a decision for once, and a file would repeat it each "
                f"time: take it out, and type --{key} when you mean it"
            )
        assert parameter.name is not None
        values[parameter.name] = _value(settings, command, key, parameter, value)
    return values


def _value(settings: Settings, command: str, key: str, parameter: click.Parameter, value: Any) -> Any:
    """In the form for click: a truth value, a text, or a list of texts for an option that may be given several times."""
    several, is_flag = getattr(parameter, "multiple", False), getattr(parameter, "is_flag", False)
    if several and isinstance(value, list) and all(isinstance(one, str) for one in value):
        texts = value
    elif isinstance(value, bool) != is_flag or not isinstance(value, str | int | float):
        wanted = "true or false" if is_flag else "a text or a list of texts" if several else "a text or a number"
        raise UsageError(f"{settings.where(command, key)}: {key} of [{command}] must be {wanted}")
    elif is_flag:
        return value
    else:
        texts = [str(value)]
    for text in texts:
        try:
            parameter.type(text, param=parameter)
        except click.BadParameter as error:
            raise UsageError(f"{settings.where(command, key)}: {key} of [{command}]: {error.message}") from None
    return texts if several else texts[0]


def _name(parameter: click.Parameter) -> str:
    """The name on the command line: an option's long name, or an argument's own."""
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len).removeprefix("--")
    return parameter.name or ""


def did_you_mean(word: str, known: list[str]) -> str:
    """``, did you mean 'status'?`` for a word that is nearly one that is known; else nothing."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _line_of(text: str, command: str, key: str) -> int:
    """The line of a key in a table, or of the table itself; 0 when it cannot be told from the text."""
    inside = command == ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*[\"']?([^\]\"']+?)[\"']?\s*\]", line)
        if header:
            inside = header[1] == command
            if inside and not key:
                return number
        elif inside and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return 0

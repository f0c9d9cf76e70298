"""Defaults for the command line from a file, so that a service needs no long command line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from pydbt.core.errors import UsageError

DEFAULT_FILE = Path("/etc/pydbt/controller.toml")


def load_defaults(group: click.Group, named: Path | None) -> dict[str, dict[str, Any]]:
    """The options and arguments in the tables of a TOML file, one table per command, in the form for click.

    ``named`` is a file that a person named: it must exist; without it ``DEFAULT_FILE`` is read when it exists. Raises
    UsageError, which names the file, for anything that no command has.
    """
    path = named or DEFAULT_FILE
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is None:
            return {}
        raise UsageError(f"there is no file {named}: name the one with the settings, or leave --config out") from None
    except PermissionError:
        raise UsageError(f"{path} may not be read: run this as root, with sudo") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    return {command: _values(group, path, command, table) for command, table in tables.items()}


def _values(group: click.Group, path: Path, command: str, table: Any) -> dict[str, Any]:
    known = group.commands.get(command)
    if known is None or isinstance(known, click.Group):
        raise UsageError(f"{path}: there is no command {command!r}; its tables are named as commands, such as [run]")
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {command} is no table: put its settings below a line [{command}]")
    parameters = {_name(parameter): parameter for parameter in known.params}
    values = {}
    for key, value in table.items():
        parameter = parameters.get(key)
        if parameter is None:
            raise UsageError(f"{path}: [{command}] knows no {key!r}; it knows {', '.join(sorted(parameters))}")
        values[parameter.name] = _value(path, command, key, parameter, value)
    return values


def _value(path: Path, command: str, key: str, parameter: click.Parameter, value: Any) -> Any:
    """In the form for click: a truth value, a text, or a list of texts for an option that may be given several times."""
    several = getattr(parameter, "multiple", False)
    if several and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    is_flag = getattr(parameter, "is_flag", False)
    if isinstance(value, bool) != is_flag or not isinstance(value, str | int | float):
        wanted = "true or false" if is_flag else "a text or a list of texts" if several else "a text or a number"
        raise UsageError(f"{path}: {key} of [{command}] must be {wanted}")
    return value if is_flag else [str(value)] if several else str(value)


def _name(parameter: click.Parameter) -> str:
    """The name on the command line: an option's long name, or an argument's own."""
    return max(parameter.opts, key=len).removeprefix("--") if isinstance(parameter, click.Option) else parameter.name

"""The files of ``/etc/pydbt/volumes``: one volume or replica each, by the name of its file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pydbt.cli.config import HOOKS_TABLE, Settings, Wrong, checked_table, read_toml_file
from pydbt.core.configured.problems import Problem, did_you_mean, shown, why_no_name
from pydbt.core.errors import UsageError

if TYPE_CHECKING:
    from pydbt.core.configured.toml_text import TomlText

VOLUMES = Path("/etc/pydbt/volumes")
STATE_ROOT = Path("/var/lib/pydbt")
# The table of a file, with the key of its device.
ROLES = {"run": "source", "secondary": "target"}
NEEDED = {"run": ("source", "secondary"), "secondary": ("target", "listen")}
# It is for one start by hand: a service would end with it.
FOR_ONE_START = ("no-wait",)
_PATHS = ("source", "target", "state", "identity")
_EXAMPLES = {
    "source": 'source = "/dev/vda3", the block device to replicate',
    "secondary": 'secondary = "10.0.0.2:7790", the address of the secondary',
    "target": 'target = "/dev/vdb", the block device or image file of the replica',
    "listen": 'listen = "10.0.0.2:7790", the address at which to wait for the primary',
}


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """One file, as far as it can be read. ``role`` is empty when it cannot be told; ``problems`` are of its tables alone."""

    name: str
    role: str
    settings: Settings
    problems: tuple[Problem, ...] = ()

    @property
    def path(self) -> Path:
        return self.settings.path

    @property
    def table(self) -> dict[str, Any]:
        return self.settings.tables[self.role] if self.role else {}

    @property
    def place(self) -> Path | None:
        """Its SOURCE or TARGET; None when the file does not name one."""
        named = self.table.get(ROLES.get(self.role, ""))
        return Path(named) if isinstance(named, str) and named else None

    @property
    def state_dir(self) -> Path:
        """The state directory that the file names, or else the one of its name."""
        named = self.table.get("state")
        return Path(named) if isinstance(named, str) and named else STATE_ROOT / self.name

    def where(self, key: str = "") -> str:
        """``FILE line 7``."""
        return self.settings.where(self.role, key)


def volumes_folder() -> Path:
    """Where the files are; ``PYDBT_VOLUMES`` names another folder."""
    return Path(os.environ.get("PYDBT_VOLUMES") or VOLUMES)


def volume_files(*, known: bool = False) -> list[Path]:
    """Every file of a volume, by name; other files than ``*.toml`` are none. UsageError when the folder may not be read.

    ``known``: files were found before, so that a folder which is not there says nothing of them (UsageError).
    """
    place = volumes_folder()
    try:
        names = sorted(os.listdir(place))
    except FileNotFoundError:
        if known:
            raise UsageError(
                f"{place} is gone: put it back; or to have its volumes stopped, remove their files and leave the folder"
            ) from None
        return []
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror}") from None
    return [place / name for name in names if name.endswith(".toml") and not name.startswith(".")]


def read_volume(path: Path) -> VolumeFile:
    """A file, its role, and what is wrong but for the settings of its table. UsageError when it cannot be read."""
    folder = volumes_folder()
    in_folder = path.parent == folder
    hint = f"the files of volumes are in {path.parent if path.parent.is_dir() else folder}"
    settings = Settings(path, read_toml_file(path, hint, only_regular=in_folder))
    text, problems = settings.text, []
    if words := why_no_name(path.stem):
        problems.append(Problem(str(path), 0, "", "", words))
    for broken in text.broken:
        problems.append(Problem(str(path), broken.line, broken.key, broken.value, broken.words))
    role, found = _role_of(text) if text.whole else ("", [])
    problems += [_problem(settings, "", wrong) for wrong in found]
    problems += [
        _problem(settings, "" if wrong.key == HOOKS_TABLE else HOOKS_TABLE, wrong) for wrong in _wrong_hooks(text)
    ]
    return VolumeFile(path.stem, role, settings, tuple(problems))


def checked_values(volume: VolumeFile, known: click.Command) -> tuple[dict[str, Any], list[Problem]]:
    """The values of its table for click, with the state directory, and everything that is wrong in the file."""
    if not volume.role:
        return {}, list(volume.problems)
    values, wrong = _checked(known, volume.role, volume.settings.text)
    values.setdefault("state_dir", str(volume.state_dir))
    return values, [*volume.problems, *(_problem(volume.settings, volume.role, one) for one in wrong)]


def _wrong_hooks(text: TomlText) -> list[Wrong]:
    if HOOKS_TABLE not in text.tables:
        return []
    from pydbt.cli.hook_settings import read_hooks  # most files have none

    return read_hooks(text.tables[HOOKS_TABLE])[1]


def _role_of(text: TomlText) -> tuple[str, list[Wrong]]:
    """The table of the file's role, and what is wrong with the tables; no role when it cannot be told."""
    wrong = []
    for name, table in text.tables.items():
        if name == HOOKS_TABLE:
            continue
        guess = did_you_mean(name, list(ROLES))
        if name not in ROLES:
            kind = "table" if isinstance(table, dict) else "key"
            words = f"unknown {kind}: expected one table, [run] of a volume or [secondary] of a replica{guess}"
            wrong.append(Wrong(name, "", words))
        elif not isinstance(table, dict):
            wrong.append(Wrong(name, "", f"expected a line [{name}] with its settings below"))
    roles = [name for name in ROLES if isinstance(text.tables.get(name), dict)]
    if len(roles) > 1:
        wrong.append(Wrong("secondary", "", "expected one table in a file, and [run] is there too: write another file"))
    if not roles and not wrong and not any(broken.table for broken in text.broken):
        wrong.append(Wrong("", "", "expected a table [run] of a volume or [secondary] of a replica, and there is none"))
    return roles[0] if len(roles) == 1 else "", wrong


def _checked(known: click.Command, role: str, text: TomlText) -> tuple[dict[str, Any], list[Wrong]]:
    table = text.tables[role]
    values, wrong = checked_table(known, role, table)
    there = {*table, *(broken.key for broken in text.broken)}
    for key in NEEDED[role]:
        if key not in there or table.get(key) == []:
            wrong.append(Wrong(key, "", f"missing: expected {_EXAMPLES[key]}"))
    for key in FOR_ONE_START:
        if table.get(key) is True:
            wrong.append(Wrong(key, "", "expected on the command line alone: it is for one start by hand"))
    named = {key for key, _, _ in wrong}
    wrong += [Wrong(key, "", words) for key, words in _paths(table) if key not in named]
    return values, wrong


def _paths(table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A path that is not absolute: it would be another file for each folder that a command is started in."""
    for key in _PATHS:
        if key in table and not str(table[key]).startswith("/"):
            yield key, "expected an absolute path, one that begins with /"


def _problem(settings: Settings, table: str, wrong: Wrong) -> Problem:
    """``table`` empty: the fault is of a table itself, or of a key outside of any."""
    text, key = settings.text, wrong.key
    if not table:
        value = text.tables.get(key)
        named = f"[{key}]" if isinstance(value, dict) else key
        return Problem(
            str(settings.path),
            text.line_of(key) if key else 0,
            named,
            "" if isinstance(value, dict) or value is None else shown(value),
            wrong.words,
        )
    value = text.tables[table].get(key)
    return Problem(
        str(settings.path), text.line_of(table, key), key, "" if value is None else shown(value), wrong.words
    )

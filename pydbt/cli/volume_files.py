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
from pydbt.core.configured.role import OTHER_ROLE, PEER_KEYS
from pydbt.core.errors import UsageError

if TYPE_CHECKING:
    from pydbt.core.configured.toml_text import TomlText

VOLUMES = Path("/etc/pydbt/volumes")
STATE_ROOT = Path("/var/lib/pydbt")
# The table of a file, with the key of its device.
ROLES = {"run": "source", "secondary": "target"}
NEEDED = {role: (device, PEER_KEYS[role]) for role, device in ROLES.items()}
# What the table of the other role takes from that of the first one, where it does not say it itself.
_SHARED = ("identity", "insecure", "peer")
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
    """One file, as far as it can be read. ``role`` is that in which its side begins, empty when it cannot be told.

    ``other``: the other role, where the file has a table for that as well. ``problems`` are of its tables alone.
    """

    name: str
    role: str
    settings: Settings
    problems: tuple[Problem, ...] = ()
    other: str = ""

    @property
    def path(self) -> Path:
        return self.settings.path

    @property
    def table(self) -> dict[str, Any]:
        return self.settings.tables[self.role] if self.role else {}

    def table_of(self, role: str) -> dict[str, Any]:
        """With its device and state directory, and what else it takes from the table of the role in which its side begins."""
        if role == self.role:
            return self.table
        shared = {key: self.table[key] for key in _SHARED if key in self.table}
        if isinstance(shared.get("peer"), list):  # of several secondaries; a secondary has one primary
            del shared["peer"]
        device = self.table.get(ROLES[self.role])
        own = self.settings.tables[role] if role == self.other else {}
        return {**shared, **own, ROLES[role]: device, "state": str(self.state_dir)}

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
    role, other, found = _roles_of(text) if text.whole else ("", "", [])
    problems += [_problem(settings, "", wrong) for wrong in found]
    problems += [
        _problem(settings, "" if wrong.key == HOOKS_TABLE else HOOKS_TABLE, wrong) for wrong in _wrong_hooks(text)
    ]
    return VolumeFile(path.stem, role, settings, tuple(problems), other)


def checked_values(volume: VolumeFile, known: click.Command) -> tuple[dict[str, Any], list[Problem]]:
    """The values of its table for click, with the state directory, and everything that is wrong in the file but for ``other``."""
    if not volume.role:
        return {}, list(volume.problems)
    values, wrong = _checked(known, volume.role, volume.settings.text)
    values.setdefault("state_dir", str(volume.state_dir))
    return values, [*volume.problems, *(_problem(volume.settings, volume.role, one) for one in wrong)]


def other_values(volume: VolumeFile, known: click.Command) -> tuple[dict[str, Any], list[Problem]]:
    """The values for the role that the side may change to, and what is wrong in the table for it, if the file has one.

    ``known`` is the command of that role. What its table needs, and no table is there, is missing in the values.
    """
    role = OTHER_ROLE[volume.role]
    wrong: list[Wrong] = []
    if volume.other:
        _, wrong = _checked(known, role, volume.settings.text, begins=False)
    values, _ = checked_table(known, role, volume.table_of(role))
    return values, [_problem(volume.settings, role, one) for one in wrong]


def _wrong_hooks(text: TomlText) -> list[Wrong]:
    if HOOKS_TABLE not in text.tables:
        return []
    from pydbt.cli.hook_settings import read_hooks  # most files have none

    return read_hooks(text.tables[HOOKS_TABLE])[1]


def _roles_of(text: TomlText) -> tuple[str, str, list[Wrong]]:
    """The role in which the side begins, the other one if it has a table, and what is wrong with the tables.

    Of two tables the one that names the device is that of the beginning. No role when it cannot be told.
    """
    wrong = []
    for name, table in text.tables.items():
        if name == HOOKS_TABLE:
            continue
        guess = did_you_mean(name, list(ROLES))
        if name not in ROLES:
            kind = "table" if isinstance(table, dict) else "key"
            words = f"unknown {kind}: expected a table [run] of a volume or [secondary] of a replica{guess}"
            wrong.append(Wrong(name, "", words))
        elif not isinstance(table, dict):
            wrong.append(Wrong(name, "", f"expected a line [{name}] with its settings below"))
    roles = [name for name in ROLES if isinstance(text.tables.get(name), dict)]
    if len(roles) > 1:
        broken = {(one.table, one.key) for one in text.broken}
        naming = [name for name in roles if ROLES[name] in text.tables[name] or (name, ROLES[name]) in broken]
        if len(naming) == 1:
            return naming[0], OTHER_ROLE[naming[0]], wrong
        words = (
            "expected the device in one table alone, that of the role in which this side begins: source in [run], or target in "
            "[secondary]"
        )
        wrong.append(Wrong("secondary", "", words))
        return "", "", wrong
    if not roles and not wrong and not any(broken.table for broken in text.broken):
        wrong.append(Wrong("", "", "expected a table [run] of a volume or [secondary] of a replica, and there is none"))
    return roles[0] if roles else "", "", wrong


def _checked(
    known: click.Command, role: str, text: TomlText, *, begins: bool = True
) -> tuple[dict[str, Any], list[Wrong]]:
    """``begins``: it is the table of the role in which the side begins; the other one has neither device nor state directory."""
    table = text.tables[role]
    values, wrong = checked_table(known, role, table)
    there = {*table, *(broken.key for broken in text.broken)}
    for key in NEEDED[role] if begins else (PEER_KEYS[role],):
        if key not in there or table.get(key) == []:
            wrong.append(Wrong(key, "", f"missing: expected {_EXAMPLES[key]}"))
    for key in FOR_ONE_START:
        if table.get(key) is True:
            wrong.append(Wrong(key, "", "expected on the command line alone: it is for one start by hand"))
    if not begins and "state" in table:
        words = f"expected in [{OTHER_ROLE[role]}] alone: a side has one state directory, in either role"
        wrong.append(Wrong("state", "", words))
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

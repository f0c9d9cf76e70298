"""Everything that is wrong in the configuration of this machine; nothing is changed, and no device is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from pydbt.cli.config import HOOKS_TABLE, Settings, checked_table, command_of, read_toml_file
from pydbt.cli.hook_settings import read_hooks
from pydbt.cli.role_command import RoleCommand
from pydbt.cli.serving import check_primary, check_secondary
from pydbt.cli.side import Options, present_role
from pydbt.cli.volume_files import ROLES, STATE_ROOT, VolumeFile, checked_values, other_values, read_volume
from pydbt.controller.hook_runner import why_unsafe
from pydbt.controller.options import OptionsRefused, PrimaryOptions, SecondaryOptions
from pydbt.controller.state_dir import check_state_dir, require_lasting
from pydbt.core.configured.clashes import Claim, clashes
from pydbt.core.configured.problems import Problem, shown
from pydbt.core.configured.role import PEER_KEYS, PRIMARY, SECONDARY
from pydbt.core.configured.toml_text import TomlText
from pydbt.core.errors import PydbtError, UsageError
from pydbt.network.address import check_plain_tcp, parse_address
from pydbt.network.tls import load_identity


@dataclass
class Checked:
    """What was found. ``volumes`` are the files of the folder, and the role tables of ``controller.toml``, or that file when it
    cannot be read; ``options`` are by file and role."""

    files: int = 0
    volumes: list[VolumeFile] = field(default_factory=list)
    options: dict[tuple[str, str], Options] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class Checks:
    """``group``: the program's commands, whose parameters are the keys. ``devices``: check what a start would, too.

    ``programs``: check the programs of hooks; a start runs without those that are not there or not safe.
    """

    def __init__(self, group: click.Group, devices: bool, programs: bool = False) -> None:
        self._group, self._devices, self._programs = group, devices, programs
        self.found = Checked()

    def volume(self, path: Path) -> None:
        """One file of a volume."""
        self.found.files += 1
        try:
            volume = read_volume(path)
        except UsageError as error:
            self._unknown(path, str(error))
            return
        self.found.volumes.append(volume)
        values, problems = checked_values(volume, self._group.commands[volume.role or "run"])
        self.found.problems += problems
        if not problems:
            self._role(volume, volume.role, values)
        if volume.other:
            self._other_role(volume)
        self._hook_programs(volume.settings)

    def settings(self, path: Path) -> None:
        """``controller.toml``: a table for each command, each with defaults."""
        self.found.files += 1
        try:
            text = read_toml_file(path, "name another file")
        except UsageError as error:
            self._unknown(path, str(error), path.name)
            return
        for broken in text.broken:
            self._add(Problem(str(path), broken.line, broken.key, broken.value, broken.words))
        settings = Settings(path, text)
        if not text.whole:
            self.found.volumes.append(VolumeFile(path.name, "", settings))
        for command, table in text.tables.items():
            if command == HOOKS_TABLE:
                self._hooks(settings, table)
            else:
                self._table(settings, command, table)

    def all_together(self) -> None:
        """What two files cannot both have."""
        self.found.problems += clashes([claim for volume in self.found.volumes for claim in claims_of(volume)])

    def _hooks(self, settings: Settings, table: Any) -> None:
        for one in read_hooks(table)[1]:
            value = table[one.key] if isinstance(table, dict) else table
            line = settings.text.line_of(HOOKS_TABLE, one.key)
            self._add(Problem(str(settings.path), line, one.key, shown(value), one.words))
        self._hook_programs(settings)

    def _hook_programs(self, settings: Settings) -> None:
        if not self._programs:
            return
        for key, command in read_hooks(settings.tables.get(HOOKS_TABLE, {}))[0].commands:
            if words := why_unsafe(Path(command[0])):
                line = settings.text.line_of(HOOKS_TABLE, key)
                self._add(Problem(str(settings.path), line, key, shown(list(command)), words))

    def _table(self, settings: Settings, command: str, table: Any) -> None:
        known, wrong = command_of(self._group, command, table)
        values: dict[str, Any] = {}
        if known is not None:
            values, wrong = checked_table(known, command, table)
        for one in wrong:
            value = table.get(one.key) if isinstance(table, dict) else table
            key = one.key or (f"[{command}]" if isinstance(table, dict) else command)
            line = settings.text.line_of(command, one.key)
            self._add(Problem(str(settings.path), line, key, "" if value is None else shown(value), one.words))
        if command in ROLES and isinstance(table, dict) and ROLES[command] in table:
            volume = VolumeFile(settings.path.name, command, settings)
            self.found.volumes.append(volume)
            needed = ("source", "secondary", "state") if command == "run" else ("target", "listen", "state")
            if not wrong and all(key in table for key in needed):
                self._role(volume, volume.role, values)

    def _other_role(self, volume: VolumeFile) -> None:
        """The table for the role that this side may change to."""
        values, problems = other_values(volume, self._group.commands[volume.other])
        self.found.problems += problems
        if not problems:
            self._role(volume, volume.other, values)

    def _role(self, volume: VolumeFile, role: str, values: dict[str, Any]) -> None:
        """A table whose keys are right: their values beside each other, and the files that they name."""
        command = self._group.commands[role]
        assert isinstance(command, RoleCommand)
        try:
            options = command.options_of(values)
        except OptionsRefused as refused:
            for option, words in refused.faults:
                self._add(_problem_of(volume, role, option.removeprefix("--"), words))
            return
        except (UsageError, click.ClickException) as error:
            self._add(_problem_of(volume, role, "", str(error)))
            return
        self.found.options[str(volume.path), role] = options
        faults = list(_faults(options))
        for key, words in faults:
            if role == volume.role or key in volume.settings.tables[role]:
                self._add(_problem_of(volume, role, key, words))
        if self._devices and not faults and role == present_role(volume):
            try:
                check_primary(options) if isinstance(options, PrimaryOptions) else check_secondary(options)
            except PydbtError as error:
                self._add(_problem_of(volume, role, _key_in(volume, role, str(error)), str(error)))

    def _unknown(self, path: Path, words: str, name: str = "") -> None:
        """A file that cannot be read may be that of a volume which runs."""
        self._add(Problem(str(path), 0, "", "", words))
        self.found.volumes.append(VolumeFile(name or path.stem, "", Settings(path, TomlText({}, whole=False))))

    def _add(self, problem: Problem) -> None:
        self.found.problems.append(problem)


def claims_of(volume: VolumeFile) -> Iterator[Claim]:
    """What a volume takes for itself alone, in either role, as far as its file can be read."""

    def claim(key: str, kind: str, value: Any, role: str = volume.role, **more: Any) -> Claim:
        line = volume.settings.text.line_of(role, key)
        return Claim(str(volume.path), line, key, shown(value), kind, **more)

    if volume.place is not None:
        key = ROLES[volume.role]
        yield claim(key, "a device", str(volume.place), identity=identity_of_place(volume.place))
    if volume.role:
        state = volume.state_dir
        yield claim("state", "a state directory", str(state), identity=os.path.realpath(state))
    for role, kind in ((SECONDARY, "an address to listen at"), (PRIMARY, "a secondary")):
        key = PEER_KEYS[role]
        table = volume.settings.tables[role] if role and role in (volume.role, volume.other) else {}
        named = table.get(key, [])
        for text in named if isinstance(named, list) else [named]:
            try:
                yield claim(key, kind, text, role, address=parse_address(str(text)))
            except UsageError:
                continue  # it is told as a problem of its own


def identity_of_place(place: Path) -> object:
    """The same for two names of one device or file; by name for what is not there."""
    try:
        status = os.stat(place)
    except OSError:
        return os.path.realpath(place)
    return ("device", status.st_rdev) if stat.S_ISBLK(status.st_mode) else (status.st_dev, status.st_ino)


def _faults(options: Options) -> Iterator[tuple[str, str]]:
    """A key and a sentence, for what a start would refuse without a look at the device."""
    hosts = (
        [options.listen_host] if isinstance(options, SecondaryOptions) else [host for host, _ in options.secondaries]
    )
    try:
        check_state_dir(options.state_dir)
        require_lasting(options.state_dir)
    except UsageError as error:
        yield "state", str(error)
    if options.identity is not None:
        try:
            load_identity(options.identity)
        except UsageError as error:
            yield "identity", str(error)
        return
    for host in hosts:
        try:
            check_plain_tcp(host, options.insecure)
        except UsageError as error:
            yield "listen" if isinstance(options, SecondaryOptions) else "secondary", str(error)


def _problem_of(volume: VolumeFile, role: str, key: str, words: str) -> Problem:
    """``key`` is of the table of ``role``, or else of that which the table takes it from."""
    role = role if key in volume.settings.tables[role] or role == volume.role else volume.role
    value = volume.settings.tables[role].get(key)
    line = volume.settings.text.line_of(role, key)
    return Problem(str(volume.path), line, key, "" if value is None else shown(value), words)


def _key_in(volume: VolumeFile, role: str, message: str) -> str:
    """The key whose option or value a message speaks of; else the key of the device."""
    table: dict[str, Any] = volume.settings.tables[role]
    for key, value in table.items():
        if f"--{key} " in message or (len(str(value)) > 3 and str(value) in message):
            return key
    return "state" if str(STATE_ROOT / volume.name) in message else ROLES[volume.role]

"""A configured side in the role that its state records: what is started for it, with which options."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import click

from pydbt.cli.role_command import RoleCommand
from pydbt.cli.volume_files import VolumeFile, checked_values, other_values, volumes_folder
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.registry import is_claimed
from pydbt.controller.role_record import role_record
from pydbt.controller.state_dir import check_state_dir
from pydbt.core.configured.problems import Problem
from pydbt.core.configured.role import OTHER_ROLE, PRIMARY, SECONDARY, RoleDecision, RoleRecord, StartAs, decide
from pydbt.core.errors import PydbtError, StateError, UsageError
from pydbt.core.printable import printable
from pydbt.core.seen.hooks import NO_HOOKS, Hooks

Options = PrimaryOptions | SecondaryOptions

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class Side:
    """What a file configures. ``group``: the program's commands, whose parameters are the keys."""

    volume: VolumeFile
    group: click.Group
    hooks: Hooks = NO_HOOKS

    def options(self) -> Options:
        """For a start now. UsageError when its file or the facts for its role are not enough, StateError without a role."""
        require_right(self.volume, list(self.volume.problems))
        known = role_of_state(self.volume)
        decision = _decided(self.volume, known)
        if decision.start is StartAs.REFUSE:
            raise UsageError(f"{self.volume.name} is not started: {decision.lacks}")
        for words in filter(None, (known.differs(self.volume.role), decision.lacks)):
            _log.warning("%s: %s", self.volume.name, printable(words))
        role = {StartAs.PRIMARY: PRIMARY, StartAs.SECONDARY: SECONDARY}.get(decision.start, self.volume.role)
        return self._with_afterwards(role, known)

    def options_of_file(self) -> Options:
        """In the role in which the file begins. UsageError."""
        require_right(self.volume, list(self.volume.problems))
        return self._with_afterwards(self.volume.role, RoleRecord())

    def _with_afterwards(self, role: str, known: RoleRecord) -> Options:
        chosen = self._of_role(role, known)
        has_table = self.volume.other or role != self.volume.role
        afterwards: Any = self._of_role(OTHER_ROLE[role], known) if has_table else None
        return replace(chosen, afterwards=afterwards)

    def _of_role(self, role: str, known: RoleRecord) -> Options:
        command = _command(self.group, role)
        if role == self.volume.role:
            values, problems = checked_values(self.volume, command)
        else:
            values, problems = other_values(self.volume, command)
            values = _completed(values, role, known)
        require_right(self.volume, problems)
        file = self.volume.path if self.volume.path.parent == volumes_folder() else None
        chosen = replace(command.options_of(values), volume_file=file, hooks=self.hooks)
        if isinstance(chosen, SecondaryOptions):
            return replace(chosen, fixed_listen=role in (self.volume.role, self.volume.other))
        return chosen


def role_of_state(volume: VolumeFile) -> RoleRecord:
    """What is recorded of a configured side. Nothing, where another user could have written it: its start refuses that later.

    StateError when it cannot be read."""
    try:
        check_state_dir(volume.state_dir)
    except UsageError:
        return RoleRecord()
    return role_record(volume.state_dir)


def present_role(volume: VolumeFile) -> str:
    """The role of a configured side; that of its file where its state cannot be read, for what is shown or ordered by it."""
    try:
        return role_of_state(volume).role(volume.role) if volume.role else ""
    except StateError:
        return volume.role


def may_be_primary(volume: VolumeFile) -> bool:
    """Whether it is a volume by its file or by its state: what is mounted of it at a boot waits for its gate."""
    return PRIMARY in (volume.role, present_role(volume))


def refused_words(volume: VolumeFile) -> str:
    """Why a start of this side is refused in the role that its state records; empty when it is not."""
    try:
        decision = _decided(volume, role_of_state(volume)) if volume.role else None
    except PydbtError as error:
        return f"its role is not known: {error}"
    return decision.lacks if decision is not None and decision.start is StartAs.REFUSE else ""


def differing_words(volume: VolumeFile) -> str:
    """That the state records another role than the file, or what is missing for it; empty when neither is so."""
    if not volume.role:
        return ""
    try:
        known = role_of_state(volume)
    except PydbtError as error:
        return f"its role is not known: {error}"
    return _decided(volume, known).lacks or known.differs(volume.role)


def require_right(volume: VolumeFile, problems: list[Problem]) -> None:
    """UsageError with the first of the problems of a file."""
    for problem in problems:
        more = f" (and {len(problems) - 1} more: 'controller configcheck {volume.name}')" if len(problems) > 1 else ""
        raise UsageError(f"{problem}{more}")


def _decided(volume: VolumeFile, known: RoleRecord) -> RoleDecision:
    place = volume.place
    is_image = place is not None and place.is_file()
    is_run = is_claimed(volume.state_dir)
    return decide(volume.role, known, named=bool(volume.other), is_image=is_image, file=str(volume.path), is_run=is_run)


def _completed(values: dict[str, Any], role: str, known: RoleRecord) -> dict[str, Any]:
    """With what the state has, where the file does not say it."""
    if role == PRIMARY:
        return {"secondaries": list(known.secondaries)} | values
    # The volume was on this device before.
    return ({"listen": known.listen} if known.listen else {}) | {"accept_sectors": True} | values


def _command(group: click.Group, role: str) -> RoleCommand:
    command = group.commands[role]
    assert isinstance(command, RoleCommand)
    return command

"""What completes an argument or the value of an option: of each the sources, which the three shells know by these names."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from generate.model import Command, Parameter, leaves, program


class Source(StrEnum):
    """``NAMES`` are those of the files in the folder of volumes, of one role where it is named."""

    COMMANDS = "commands"
    NAMES = "names"
    NAMES_RUN = "names-run"
    NAMES_SECONDARY = "names-secondary"
    RUNNING = "running"
    DEVICES = "devices"
    FILES = "files"
    FOLDERS = "folders"


_BY_METAVAR = {
    "FILE": (Source.FILES,),
    "DIR": (Source.FOLDERS,),
    "DEVICE": (Source.DEVICES,),
    "SIZE|DEVICE": (Source.DEVICES,),
    "FOLDER": (Source.FOLDERS,),
    "COMMAND...": (Source.COMMANDS,),
    "[FILE|NAME]...": (Source.NAMES, Source.FILES),
    # The volume or replica of a command that asks or stops it.
    "SOURCE": (Source.NAMES, Source.RUNNING, Source.DEVICES),
    "VOLUME": (Source.NAMES_RUN,),
    "TARGET": (Source.NAMES_SECONDARY, Source.DEVICES, Source.FILES),
}
_OF_A_VOLUME = ("run", "demote")


def sources(command: Command, parameter: Parameter) -> tuple[Source, ...]:
    """Where its values come from; none for a value that nobody but its user knows."""
    if parameter.metavar == "SOURCE" and command.name in _OF_A_VOLUME:
        return Source.NAMES_RUN, Source.DEVICES
    return _BY_METAVAR.get(parameter.metavar, ())


def all_commands() -> list[Command]:
    """The program, its commands, and those of a group."""
    whole = program()
    groups = [one for one in whole.commands if one.commands]
    return [whole, *groups, *leaves(whole)]


def options_with_a_value() -> dict[str, tuple[tuple[Source, ...], tuple[str, ...]]]:
    """Each name of such an option, with the sources of its value and its choices. An option means the same in each command."""
    found: dict[str, tuple[tuple[Source, ...], tuple[str, ...]]] = {}
    flags = set()
    for command in all_commands():
        for one in command.options:
            for name in one.names:
                if one.is_flag:
                    flags.add(name)
                elif found.setdefault(name, kind := (sources(command, one), one.choices)) != kind:
                    raise ValueError(f"{name} of {command.name} takes other values than in another command")
    if both := flags & found.keys():
        raise ValueError(f"flags in one command, and with a value in another: {both}")
    return found


def arguments() -> Iterator[tuple[Command, int, tuple[Source, ...]]]:
    """Each argument that has sources: its command, and its number from 1. The last number stands for all that follow."""
    for command in all_commands():
        for number, one in enumerate(command.arguments, start=1):
            if found := sources(command, one):
                yield command, number, found

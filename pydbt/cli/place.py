"""SOURCE and TARGET on the command line: a path, or the NAME of a volume or replica in ``/etc/pydbt/volumes``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pydbt.cli.once import was_typed
from pydbt.cli.volume_files import (
    ROLES,
    VolumeFile,
    checked_values,
    other_values,
    read_volume,
    volume_files,
    volumes_folder,
)
from pydbt.core.configured.problems import did_you_mean, why_no_name
from pydbt.core.errors import UsageError

if TYPE_CHECKING:
    from pydbt.cli.side import Side
    from pydbt.core.seen.hooks import Hooks

_Command = TypeVar("_Command", bound=Callable[..., Any])
_NAME = "pydbt.cli.place.name"
_TYPED = "pydbt.cli.place.typed"
_KINDS = {"run": "a volume", "secondary": "a replica"}


class _Place(click.Path):
    """A path, whose text is kept as well: ``./data`` is a path and no NAME."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if ctx is not None:
            ctx.meta[_TYPED] = str(value)
        return super().convert(value, param, ctx)


def place_argument(name: str, *, required: bool = False) -> Callable[[_Command], _Command]:
    """Decorate a command with SOURCE or TARGET. A configured NAME also gives it the state directory, and a role its options."""
    return click.argument(
        name, required=required, type=_Place(path_type=Path, readable=False), is_eager=True, callback=_place_of
    )


def typed_name() -> str:
    """The NAME that was typed in the place of a path; empty when a path was, or nothing."""
    context = click.get_current_context(silent=True)
    return str(context.meta.get(_NAME, "")) if context is not None else ""


def typed_file() -> Path | None:
    """The file of the volume whose NAME was typed; None when a path was typed, or nothing."""
    name = typed_name()
    return volumes_folder() / f"{name}.toml" if name else None


def hooks_here() -> Hooks:
    """The hooks of the volume whose NAME was typed, or else those of ``controller.toml``. UsageError."""
    from pydbt.cli.hook_settings import hooks_of  # only what runs for long needs it

    file = typed_file()
    own = read_volume(file).settings if file is not None else None
    return hooks_of(own, click.get_current_context().find_root().obj)


def side_here() -> Side | None:
    """The configured side whose NAME was typed without any option: its state decides the role. None for anything else."""
    context = click.get_current_context()
    file, group = typed_file(), context.find_root().command
    if file is None:
        return None
    volume, others = read_volume(file), {"check", *ROLES.values()}
    if was_typed("state_dir") and context.params.get("state_dir") == volume.state_dir:
        others.add("state_dir")
    if any(was_typed(one.name) for one in context.command.params if one.name and one.name not in others):
        return None
    assert isinstance(group, click.Group)
    from pydbt.cli.side import Side  # only what runs for long needs it

    return Side(volume, group, hooks_here())


def ends_when_promoted() -> bool:
    """Whether a secondary that was typed like this ends when it was promoted: somebody has typed all of it, and sees that."""
    return typed_file() is None or was_typed("fixed_role")


def named_volume(word: str) -> VolumeFile | None:
    """The volume that a word names; None for a path. A word with a slash is a path. UsageError for one that may be both.

    A folder is neither SOURCE nor TARGET: ``data`` is a NAME also in ``/``, where ``/data`` is a mount point.
    """
    path = _file_of_name(word)
    if path is None:
        return None
    if os.path.lexists(word) and not os.path.isdir(word):
        raise UsageError(
            f"{word} is ambiguous: {path} configures it, and there is a file {word} in this folder: write ./{word} for the "
            "file, or run this in another folder"
        )
    return read_volume(path)


def configured_volume(name: str) -> VolumeFile | None:
    """The volume with this NAME, where a path cannot be meant: nothing but the folder of volumes is looked at."""
    path = _file_of_name(name)
    return None if path is None else read_volume(path)


def _file_of_name(word: str) -> Path | None:
    if "/" in word or why_no_name(word):
        return None
    path = volumes_folder() / f"{word}.toml"
    return path if path.exists() else None


def _place_of(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    assert parameter.name is not None
    if value is None or context.get_parameter_source(parameter.name) is not ParameterSource.COMMANDLINE:
        return value
    word = context.meta[_TYPED]
    volume = named_volume(word)
    if volume is None:
        _refuse_nearly_a_name(word, context)
        return value
    if context.info_name in ROLES:
        values = _values_of(volume, context)
    else:
        for problem in volume.problems:
            raise UsageError(str(problem))
        values = {"state_dir": str(volume.state_dir)}
    if volume.place is None:
        raise UsageError(f"{volume.where()} names no {ROLES[volume.role]}: see 'controller configcheck {volume.name}'")
    context.meta[_NAME] = volume.name
    context.default_map = values if context.info_name in ROLES else {**(context.default_map or {}), **values}
    return volume.place


def _values_of(volume: VolumeFile, context: click.Context) -> dict[str, Any]:
    """All settings of the file, for the command of its role. They take the place of the table in ``controller.toml``.

    The command may also be that of the role that the state of this side records.
    """
    from pydbt.cli.side import require_right, role_of_state  # the other commands go without

    if volume.role in ("", context.info_name):
        values, problems = checked_values(volume, context.command)
    elif role_of_state(volume).role(volume.role) == context.info_name:
        values, problems = other_values(volume, context.command)
        problems = [*volume.problems, *problems]
    else:
        raise UsageError(
            f"{volume.name} is {_KINDS[volume.role]}, by {volume.where()}: use 'controller {volume.role} {volume.name}'"
        )
    require_right(volume, problems)
    return values


def _refuse_nearly_a_name(word: str, context: click.Context) -> None:
    """A name with a slip is no path of a file that does not exist. An image file that `secondary` makes need not exist."""
    if "/" in word or os.path.lexists(word) or context.info_name == "secondary":
        return
    if guess := did_you_mean(word, [path.stem for path in volume_files()]):
        raise UsageError(f"{word} is neither a file nor a volume in {volumes_folder()}{guess}")

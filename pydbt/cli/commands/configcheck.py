"""``controller configcheck``: everything that is wrong in the configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from pydbt.cli.config import DEFAULT_FILE
from pydbt.cli.config_check import Checked, Checks
from pydbt.cli.gated_mounts import gates_of_nobody, ungated_mounts
from pydbt.cli.side import differing_words, may_be_primary, refused_words
from pydbt.cli.taken_targets import warnings_about
from pydbt.cli.volume_files import VOLUMES, VolumeFile, volume_files, volumes_folder
from pydbt.controller.boot_chain import keep_names
from pydbt.core.configured.problems import Problem, did_you_mean
from pydbt.core.errors import UsageError
from pydbt.core.printable import printable


@click.command()
@click.argument("which", nargs=-1, metavar="[FILE|NAME]...")
@click.option("--devices", is_flag=True, help="Check devices and ports too, as `run --check` does.")
@click.pass_context
def configcheck(context: click.Context, which: tuple[str, ...], devices: bool) -> int:
    """Check the configuration of this machine.

    Checks /etc/pydbt/controller.toml and every file in /etc/pydbt/volumes, or those that are named, and prints one line for
    each error: file, line, key, value, and what was expected. Lines of /etc/fstab that mount a volume without its gate are
    errors too, and so are drop-ins that require the gate of no volume. Exit code 2: there are errors. Without errors it
    names each side whose role is not that of its file any more, and warns of programs of this machine that may take the
    target of a replica. Nothing is changed, except that root records
    the names of each volume's device, for the order of the next boot.
    """
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    general = root.params.get("config") or DEFAULT_FILE
    named = [_file_of(word, general) for word in which]
    checks = Checks(root.command, devices, programs=True)
    if root.params.get("config") is not None or general.exists():
        checks.settings(general)
    for path in _all_files(named, general):
        checks.volume(path)
    checks.all_together()
    found = checks.found
    wrong = {one.file for one in found.problems}
    for volume in found.volumes:
        if (
            may_be_primary(volume)
            and volume.place
            and volume.path.parent == volumes_folder()
            and str(volume.path) not in wrong
        ):
            keep_names(volume.path, volume.place)
    problems = [one for one in found.problems if not named or Path(one.file) in named]
    problems += ungated_mounts(one for one in found.volumes if not named or one.path in named)
    problems += _refused(one for one in found.volumes if not named or one.path in named)
    if not named and volumes_folder() == VOLUMES:
        problems += gates_of_nobody()
    for problem in sorted(set(problems)):
        click.echo(printable(str(problem)))
    if problems:
        raise UsageError(_failure(len(set(problems)), len({one.file for one in problems}), len(named) or found.files))
    click.echo(_success(found, named))
    roles = [(one, f"{one.where()}: {words}") for one in found.volumes if (words := differing_words(one))]
    for volume, words in [*roles, *warnings_about(found.volumes)]:
        if not named or volume.path in named:
            click.echo(printable(f"warning: {words}"))
    return 0


def _refused(volumes: Iterable[VolumeFile]) -> Iterator[Problem]:
    """The sides of which a start is refused in the role that their state records."""
    for volume in volumes:
        if words := refused_words(volume):
            yield Problem(str(volume.path), volume.settings.text.line_of(volume.role), f"[{volume.role}]", "", words)


def _file_of(word: str, general: Path) -> Path:
    path = Path(word)
    if path == general:
        return path
    if "/" in word:
        known = volumes_folder() / path.name
        return known if os.path.realpath(known) == os.path.realpath(path) else path
    found = volumes_folder() / f"{word.removesuffix('.toml')}.toml"
    if not found.exists():
        guess = did_you_mean(word, [file.stem for file in volume_files()])
        raise UsageError(
            f"there is no file {found}{guess}: name a volume of {volumes_folder()}, or a FILE with its folder"
        )
    return found


def _all_files(named: list[Path], general: Path) -> list[Path]:
    """Also those that are not named: two files together may be wrong."""
    files = volume_files()
    return [*files, *(path for path in named if path not in files and path != general)]


def _failure(problems: int, wrong: int, files: int) -> str:
    return f"{_count(problems, 'error')} in {wrong} of {_count(files, 'file')}"


def _success(found: Checked, named: list[Path]) -> str:
    volumes = [one for one in found.volumes if not named or one.path in named]
    if not volumes:
        return f"no volume and no replica is configured: write {VOLUMES}/NAME.toml, with a table [run] or [secondary]"
    names = {role: [one.name for one in volumes if one.role == role] for role in ("run", "secondary")}
    parts = [
        f"{_count(len(of_role), kind)} ({', '.join(of_role)})"
        for of_role, kind in ((names["run"], "volume"), (names["secondary"], "replica"))
        if of_role
    ]
    return f"no errors: {' and '.join(parts)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

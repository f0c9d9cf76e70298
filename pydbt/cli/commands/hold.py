"""``controller hold``: hold the target of a configured replica, in the foreground."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from pydbt.cli.place import place_argument, typed_name
from pydbt.cli.protecting import protect_configured
from pydbt.cli.values import PATH
from pydbt.cli.volume_files import VOLUMES, volumes_folder
from pydbt.core.errors import PydbtError, UsageError
from pydbt.core.printable import printable
from pydbt.device.checks import require_root
from pydbt.device.target import in_devices
from pydbt.posix.service_manager import ServiceManager

_log = logging.getLogger("pydbt")


@click.command()
@place_argument("target", required=True)
@click.option("--state", "state_dir", type=PATH, metavar="DIR", help="The secondary's state directory.")
def hold(target: Path, state_dir: Path | None) -> int:
    """Hold the target of a replica.

    Opens TARGET exclusively, so that nothing mounts or assembles it, takes its partitions out of the kernel, and hands it on to
    the `secondary` of this machine. Runs until it is stopped, or until TARGET is promoted. There is nothing to hold, and it ends
    with exit code 0, when TARGET is an image file, was promoted, or has never been the target of a secondary. The unit
    pydbt-hold@NAME runs it from boot on.
    """
    require_root("controller hold", "it opens a device exclusively")
    manager = ServiceManager.that_started_us()
    name = typed_name()
    if name:
        _write_rules()
    elif state_dir is None:
        raise UsageError("name the replica: its NAME in the configuration, or its TARGET with --state DIR")
    if target.is_file() or not (target.exists() or in_devices(str(target))):
        return _nothing(manager, f"{target} is an image file")
    from pydbt.controller.registry import name_of
    from pydbt.controller.secondary.holding import TargetHold, hold_until_stopped, nothing_to_hold

    assert state_dir is not None, "a NAME brings it"
    if why := nothing_to_hold(target, state_dir):
        return _nothing(manager, why)
    return hold_until_stopped(TargetHold(name or name_of(str(target)), target, state_dir, manager))


def _nothing(manager: ServiceManager, why: str) -> int:
    words = printable(f"nothing to hold: {why}")
    manager.ready(words)
    click.echo(words)
    return 0


def _write_rules() -> None:
    """A hold without rules is better than none, at a boot with a full disk for example."""
    if volumes_folder() != VOLUMES:
        return
    try:
        done = protect_configured()
    except PydbtError as error:
        _log.warning("the rules that keep other programs off targets stay as they were: %s", printable(str(error)))
        return
    for problem in done.problems:
        _log.warning("%s", printable(problem))
    if done.changed:
        _log.warning("rules of targets were changed: run 'controller protect', which makes the initial RAM disk anew")

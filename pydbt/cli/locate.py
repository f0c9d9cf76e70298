"""From a SOURCE or a state directory on the command line to the running controller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pydbt.cli.values import ADDRESS, PATH, format_bytes
from pydbt.controller.control import call, read_snapshot
from pydbt.controller.primary.leftover import is_tracked
from pydbt.controller.registry import state_dir_of
from pydbt.core.errors import NotRunning, UsageError
from pydbt.device.sysfs import BlockDevice
from pydbt.network.address import format_address

_Command = TypeVar("_Command", bound=Callable[..., Any])


def volume_arguments(command: _Command) -> _Command:
    """Decorate a command with ``SOURCE|--state DIR``."""
    state = click.option("--state", "state_dir", type=PATH, help="The state directory.")
    return click.argument("source", required=False, type=PATH)(state(command))


def secondary_option(command: _Command) -> _Command:
    """Decorate a command with ``--secondary ADDR:PORT``."""
    return click.option("--secondary", type=ADDRESS, metavar="ADDR:PORT", help="Only this one of several secondaries.")(
        command
    )


def named(secondary: tuple[str, int] | None) -> dict[str, str]:
    """The part of a request that names one secondary, if one is meant."""
    return {} if secondary is None else {"secondary": format_address(*secondary)}


def locate(source: Path | None, state_dir: Path | None) -> Path:
    """The state directory that is meant. NotRunning when none is known for SOURCE, UsageError for wrong arguments."""
    if state_dir is not None:
        if not state_dir.is_dir():
            raise UsageError(f"{state_dir} is not a state directory: there is no such directory")
        return state_dir
    if source is None:
        raise UsageError("name the SOURCE, or its state directory with --state DIR")
    if source.is_dir():
        raise UsageError(f"{source} is a directory, not a SOURCE: name a state directory with --state {source}")
    found = state_dir_of(BlockDevice.identify(source))
    if found is None:
        raise NotRunning(
            f"no controller has run for {source} since it was attached: name its state directory with --state DIR"
        )
    return found


def ask(state_dir: Path, request: dict[str, Any], timeout_s: float | None = 10.0) -> dict[str, Any]:
    """One request to the controller of a state directory; NotRunning names its last known state."""
    try:
        return call(state_dir, request, timeout_s)
    except NotRunning as error:
        raise NotRunning(f"{error}{last_known(state_dir)}") from error


def ask_primary(state_dir: Path, what: str) -> dict[str, Any]:
    """The status of a primary. UsageError, which ends with ``what``, when a secondary answers."""
    report = ask(state_dir, {"command": "status"})
    if "secondaries" not in report:
        raise UsageError(f"{state_dir} is the state directory of a secondary: ask its primary {what}")
    return report


def last_known(state_dir: Path) -> str:
    """An addition for a controller that does not answer: whether writes are tracked, and its last status."""
    tracked = "; writes are still tracked" if is_tracked(state_dir) else ""
    snapshot = read_snapshot(state_dir)
    if snapshot is None:
        return tracked
    words = [str(snapshot.get("mode", "unknown"))]
    if "replica_state" in snapshot:
        words.append(f"replica {snapshot['replica_state']}")
    if isinstance(snapshot.get("out_of_sync_bytes"), int | float):
        words.append(f"{format_bytes(snapshot['out_of_sync_bytes'])} out of sync")
    return f"{tracked}; last known state: {', '.join(words)} at {snapshot.get('saved_at', 'an unknown time')}"

"""The statuses that a command is about: of one place, or of everything on this machine; also for members of the group."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydbt.cli.locate import ask, last_status, locate
from pydbt.core.errors import MachineError, NotRunning


def reports_for(source: Path | None, state_dir: Path | None) -> list[dict[str, Any]]:
    """Of SOURCE, TARGET or a state directory, or of everything, each with ``running``, and ``problem`` when that is false.

    MachineError for a user whom no controller tells anything; NotRunning for a place where none has run. A member of the group
    sees controllers that run, and sockets at which nobody answers any more.
    """
    if as_a_member(state_dir):
        return told_to_members(source, state_dir)
    if source is None and state_dir is None:
        from pydbt.cli.overview import all_reports

        return all_reports()
    place = locate(source, state_dir)
    try:
        return [{**ask(place, {"command": "status"}), "running": True}]
    except NotRunning as error:
        last = last_status(place)
        if not last:
            raise
        return [{**last.values, "running": False, "problem": str(error)}]


def as_a_member(state_dir: Path | None) -> bool:
    """Whether this user is not root, and may not enter the state directory: then running controllers alone can be asked."""
    return os.geteuid() != 0 and not (state_dir is not None and os.access(state_dir, os.R_OK | os.X_OK))


def told_to_members(source: Path | None, state_dir: Path | None) -> list[dict[str, Any]]:
    """For a user who is not root: what controllers tell to the group. MachineError when that is nothing."""
    from pydbt.controller.public_status import GROUP, public_reports

    found = public_reports(state_dir)
    silent = [str(one["problem"]) for one in found if not one["running"]]
    if source is not None:
        place = os.path.realpath(source)
        found = [one for one in found if place in (one.get("source"), os.path.realpath(str(one.get("target"))))]
    if not found:
        more = f"; {'; '.join(silent)}" if silent else ""
        raise MachineError(
            f"no running controller told its status to this user: run this as root, with sudo, or as a member of {GROUP}{more}"
        )
    return found

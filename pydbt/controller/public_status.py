"""What members of the group ``pydbt`` may ask: a socket of its own in ``/run/pydbt``, which only tells, and changes nothing.

Monitoring needs no root that way. The group is made by the operator; without it there is no such socket.
"""

from __future__ import annotations

import contextlib
import grp
import os
from pathlib import Path
from typing import Any

from pydbt.controller import registry
from pydbt.controller.control import ClientGone, ControlServer, Handler, call
from pydbt.core.errors import NotRunning, PydbtError, TimedOut, UsageError

GROUP = "pydbt"
READING_COMMANDS = frozenset({"status", "events", "map", "block", "method", "history", "io", "writers"})
"""What a member of the group may ask: all of it changes nothing."""
_ANSWER_S = 5.0


def public_server(state_dir: str | os.PathLike[str], handler: Handler) -> ControlServer | None:
    """Made, and not started yet: it answers questions, and carries out nothing. None without such a group.

    None for a secondary that is not root's, too: it may make no socket in root's folder.
    """
    if os.geteuid() != 0:
        return None
    try:
        group = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None

    def reading_only(request: dict[str, Any], gone: ClientGone) -> dict[str, Any]:
        if request["command"] not in READING_COMMANDS:
            raise UsageError(
                f"members of the group {GROUP} may look, and change nothing ({', '.join(sorted(READING_COMMANDS))}): run this as "
                "root, with sudo"
            )
        return handler(request, gone)

    server = ControlServer(public_socket(state_dir), reading_only, group)
    server.make()
    return server


def public_status(state_dir: str | os.PathLike[str], handler: Handler) -> contextlib.AbstractContextManager[object]:
    """Answer the members of the group as long as this lasts, if there is one."""
    return public_server(state_dir, handler) or contextlib.nullcontext()


def public_reports(state_dir: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """What the controllers of this machine, or that of one state directory, tell to this user, each with ``running``.

    A socket at which nobody answers has ``running`` false, ``problem`` and ``socket``: which volume it is of, its controller
    alone could tell. One that this user may not use is left out.
    """
    sockets = [public_socket(state_dir)] if state_dir else public_sockets()
    known = {"state_dir": str(state_dir)} if state_dir else {}
    reports = []
    for socket in sockets:
        try:
            reports.append({**call(socket, {"command": "status"}, _ANSWER_S), "running": True})
        except PydbtError as error:
            # One that ends takes its socket away.
            if not isinstance(error.__cause__, PermissionError) and os.path.lexists(socket):
                reports.append({"running": False, "problem": _silence(socket, error), "socket": str(socket), **known})
    return reports


def _silence(socket: Path, error: PydbtError) -> str:
    if isinstance(error, TimedOut):
        return f"the controller at {socket} gave no answer within {_ANSWER_S:g} s: 'controller status' as root names its volume"
    if isinstance(error, NotRunning):
        return (
            f"no controller answers at {socket}, and none ended cleanly: 'controller status' as root names its volume"
        )
    return str(error)


def public_sockets() -> list[Path]:
    """Of every controller of this machine; some of them may be dead."""
    return sorted(registry.RUN_DIR.glob("status-*.sock"))


def public_socket(state_dir: str | os.PathLike[str]) -> Path:
    """That of the controller of one state directory."""
    return registry.RUN_DIR / f"status-{registry.name_of(os.path.realpath(state_dir))}.sock"

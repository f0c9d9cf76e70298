"""``controller events``: what there is, and then one line for each change."""

from __future__ import annotations

import json
import os
import queue
import select
import sys
import time
from pathlib import Path

import click

from pydbt.cli.asked import as_a_member
from pydbt.cli.following import Followed, Following, Line, own_event
from pydbt.cli.locate import locate, volume_arguments
from pydbt.cli.output import ReaderGone
from pydbt.cli.program import INTERRUPTED
from pydbt.controller.public_status import GROUP, public_socket, public_sockets
from pydbt.core.errors import MachineError, NotRunning, PydbtError, UsageError
from pydbt.core.seen.event_names import NOT_RUNNING, NOW

_LOOK_S = 1.0
_NEW_ONES_S = 5.0


@click.command()
@volume_arguments
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@click.option("--now", is_flag=True, help="Print the present state, and end.")
def events(source: Path | None, state_dir: Path | None, as_json: bool, now: bool) -> int:
    """Print changes of volumes and replicas.

    First a line for every volume and replica of this machine, or for SOURCE, which may also be a TARGET; then one line per
    change. It goes on when a controller is started again, until Ctrl-C. The names of events are promised stable. Members of the
    group pydbt may use this command too.
    """
    try:
        return _print_all(source, state_dir, as_json, now)
    except KeyboardInterrupt:
        return INTERRUPTED


def _print_all(source: Path | None, state_dir: Path | None, as_json: bool, now: bool) -> int:
    known = _those_meant(source, state_dir)
    if not known and as_a_member(state_dir):
        raise MachineError(
            f"no running controller tells its events to this user: run this as root, with sudo, or as a member of {GROUP}"
        )
    alone = source is not None or state_dir is not None
    for one in known.values():
        _print(_first_lines(one, alone), as_json)
    if not known and now:
        raise NotRunning(
            "no volume and no replica is known here since the last boot: name a state directory with --state DIR"
        )
    words = f"that is all for now ({len(known)}){'' if now else '; changes follow'}"
    _print([Line(own_event(NOW, words), "", "-", "")], as_json)
    if now:
        return 0 if all(one.running for one in known.values()) else NotRunning.exit_code
    following = Following()
    for one in known.values():
        following.follow(one)
    look_again = time.monotonic() + _NEW_ONES_S
    while True:
        try:
            _print([following.lines.get(timeout=_LOOK_S)], as_json)
        except queue.Empty:
            _require_reader()
        if not alone and time.monotonic() >= look_again:
            look_again = time.monotonic() + _NEW_ONES_S
            for where, one in _those_meant(None, None).items():
                if where not in known:
                    known[where] = one
                    following.follow(one)


def _first_lines(one: Followed, alone: bool) -> list[Line]:
    try:
        lines = one.exists()
        if one.deaf and alone:
            raise UsageError(one.deaf)
        return lines
    except PydbtError as error:
        if alone:
            raise
        return [Line(own_event(NOT_RUNNING, str(error)), one.role, one.place or str(one.where), one.state_dir)]


def _those_meant(source: Path | None, state_dir: Path | None) -> dict[Path, Followed]:
    """By the socket, or the state directory, at which each answers."""
    if as_a_member(state_dir):
        return _as_member(source, state_dir)
    if source is not None or state_dir is not None:
        place = locate(source, state_dir)
        return {place: Followed(place, str(place), str(source or place))}
    from pydbt.cli.overview import known_state_dirs

    return {Path(folder): Followed(Path(folder), folder, place) for folder, (_, place) in known_state_dirs().items()}


def _as_member(source: Path | None, state_dir: Path | None) -> dict[Path, Followed]:
    sockets = [public_socket(state_dir)] if state_dir is not None else public_sockets()
    # One that this user may not use tells nothing, and least of all that its controller does not run.
    found = {socket: Followed(socket, "", str(socket)) for socket in sockets if os.access(socket, os.W_OK)}
    if source is not None:
        found = {socket: one for socket, one in found.items() if _is_of(one, source.resolve())}
    return found


def _is_of(one: Followed, place: Path) -> bool:
    try:
        one.exists()
    except PydbtError:
        return False
    return Path(one.place).resolve() == place


def _print(lines: list[Line], as_json: bool) -> None:
    for line in lines:
        click.echo(json.dumps(line.to_json()) if as_json else line.text())
    sys.stdout.flush()


def _require_reader() -> None:
    """ReaderGone when nobody reads the output any more, although there is nothing to write: as in ``events | head -3``."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)  # POLLERR is always told
    except (OSError, ValueError):  # it is in memory
        return
    if any(told & select.POLLERR for _, told in poll.poll(0)):
        raise ReaderGone

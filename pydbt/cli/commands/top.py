"""``controller top``: all volumes on one screen, live."""

from __future__ import annotations

import locale
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from pydbt.cli.values import DURATION
from pydbt.core.errors import MachineError, UsageError

if TYPE_CHECKING:
    from pydbt.dashboard.panorama import Panorama

SHORTEST_INTERVAL_S = 0.2


@click.command()
@click.option(
    "--interval",
    "interval_s",
    type=DURATION,
    default="1s",
    show_default=True,
    metavar="TIME",
    help="Draw no more often than this.",
)
def top(interval_s: float) -> int:
    """Show all volumes on one screen, live.

    A line per volume and replica of this machine, the worst first, and the details of the selected one; `?` shows the keys. Only
    what changes is drawn, so that it can be used over a slow line. NO_COLOR in the environment leaves colours out.
    Members of the group pydbt see what `controller status` tells them.
    """
    if interval_s < SHORTEST_INTERVAL_S:
        raise UsageError(f"--interval {interval_s:g} is too short: draw at most every {SHORTEST_INTERVAL_S:g} seconds")
    _require_terminal()
    # Only now: no other command needs them.
    try:
        import urwid  # noqa: F401
    except ImportError:
        raise MachineError("'controller top' needs urwid, which this machine lacks: install python3-urwid") from None
    return show(interval_s)


def _require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "'controller top' draws on a terminal, and its input or output is none: use 'controller status', or --json of it"
        )
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        raise UsageError("this terminal (TERM) cannot move its cursor: use 'controller status'")


def show(interval_s: float) -> int:
    """Until it is ended; the exit code. MachineError for a user who may see nothing."""
    from pydbt.cli.finders import GroupFinder, finder_for_this_user
    from pydbt.cli.terminal.loop import TopLoop, log_kept
    from pydbt.cli.terminal.questions import Questions
    from pydbt.controller.control import call
    from pydbt.dashboard.collector import Collector
    from pydbt.dashboard.panorama import Panorama

    finder = finder_for_this_user()
    if isinstance(finder, GroupFinder) and not any(os.access(one.where, os.W_OK) for one in finder.places()):
        raise MachineError(
            "no running controller tells its status to this user: run this as root, with sudo, or as a member of pydbt"
        )
    panorama = Panorama()
    collector = Collector(finder, panorama, os.uname().nodename)

    def ask(identity: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if (place := collector.place_of(identity)) is None:
            raise KeyError(identity)
        return call(place.where, request, timeout_s)

    plain = "utf" not in locale.getpreferredencoding(False).lower()
    loop = TopLoop(_Pictures(panorama), Questions(ask), interval_s, plain=plain, colours=_has_colours())
    with log_kept():
        collector.start()
        try:
            return loop.run()
        finally:
            collector.stop()


def _has_colours() -> bool:
    """By NO_COLOR (no-color.org) and by what the terminal is known to do; one that is not known has them."""
    if os.environ.get("NO_COLOR"):
        return False
    import curses

    try:
        curses.setupterm()
        return curses.tigetnum("colors") >= 8
    except curses.error:
        return True


class _Pictures:
    """Of the panorama, as plain values."""

    def __init__(self, panorama: Panorama) -> None:
        self._panorama = panorama

    def machines(self) -> list[dict[str, Any]]:
        return [picture.to_json() for picture in self._panorama.machines()]

    def watched(self, listener: Callable[[], None]) -> AbstractContextManager[None]:
        return self._panorama.watched(listener)

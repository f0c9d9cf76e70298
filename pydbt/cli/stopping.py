"""Stops a running controller or secondary, and waits until it has released its state directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pydbt.cli.values import DURATION
from pydbt.controller.at_work import doing
from pydbt.controller.control import call, is_answering
from pydbt.controller.former_secondary import former_socket
from pydbt.controller.registry import is_claimed
from pydbt.core.errors import NotRunning, PydbtError, TimedOut, UsageError
from pydbt.core.seen.headline import headline
from pydbt.core.seen.view import View
from pydbt.store.lock import is_in_use

_POLL_S = 0.1
_GLANCE_S = 2.0


def timeout_option(meaning: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--timeout`` of a command that ends something that runs."""
    return click.option("--timeout", type=DURATION, default=60.0, show_default=True, metavar="S", help=meaning)


def stop_timeout(who: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option of a role command that stops a running controller or secondary first."""
    return timeout_option(f"Fail when the running {who} has not ended after S seconds (exit code 8).")


def stop_running(state_dir: Path, timeout_s: float, role: str | None = None, why: str = "") -> bool:
    """False when nothing was running. UsageError, and nothing is stopped, when it has another ``role``; TimedOut."""
    with doing(lambda: _of_one_that_ends(state_dir)):
        return _stop_running(state_dir, timeout_s, role, why)


def _stop_running(state_dir: Path, timeout_s: float, role: str | None, why: str) -> bool:
    try:
        if role is not None:
            found = call(state_dir, {"command": "status"}, timeout_s).get("role")
            if found != role:
                raise UsageError(f"{state_dir} is the state directory of a {found}: {why}")
        call(state_dir, {"command": "down"}, timeout_s)
    except NotRunning:
        # It may be on its way out already, and have closed the connection before it answered.
        if not is_answering(state_dir):
            return False
    until_ended(state_dir, timeout_s)
    return True


def stop_former(state_dir: Path, timeout_s: float) -> bool:
    """Stop the former secondary of a replica that was promoted; False when there is none. TimedOut when it does not end."""
    place = former_socket(state_dir)
    try:
        call(place, {"command": "down"}, timeout_s)
    except NotRunning:
        return False
    deadline = time.monotonic() + timeout_s
    while is_answering(place):
        if time.monotonic() > deadline:
            raise TimedOut(f"the former secondary of {state_dir} did not end within {timeout_s:g} s: stop its process")
        time.sleep(_POLL_S)
    return True


def until_ended(state_dir: Path, timeout_s: float) -> None:
    """Wait until a controller that was asked to end has released everything. TimedOut when it does not."""
    with doing(lambda: _of_one_that_ends(state_dir)):
        _wait_for_its_end(state_dir, timeout_s)


def _of_one_that_ends(state_dir: Path) -> str:
    """What a person sees of a controller that was asked to end, and has not yet."""
    words = f"waiting until the controller of {state_dir} has ended"
    try:
        report = View(call(state_dir, {"command": "status"}, _GLANCE_S))
    except PydbtError:
        return words
    return f"{words}: {headline(report, datetime.now(UTC))}"


def _wait_for_its_end(state_dir: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    # The socket disappears before the process ends: the locks count.
    while is_answering(state_dir) or is_claimed(state_dir) or is_in_use(state_dir):
        if time.monotonic() > deadline:
            raise TimedOut(f"the controller of {state_dir} did not end within {timeout_s:g} s: stop its process")
        time.sleep(_POLL_S)

"""``controller promote``: make the replica a volume of its own."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pydbt.cli.values import PATH
from pydbt.controller.control import call, is_answering
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.registry import registered_secondary
from pydbt.core.errors import NotRunning, TimedOut, UsageError
from pydbt.device.checks import check_target

_POLL_S = 0.1


@click.command()
@click.argument("target", type=PATH)
@click.option("--state", "state_dir", type=PATH, required=True, help="The secondary's state directory.")
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="S",
              help="Give up when a running secondary has not ended after S seconds (exit code 8).")
def promote(target: Path, state_dir: Path, timeout: float) -> int:
    """Make TARGET, the replica, a volume of its own: the old primary cannot overwrite it any more.

    A running secondary is stopped. What it had acknowledged is brought onto TARGET; when a resynchronization was under
    way, TARGET is the last consistent image before it. Which of the two it is, is said.
    """
    if not state_dir.is_dir():
        raise UsageError(f"{state_dir} is not a state directory: there is no such directory")
    _stop(state_dir, timeout)
    check_target(target, state_dir=state_dir, create_bytes=None)
    chosen = SecondaryOptions(
        target=target, listen_host="127.0.0.1", listen_port=0, state_dir=state_dir, replay_only=True, promote=True
    )
    with registered_secondary(target, state_dir, "127.0.0.1", 0):
        from pydbt.controller.secondary_service import run_secondary

        return run_secondary(chosen)


def _stop(state_dir: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    try:
        role = call(state_dir, {"command": "status"}, timeout_s).get("role")
        if role != "secondary":
            raise UsageError(f"{state_dir} is the state directory of a {role}: only a replica can be promoted")
        call(state_dir, {"command": "down"}, timeout_s)
    except NotRunning:
        return
    while is_answering(state_dir):
        if time.monotonic() > deadline:
            raise TimedOut(f"the secondary of {state_dir} did not end within {timeout_s:g} s: stop its process")
        time.sleep(_POLL_S)

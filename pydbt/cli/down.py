"""``controller down``: stop a controller, and stop tracking."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pydbt.cli.locate import locate, volume_arguments
from pydbt.controller.control import call, is_answering
from pydbt.controller.leftover import detach_leftover
from pydbt.controller.registry import claimed_state_dir, is_claimed
from pydbt.core.errors import NotRunning, TimedOut
from pydbt.device.checks import require_root

_POLL_S = 0.1


@click.command()
@volume_arguments
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Give up after S seconds (exit code 8).",
)
def down(source: Path | None, state_dir: Path | None, timeout: float) -> int:
    """Stop the controller cleanly and detach its programs from the kernel.

    Writes after this are not tracked. Done already is done as well.
    """
    require_root("controller down")
    try:
        place = locate(source, state_dir)
    except NotRunning:
        click.echo(f"nothing is running for {source}")
        return 0
    stopped = _stop(place, timeout)
    # A controller that is just starting holds the directory, and would lose its programs under its hands.
    with claimed_state_dir(place):
        detached = detach_leftover(place)
    if stopped:
        click.echo("stopped and detached")
    elif detached:
        click.echo("no controller was running; its programs are detached now")
    else:
        click.echo("nothing was running")
    return 0


def _stop(state_dir: Path, timeout_s: float) -> bool:
    """Ask the controller to end and wait until it has; False when there was none."""
    deadline = time.monotonic() + timeout_s
    try:
        call(state_dir, {"command": "down"}, timeout_s)
    except NotRunning:
        # It may be on its way out already, and have closed the connection before it answered.
        if not is_answering(state_dir):
            return False
    # The socket goes before the process does: what is held is what counts.
    while is_answering(state_dir) or is_claimed(state_dir):
        if time.monotonic() > deadline:
            raise TimedOut(f"the controller of {state_dir} did not end within {timeout_s:g} s: stop its process")
        time.sleep(_POLL_S)
    return True

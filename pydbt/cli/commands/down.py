"""``controller down``: stop a controller, and stop tracking."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.locate import locate, volume_arguments
from pydbt.cli.stopping import stop_running
from pydbt.cli.values import SECONDS
from pydbt.controller.primary.leftover import detach_leftover
from pydbt.controller.registry import claimed_state_dir
from pydbt.core.errors import NotRunning
from pydbt.device.checks import require_root


@click.command()
@volume_arguments
@click.option(
    "--timeout",
    type=SECONDS,
    default=60.0,
    show_default=True,
    metavar="S",
    help="Fail after S seconds (exit code 8).",
)
def down(source: Path | None, state_dir: Path | None, timeout: float) -> int:
    """Stop the controller and detach its programs.

    Writes after this are not tracked. When nothing is running, the command succeeds too.
    """
    require_root("controller down")
    try:
        place = locate(source, state_dir)
    except NotRunning:
        click.echo(f"nothing is running for {source}")
        return 0
    stopped = stop_running(place, timeout)
    # A controller that is just starting holds the directory: it must not lose its programs.
    with claimed_state_dir(place):
        detached = detach_leftover(place)
    if stopped:
        click.echo("stopped and detached")
    elif detached:
        click.echo("no controller was running; its programs are detached now")
    else:
        click.echo("nothing was running")
    return 0

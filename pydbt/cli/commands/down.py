"""``controller down``: stop a controller, and stop tracking."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.locate import locate, volume_arguments
from pydbt.cli.once import OnceOption
from pydbt.cli.stopping import stop_running
from pydbt.cli.values import DURATION
from pydbt.controller.registry import claimed_state_dir
from pydbt.controller.state_dir import check_state_dir
from pydbt.core.errors import NotRunning
from pydbt.device.checks import require_root
from pydbt.device.sysfs import BlockDevice


@click.command()
@volume_arguments
@click.option(
    "--volume",
    cls=OnceOption,
    metavar="NAME",
    help="Only the programs of a volume that `status` lists without a controller.",
)
@click.option(
    "--timeout",
    type=DURATION,
    default=60.0,
    show_default=True,
    metavar="S",
    help="Fail after S seconds (exit code 8).",
)
def down(source: Path | None, state_dir: Path | None, volume: str | None, timeout: float) -> int:
    """Stop the controller and detach its programs.

    Writes after this are not tracked. When nothing is running, the command succeeds too. With SOURCE, programs of other
    volumes that track the same device are detached as well.
    """
    require_root("controller down", "it takes programs out of the kernel")
    # Only now: it brings the eBPF side.
    from pydbt.controller.primary.leftover import detach_leftover, detach_pinned

    if volume is not None:
        detach_pinned(volume)
        click.echo(f"the programs of volume {volume} are detached")
        return 0
    stopped = detached = False
    place: Path | None = None
    try:
        place = locate(source, state_dir)
    except NotRunning:
        if source is None:
            raise
    if place is not None:
        check_state_dir(place, "send SIGTERM to that user's process")
        stopped = stop_running(place, timeout)
        # A controller that is just starting holds the directory: it must not lose its programs.
        with claimed_state_dir(place):
            detached = detach_leftover(place)
    others = _detach_others(source)
    if stopped:
        click.echo("stopped" if place is not None and _is_replica(place) else "stopped and detached")
    elif detached or others:
        click.echo("no controller was running; its programs are detached now")
    else:
        click.echo(f"nothing is running for {source}" if place is None else "nothing was running")
    for name in others:
        click.echo(f"detached as well: programs of volume {name}, whose state directory is not known")
    return 0


def _is_replica(state_dir: Path) -> bool:
    return (state_dir / "replica.json").exists() and not (state_dir / "volume.json").exists()


def _detach_others(source: Path | None) -> list[str]:
    """Take away programs that track SOURCE and belong to no state directory that was found; their volumes' names."""
    from pydbt.controller.primary.leftover import detach_pinned, pinned_programs

    if source is None or not source.is_block_device():
        return []
    number = BlockDevice.identify(source).number
    names = [one.name for one in pinned_programs() if one.device is not None and one.device.number == number]
    for name in names:
        detach_pinned(name)
    return names

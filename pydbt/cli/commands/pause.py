"""``controller pause`` and ``controller resume``: replication, never tracking."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.locate import ask, locate, named, secondary_option, volume_arguments


@click.command()
@volume_arguments
@secondary_option
def pause(source: Path | None, state_dir: Path | None, secondary: tuple[str, int] | None) -> int:
    """Pause replication; writes stay tracked.

    `resume` copies the blocks that were written meanwhile.
    """
    ask(locate(source, state_dir), {"command": "pause", **named(secondary)})
    click.echo("replication is paused until 'controller resume' or the next start; writes are still tracked")
    return 0


@click.command()
@volume_arguments
@secondary_option
def resume(source: Path | None, state_dir: Path | None, secondary: tuple[str, int] | None) -> int:
    """Resume replication after a pause."""
    ask(locate(source, state_dir), {"command": "resume", **named(secondary)})
    click.echo("replication goes on")
    return 0

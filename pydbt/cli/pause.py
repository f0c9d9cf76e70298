"""``controller pause`` and ``controller resume``: replication, never tracking."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.locate import ask, locate, volume_arguments


@click.command()
@volume_arguments
def pause(source: Path | None, state_dir: Path | None) -> int:
    """Stop sending to the secondary. Writes are tracked meanwhile; `resume` copies what they changed."""
    ask(locate(source, state_dir), {"command": "pause"})
    click.echo("replication is paused; writes are still tracked")
    return 0


@click.command()
@volume_arguments
def resume(source: Path | None, state_dir: Path | None) -> int:
    """Go on sending to the secondary after `pause`."""
    ask(locate(source, state_dir), {"command": "resume"})
    click.echo("replication goes on")
    return 0

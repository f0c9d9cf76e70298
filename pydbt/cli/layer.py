"""``controller layer``: a layer on a raw disk, made before it is mounted, that gives it snapshots."""

from __future__ import annotations

import click

from pydbt.device.checks import require_root
from pydbt.device.layer import create_layer, remove_layer


@click.group()
def layer() -> None:
    """A device-mapper layer on a raw disk, for epochs from snapshots (see `run --capture addresses`)."""


@layer.command()
@click.argument("device")
@click.argument("name")
@click.option(
    "--snapshot-space", required=True, metavar="DEVICE", help="What snapshots keep goes there; it is overwritten."
)
def create(device: str, name: str, snapshot_space: str) -> int:
    """Make /dev/mapper/NAME over DEVICE, which must not be in use. Mount and replicate that from then on.

    Nothing on DEVICE changes. The layer is gone after a reboot: make it again before mounting.
    """
    require_root("controller layer create")
    click.echo(create_layer(device, name, snapshot_space))
    return 0


@layer.command()
@click.argument("name")
def remove(name: str) -> int:
    """Take the layer NAME away, which must not be in use. What is on its device stays."""
    require_root("controller layer remove")
    remove_layer(name)
    return 0

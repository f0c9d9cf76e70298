"""``controller layer``: a layer on a raw disk, made before it is mounted, that gives it snapshots or write-intent."""

from __future__ import annotations

import click

from pydbt.cli.values import SIZE
from pydbt.controller.registry import require_no_space
from pydbt.device.checks import require_root
from pydbt.device.layer import create_layer, remove_layer
from pydbt.device.sysfs import BlockDevice


@click.group()
def layer() -> None:
    """A device-mapper layer on a raw disk: epochs from snapshots, or less to compare after a power loss."""


@layer.command()
@click.argument("device")
@click.argument("name")
@click.option(
    "--snapshot-space",
    metavar="DEVICE",
    help="What snapshots keep goes there (`run --capture addresses`); it is overwritten.",
)
@click.option(
    "--era",
    metavar="DEVICE",
    help="dm-era records there what is written, so that only that is compared after a power loss.",
)
@click.option("--era-region", type=SIZE, help="What is recorded as one; 64K for new metadata.")
def create(device: str, name: str, snapshot_space: str | None, era: str | None, era_region: int | None) -> int:
    """Make /dev/mapper/NAME over DEVICE, which must not be in use. Mount and replicate that from then on.

    Nothing on DEVICE changes. The layer is gone after a reboot: make it again, with the same command, before mounting.
    """
    require_root("controller layer create")
    for path in (device, snapshot_space, era):
        if path is not None:
            require_no_space(BlockDevice.identify(path))
    click.echo(create_layer(device, name, snapshot_space, era, era_region))
    return 0


@layer.command()
@click.argument("name")
def remove(name: str) -> int:
    """Take the layer NAME away, which must not be in use. What is on its device stays, and what dm-era has recorded."""
    require_root("controller layer remove")
    remove_layer(name)
    return 0

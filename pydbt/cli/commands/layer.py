"""``controller layer``: a layer over a raw disk, made before it is mounted, for snapshots or write-intent."""

from __future__ import annotations

import click

from pydbt.cli.values import SIZE
from pydbt.controller.registry import require_no_space
from pydbt.device.checks import require_root
from pydbt.device.layer import create_layer, remove_layer
from pydbt.device.sysfs import BlockDevice


@click.group()
def layer() -> None:
    """Make or remove a device-mapper layer.

    A layer over a raw disk allows snapshots of it, or bounds what is compared after a power loss.
    """


@layer.command()
@click.argument("device")
@click.argument("name")
@click.option(
    "--snapshot-space",
    metavar="DEVICE",
    help="Store the data of snapshots there (for `run --capture addresses`); it is overwritten.",
)
@click.option(
    "--era",
    metavar="DEVICE",
    help="Record there, by dm-era, which regions are written; after a power loss only these are compared.",
)
@click.option("--era-region", type=SIZE, help="Size of a recorded region; 64K for new metadata.")
def create(device: str, name: str, snapshot_space: str | None, era: str | None, era_region: int | None) -> int:
    """Make /dev/mapper/NAME over DEVICE.

    DEVICE must not be in use, and nothing on it changes. Mount and replicate /dev/mapper/NAME from then on. The layer is
    gone after a reboot: make it again, with the same command, before mounting.
    """
    require_root("controller layer create", "it changes devices of device-mapper")
    for path in (device, snapshot_space, era):
        if path is not None:
            require_no_space(BlockDevice.identify(path))
    click.echo(create_layer(device, name, snapshot_space, era, era_region))
    return 0


@layer.command()
@click.argument("name")
def remove(name: str) -> int:
    """Remove the layer NAME.

    It must not be in use. The content of its device stays, and so does the metadata of dm-era.
    """
    require_root("controller layer remove", "it changes devices of device-mapper")
    remove_layer(name)
    return 0

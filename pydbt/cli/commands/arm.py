"""``controller arm`` and ``controller disarm``: track the writes to a volume without a controller, and end that."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pydbt.cli.locate import locate, volume_arguments
from pydbt.cli.place import named_volume, typed_name
from pydbt.cli.side import present_role, role_of_state
from pydbt.cli.volume_files import VolumeFile, read_volume, volume_files, volumes_folder
from pydbt.controller.boot_chain import keep_names
from pydbt.controller.control import is_answering
from pydbt.controller.registry import claimed_state_dir
from pydbt.controller.state_dir import AS_THAT_USER, check_state_dir
from pydbt.core.configured.role import PRIMARY, Recorded
from pydbt.core.errors import BusyError, NotRunning, PydbtError, UsageError
from pydbt.core.printable import printable
from pydbt.device.checks import require_root
from pydbt.device.sysfs import BlockDevice


@click.command()
@volume_arguments
def arm(source: Path | None, state_dir: Path | None) -> int:
    """Track the writes to a volume without a run.

    Attaches programs that only mark the blocks that are written, and returns. The next `run` takes over from them. Run it
    after a boot, before the file system is checked and mounted: then nothing but what was written is compared. The unit
    pydbt-arm@NAME does that, ordered by what is in /etc/fstab. `disarm` ends it. When there is nothing to do, the command
    succeeds too: for a configured side that is a replica now, for example.
    """
    require_root("controller arm", "it reads block devices and loads eBPF")
    device, place, file = _volume(source, state_dir)
    check_state_dir(place, AS_THAT_USER)
    if file is not None and (replica := _why_no_volume(file)):
        click.echo(f"nothing to do for {printable(str(source))}: {replica}")
        return 0
    # Only now: it brings the eBPF side.
    from pydbt.controller.primary.arming import arm_volume

    armed = arm_volume(device, place, file)
    name = printable(str(source))
    if armed.nothing_to_do:
        click.echo(f"nothing to do for {name}: {armed.nothing_to_do}")
    elif armed.broken:
        click.echo(f"{name} is armed; the next run compares the whole volume, because {armed.broken}")
    else:
        click.echo(f"{name} is armed: every write is tracked, and the next run copies what was written")
    return 0


@click.command()
@volume_arguments
def disarm(source: Path | None, state_dir: Path | None) -> int:
    """Write the closing record, and end tracking.

    For a volume that no controller serves: one that was armed, or whose run has ended. Run it after the file system was
    unmounted. The maps and a fingerprint of the file system are written, and the programs are taken out of the kernel. If
    anything uses the device, nothing is changed (exit code 4). When there is nothing to do, the command succeeds too.
    """
    require_root("controller disarm", "it takes programs out of the kernel")
    device, place, file = _volume(source, state_dir)
    check_state_dir(place, AS_THAT_USER)
    if file is not None and (replica := _why_no_volume(file)):
        click.echo(f"nothing to do for {printable(str(source))}: {replica}")
        return 0
    if is_answering(place):
        raise BusyError(
            f"a controller replicates {source}: stop it first, or stop both with 'controller down {source}'"
        )
    # Only now: it brings the eBPF side.
    from pydbt.controller.primary.end_tracking import end_tracking

    keep_names(file, device)  # as they are at the shutdown: the file system may have got another label meanwhile
    with claimed_state_dir(place):
        ended = end_tracking(place, only_unused=True)
    name = printable(str(source or place))
    click.echo(f"{name} is disarmed: {ended.words}" if ended.detached else f"nothing to do for {name}: it is not armed")
    return 0


def _why_no_volume(file: Path) -> str:
    """Why a configured side has nothing to be armed; empty where it is a volume, by its state, or by its file without one."""
    volume = read_volume(file)
    known = role_of_state(volume)
    return f"it is {known.became()}" if known.recorded is Recorded.REPLICA else ""


def _volume(source: Path | None, state_dir: Path | None) -> tuple[Path, Path, Path | None]:
    """SOURCE, its state directory and the file that configures it, if one does.

    The state directory is as configured, as given, or as last used with the device in this boot.
    """
    if source is None:
        raise UsageError("name the volume: its NAME in the configuration, or its SOURCE")
    name = typed_name()
    if name and (volume := named_volume(name)) is not None:
        if volume.role != PRIMARY and role_of_state(volume).recorded is Recorded.NOTHING:
            raise UsageError(f"{name} is a replica, by {volume.where()}: only a volume is armed, on its primary")
        return source, state_dir or volume.state_dir, volume.path
    if "/" not in str(source) and not os.path.lexists(source):
        raise UsageError(f"{source} is neither a volume in {volumes_folder()} nor a device: name one of them")
    if state_dir is not None:
        return source, state_dir, None
    if (configured := _configured(BlockDevice.identify(source))) is not None:
        return configured.place or source, configured.state_dir, configured.path
    try:
        return source, locate(source, None), None
    except NotRunning:
        raise UsageError(
            f"{source} is not the SOURCE of a volume in {volumes_folder()}: name its state directory with --state DIR"
        ) from None


def _configured(device: BlockDevice) -> VolumeFile | None:
    """The configured volume on a device; None when none is."""
    for path in volume_files():
        try:
            volume = read_volume(path)
            if (
                present_role(volume) == PRIMARY
                and volume.place
                and BlockDevice.identify(volume.place).number == device.number
            ):
                return volume
        except PydbtError:
            continue  # 'controller configcheck' tells it
    return None

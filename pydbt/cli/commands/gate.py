"""``controller gate``: ask the secondaries of a volume before its file system is checked and mounted."""

from __future__ import annotations

import logging

import click

from pydbt.cli.once import OnceOption
from pydbt.cli.place import configured_volume
from pydbt.cli.side import Side
from pydbt.cli.values import ON_SILENCE
from pydbt.cli.volume_files import VolumeFile, volume_files, volumes_folder
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.state_dir import check_state_dir
from pydbt.core.configured.on_unreachable import WAIT_THEN_MOUNT, OnUnreachable
from pydbt.core.configured.problems import did_you_mean
from pydbt.core.errors import PeerError, Superseded, UsageError
from pydbt.core.primary.gate import GateOutcome
from pydbt.device.checks import require_root

_log = logging.getLogger("pydbt")


@click.command()
@click.argument("volume")
@click.option(
    "--on-unreachable",
    cls=OnceOption,
    type=ON_SILENCE,
    metavar="WORDS",
    help="For this call; overrides the volume's file.",
)
def gate(volume: str, on_unreachable: OnUnreachable | None) -> int:
    """Ask whether a volume may be mounted.

    VOLUME is the NAME of a volume in /etc/pydbt/volumes. Run it before the file system is checked and mounted, because both
    write to it. The command asks each secondary whether it was promoted. If one was, the exit code is 12: that secondary
    has the data, and this side has to become a replica. Nothing on the device is read or changed. If a secondary does not
    answer, `on-unreachable` in the volume's file decides: by default the command waits one minute for it, and then the
    volume may be mounted.
    """
    require_root("controller gate", "it reads the state and the identity of a volume")
    options = _options_of(_file_of(volume))
    check_state_dir(options.state_dir)
    as_primary = options if isinstance(options, PrimaryOptions) else options.afterwards
    configured = as_primary.on_unreachable if as_primary is not None else WAIT_THEN_MOUNT
    from pydbt.controller.primary.gate import GateOptions, ask_gate

    verdict = ask_gate(GateOptions.of(options), on_unreachable or configured)
    match verdict.outcome:
        case GateOutcome.OPEN:
            click.echo(f"{volume} may be mounted: {verdict.words}")
        case GateOutcome.UNHEARD:
            _log.error(
                "%s MAY BE MOUNTED, AND NOBODY KNOWS WHETHER ANOTHER SIDE IS THE VOLUME BY NOW: %s; if a secondary was promoted, "
                "unmount at once ('controller status' has this too)", volume, verdict.words,
            )  # fmt: skip
        case GateOutcome.SILENT:
            raise PeerError(
                f"{volume} is not mounted, because not every secondary answers: {verdict.words}; bring it back, or if none was "
                f"promoted, 'controller gate {volume} --on-unreachable mount', and mount by hand"
            )
        case GateOutcome.SHUT:
            raise Superseded(
                f"{volume} must not be mounted here: {verdict.words}; to make this side the replica, 'controller demote "
                f"{volume}', and go on as for an old primary that comes back"
            )
    return 0


def _file_of(name: str) -> VolumeFile:
    volume = configured_volume(name)
    if volume is None:
        guess = did_you_mean(name, [path.stem for path in volume_files()])
        raise UsageError(
            f"there is no volume {name} in {volumes_folder()}{guess}: name a volume that is configured there"
        )
    return volume


def _options_of(volume: VolumeFile) -> PrimaryOptions | SecondaryOptions:
    """What the file says. UsageError for a file with a fault: then it is not known whom to ask."""
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    try:
        return Side(volume, group).options_of_file()
    except UsageError as error:
        raise UsageError(f"{error} ('controller configcheck {volume.name}' has all of it)") from None

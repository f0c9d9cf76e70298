"""``controller down``: stop a controller, and stop tracking."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pydbt.cli.locate import locate, volume_arguments
from pydbt.cli.once import OnceOption, was_typed
from pydbt.cli.program import program_name
from pydbt.cli.stopping import stop_former, stop_running, timeout_option
from pydbt.controller.control import is_answering
from pydbt.controller.former_secondary import former_socket, former_words
from pydbt.controller.registry import claimed_state_dir
from pydbt.controller.state_dir import AS_THAT_USER, check_state_dir
from pydbt.core.errors import MachineError, NotRunning, PydbtError, UsageError
from pydbt.core.printable import printable
from pydbt.core.seen.view import View
from pydbt.device.checks import require_root
from pydbt.device.sysfs import BlockDevice

_ALONE = "no controller was running; its programs are detached now"
_FORMER = (
    "stopped: nobody tells the old primary of the promotion until 'controller secondary' or 'controller run' runs again"
)
_DETACHED = f"{_ALONE}, and the next run compares the whole volume"


@click.command()
@volume_arguments
@click.option(
    "--volume",
    cls=OnceOption,
    metavar="NAME",
    help="Only the programs of a volume that `status` lists without a controller.",
)
@click.option("--all", "everything", cls=OnceOption, is_flag=True, help="Every volume and replica of this machine.")
@timeout_option("Fail after S seconds (exit code 8).")
def down(source: Path | None, state_dir: Path | None, volume: str | None, everything: bool, timeout: float) -> int:
    """Stop the controller and detach its programs.

    Writes after this are not tracked. When nothing is running, the command succeeds too. With SOURCE, programs of other
    volumes on the same device are detached too, unless a controller serves them; the next run of such a volume compares
    everything. With `--all` a volume that cannot be taken down stops no other. Where TARGET was promoted, its former secondary
    is stopped when nothing else runs there.
    The secondary of a user can be stopped by that user.
    """
    if os.geteuid() != 0 and not everything and volume is None and _stop_own_secondary(source, state_dir, timeout):
        return 0
    require_root("controller down", "it takes programs out of the kernel")
    # Only now: it brings the eBPF side.
    from pydbt.controller.primary.leftover import detach_pinned

    if everything:
        if was_typed("source") or was_typed("state_dir") or volume is not None:
            raise UsageError("--all takes down everything, and a volume is named too: give one of them")
        return _down_all(timeout)
    if volume is not None:
        detach_pinned(volume)
        click.echo(f"the programs of volume {volume} are detached")
        return 0
    stopped, detached = False, ""
    place: Path | None = None
    try:
        place = locate(source, state_dir)
    except NotRunning:
        if source is None:
            raise
    if place is not None:
        stopped, detached = _take_down(place, timeout)
    former = place is not None and not stopped and not detached and stop_former(place, timeout)
    problem, others = None, []
    try:
        others = _detach_others(source)
    except MachineError as error:  # whatever is done by now is told before
        problem = error
    if stopped:
        click.echo("stopped" if place is not None and _is_replica(place) else "stopped and detached")
    elif detached or others:
        click.echo(detached or _DETACHED)
    elif former:
        click.echo(_FORMER)
    elif problem is None:
        click.echo(f"nothing is running for {source}" if place is None else "nothing was running")
    for name in others:
        click.echo(f"detached as well: programs of volume {name}, whose next run compares everything")
    if place is not None and (goes_on := former_words(place)):
        click.echo(f"{goes_on.removeprefix('; ')} (another 'controller down' ends it)")
    if problem is not None:
        raise problem
    return 0


def _stop_own_secondary(source: Path | None, state_dir: Path | None, timeout: float) -> bool:
    """Stop a secondary of this user, who is not root; False when it is none, or nothing is known of it."""
    try:
        place = locate(source, state_dir)
    except NotRunning:
        return False
    was_promoted = is_answering(former_socket(place))
    if not was_promoted and not _is_replica(place):
        return False
    check_state_dir(place, AS_THAT_USER)
    stopped = stop_former(place, timeout) if was_promoted else stop_running(place, timeout)
    click.echo(_FORMER if was_promoted else "stopped" if stopped else "nothing was running")
    return True


def _take_down(place: Path, timeout: float) -> tuple[bool, str]:
    """Whether a controller was stopped; and what was done about programs that no controller had, empty when there were none."""
    from pydbt.controller.primary.end_tracking import end_tracking

    check_state_dir(place, f"{AS_THAT_USER}, or send SIGTERM to that user's process")
    stopped = stop_running(place, timeout)
    # A controller that is just starting holds the directory: it must not lose its programs.
    with claimed_state_dir(place):
        ended = end_tracking(place)
    before = "it was armed, and " if ended.armed else ""
    return stopped, f"{before}{_ALONE}: {ended.words}" if ended.detached else ""


def _down_all(timeout: float) -> int:
    """One after the other; the exit code of the first that failed."""
    from pydbt.cli.overview import all_reports, place_of

    code = done = 0
    for report in map(View, all_reports()):
        name = place_of(report)
        try:
            words = _down_one_of_all(report, timeout)
        except Exception as error:  # also a fault of ours, which leaves the others running otherwise
            known = error if isinstance(error, PydbtError) else PydbtError(f"it could not be taken down: {error!r}")
            click.echo(f"{program_name()}: {printable(name)}: {printable(str(known))}", err=True)
            code = code or known.exit_code
            continue
        if words:
            click.echo(f"{printable(name)}: {words}")
            done += 1
    if not done and not code:
        click.echo("nothing was running")
    return code


def _down_one_of_all(report: View, timeout: float) -> str:
    """What was done; empty when there was nothing to do."""
    from pydbt.controller.primary.leftover import detach_pinned

    if report.text("role") == "programs" and not report.text("volume"):
        raise MachineError(report.text("problem") or "it is unknown which programs are in the kernel")
    if report.text("role") == "programs":
        detach_pinned(report.text("volume") or "")
        return f"the programs of volume {report.text('volume')} are detached"
    place = Path(report.text("state_dir") or "")
    if not place.is_dir():
        return ""
    stopped, detached = _take_down(place, timeout)
    if stopped:
        detached = "stopped" if _is_replica(place) else "stopped and detached"
    former = _FORMER if stop_former(place, timeout) else ""
    return "; ".join(filter(None, (detached, former)))


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

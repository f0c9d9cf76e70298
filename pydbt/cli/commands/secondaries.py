"""``controller secondaries``: the secondaries of a running volume, and who joins or leaves."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.locate import ask, ask_primary, locate, volume_arguments
from pydbt.cli.once import OnceOption
from pydbt.cli.own_target import refuse_own_target
from pydbt.cli.render import one_line
from pydbt.cli.values import ADDRESS
from pydbt.core.errors import UsageError
from pydbt.core.seen.view import View
from pydbt.device.sysfs import BlockDevice
from pydbt.network.address import format_address
from pydbt.network.local import check_local

_ANSWER_S = 60.0


@click.command()
@volume_arguments
@click.option(
    "--add", cls=OnceOption, type=ADDRESS, metavar="ADDR:PORT", help="Add this secondary; all data is copied first."
)
@click.option("--peer", cls=OnceOption, metavar="NAME", help="The name in the identity of the added secondary.")
@click.option(
    "--remove", cls=OnceOption, type=ADDRESS, metavar="ADDR:PORT", help="Remove this secondary, and forget its state."
)
def secondaries(
    source: Path | None,
    state_dir: Path | None,
    add: tuple[str, int] | None,
    peer: str | None,
    remove: tuple[str, int] | None,
) -> int:
    """List, add or remove secondaries.

    Each secondary of the volume is listed with its state. While one is added or removed, replication to the others
    continues. Every later `run` replicates to an added secondary, also when it is not named there, until it is removed.
    """
    if add and remove:
        raise UsageError("--add and --remove are two steps: give one of them")
    if peer and not add:
        raise UsageError("--peer names the secondary that --add adds: give --add too")
    place = locate(source, state_dir)
    report = ask_primary(place, "for its secondaries")
    if add:
        check_local(add[0])
        refuse_own_target(BlockDevice.identify(Path(report["source"])), add, place)
        request = {"command": "add", "secondary": format_address(*add), "peer": peer}
        report = ask(place, request, _ANSWER_S)
        click.echo(f"{format_address(*add)} is a secondary of this volume now; its first copy has begun")
    elif remove:
        address = format_address(*remove)
        report = ask(place, {"command": "remove", "secondary": address}, _ANSWER_S)
        click.echo(f"{address} is none of its secondaries any more (it would be again if the next 'run' names it)")
    for line in _lines(View(report)):
        click.echo(line)
    return 0


def _lines(report: View) -> list[str]:
    """One line per secondary, aligned."""
    entries = [(entry.text("secondary") or "", one_line(entry)) for entry in report.parts("secondaries")]
    width = max((len(name) for name, _ in entries), default=0)
    return [f"{name:<{width}}  {words}" for name, words in entries]

"""``controller secondaries``: who a volume is replicated to, and who joins or leaves while it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pydbt.cli.locate import ask, ask_primary, locate, volume_arguments
from pydbt.cli.own_target import refuse_own_target
from pydbt.cli.render import one_line
from pydbt.cli.values import ADDRESS
from pydbt.core.errors import UsageError
from pydbt.device.sysfs import BlockDevice
from pydbt.network.address import format_address

_ANSWER_S = 60.0


@click.command()
@volume_arguments
@click.option("--add", type=ADDRESS, metavar="ADDR:PORT", help="Replicate there as well; everything is copied first.")
@click.option("--peer", metavar="NAME", help="Who the one that is added must prove to be.")
@click.option(
    "--remove", type=ADDRESS, metavar="ADDR:PORT", help="Replicate there no more, and forget what is known of it."
)
def secondaries(
    source: Path | None,
    state_dir: Path | None,
    add: tuple[str, int] | None,
    peer: str | None,
    remove: tuple[str, int] | None,
) -> int:
    """List the secondaries of a volume, each with its own state; add or remove one while the others go on.

    What is added here is replicated to by every later `run`, whether it is typed there or not, until it is removed.
    """
    if add and remove:
        raise UsageError("--add and --remove are two steps: give one of them")
    if peer and not add:
        raise UsageError("--peer tells who the secondary is that --add adds")
    place = locate(source, state_dir)
    report = ask_primary(place, "for its secondaries")
    if add:
        refuse_own_target(BlockDevice.identify(Path(report["source"])), add, place)
        request = {"command": "add", "secondary": format_address(*add), "peer": peer}
        report = ask(place, request, _ANSWER_S)
        click.echo(f"{format_address(*add)} is a secondary of this volume now; its first copy has begun")
    elif remove:
        address = format_address(*remove)
        report = ask(place, {"command": "remove", "secondary": address}, _ANSWER_S)
        click.echo(f"{address} is none of its secondaries any more (it would be again if the next 'run' names it)")
    for line in lines(report):
        click.echo(line)
    return 0


def lines(report: dict[str, Any]) -> list[str]:
    """One secondary each, aligned."""
    entries = report["secondaries"]
    width = max(len(entry["secondary"]) for entry in entries)
    return [f"{entry['secondary']:<{width}}  {one_line(entry)}" for entry in entries]

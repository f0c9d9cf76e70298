"""``controller switchover``: the primary and its secondary change places."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from pydbt.cli.locate import ask, locate, volume_arguments
from pydbt.cli.stopping import timeout_option
from pydbt.cli.values import ADDRESS
from pydbt.controller.at_work import doing
from pydbt.controller.control import call
from pydbt.core.errors import PeerError, PydbtError
from pydbt.core.seen.headline import headline
from pydbt.core.seen.view import View
from pydbt.device.checks import require_root
from pydbt.network.address import format_address

# Beyond the time in which everything has to reach the secondary: to end, and to hear of the new primary.
_ANSWER_MARGIN_S = 130.0
_GLANCE_S = 2.0


@click.command()
@volume_arguments
@click.option("--listen", type=ADDRESS, metavar="ADDR:PORT", help="Address at which this side is then a secondary.")
@timeout_option("Give up after S seconds; nothing is changed.")
def switchover(source: Path | None, state_dir: Path | None, listen: tuple[str, int] | None, timeout: float) -> int:
    """Change places with the secondary.

    Run it on the primary, with SOURCE unmounted. Everything is brought to the secondary, SOURCE becomes a replica, and then
    the secondary becomes the primary. Both processes go on in their new roles. There are never two primaries, also if the
    command is interrupted. By default this side then listens at the address from which it is connected, at the port of the
    secondary.
    """
    require_root("controller switchover")
    place = locate(source, state_dir)
    address = None if listen is None else format_address(*listen)
    with doing(lambda: _where_it_stands(place)):
        request = {"command": "switchover", "listen": address, "timeout": timeout}
        answer = ask(place, request, timeout + _ANSWER_MARGIN_S)
    other, here = answer.get("secondary"), answer.get("listen")
    if unconfirmed := answer.get("unconfirmed"):
        raise PeerError(
            f"this side is a replica now, and {other} did not say that it is the primary ({unconfirmed}): look at it with "
            "'controller status'; if it is still a secondary, 'controller promote' it"
        )
    click.echo(f"{other} is the primary now, and this side its replica, at {here}")
    return 0


def _where_it_stands(place: Path) -> str:
    """The state of the volume while everything is brought to the secondary."""
    try:
        report = View(call(place, {"command": "status"}, _GLANCE_S))
    except PydbtError:
        return "waiting until the places are changed"
    return f"waiting until the places are changed: {headline(report, datetime.now(UTC))}"

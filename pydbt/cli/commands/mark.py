"""``controller mark``: give a name to one place in the order of writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pydbt.cli.locate import ask, locate, named, secondary_option
from pydbt.cli.mark_words import mark_name
from pydbt.cli.place import place_argument
from pydbt.cli.values import DURATION, PATH
from pydbt.core.errors import TimedOut, UsageError
from pydbt.core.printable import printable
from pydbt.core.protocol.mark import check_name
from pydbt.core.seen.view import View
from pydbt.core.units import format_bytes

# Beyond the controller's own deadline: it answers then, unless it hangs.
_ANSWER_MARGIN_S = 10.0


@click.command()
@place_argument("source", required=True)
@click.argument("name", metavar="NAME")
@click.option("--state", "state_dir", type=PATH, metavar="DIR", help="The state directory.")
@secondary_option
@click.option("--any", "anyone", is_flag=True, help="Return when one of several secondaries holds it.")
@click.option("--no-sync", is_flag=True, help="Do not write out the volume's file systems first.")
@click.option("--wait", "patient", is_flag=True, help="Wait until the volume is in mode normal.")
@click.option("--timeout", type=DURATION, metavar="S", help="Fail after S seconds (exit code 8).")
def mark(
    source: Path,
    state_dir: Path | None,
    name: str,
    secondary: tuple[str, int] | None,
    anyone: bool,
    no_sync: bool,
    patient: bool,
    timeout: float | None,
) -> int:
    """Mark a place in the order of writes.

    NAME is given to the place in the stream behind everything that was written before this call, and ahead of everything
    that is written after it: for example `controller mark /dev/vg/data "before migration 14"`. The command returns when the
    secondary, or each one of several, holds the mark durably: no crash of it loses the mark, or moves it.

    File systems on the volume are written out first, as `sync -f` does: writes in the page cache are not before the mark. With
    --no-sync they are not written out, and the mark shows that.

    Only in mode normal do writes have an order. In any other mode no mark is set (exit code 4), or with --wait it is set
    later. `controller status` shows the last marks on both sides, `controller wait --mark NAME` waits for one, and
    `controller promote` names the last one that the replica holds.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if secondary and anyone:
        raise UsageError(
            "--any marks for all secondaries that can hold it, --secondary for a named one: give one of them"
        )
    request = {
        "command": "mark", "name": name, "timeout": timeout, "any": anyone, "sync": not no_sync, "patient": patient,
        **named(secondary),
    }  # fmt: skip
    place = locate(source, state_dir)
    try:
        answer = ask(place, request, None if timeout is None else timeout + _ANSWER_MARGIN_S)
    except TimedOut as error:
        raise TimedOut(f"{error}; 'controller status' tells whether it was set, and who holds it") from None
    _tell(answer)
    return 0


def _tell(answer: dict[str, Any]) -> None:
    """What was set, and what is missing in it. UsageError from an earlier version."""
    view = View(answer)
    if "mark" not in view:
        raise UsageError("the running controller is of an earlier version, which knows no marks")
    told = view.part("mark")
    for problem in view.texts("left_out"):
        words = (
            f"not written out first: {printable(problem)}; writes that programs have not synced there may be missing"
        )
        click.echo(words, err=True)
    if uncertain := told.whole("uncertain_bytes"):
        click.echo(
            f"{format_bytes(uncertain)} were uncertain there: a replica may have another outcome of writes that raced",
            err=True,
        )
    click.echo(f"mark {mark_name(told)} is held by {', '.join(map(printable, told.texts('held_by')))}")

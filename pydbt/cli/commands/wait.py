"""``controller wait``: return when all writes so far are durable."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.locate import ask, locate, named, secondary_option, volume_arguments
from pydbt.cli.values import DURATION
from pydbt.core.errors import UsageError

# Beyond the controller's own deadline: it answers then, unless it hangs.
_ANSWER_MARGIN_S = 10.0


@click.command()
@volume_arguments
@secondary_option
@click.option("--any", "anyone", is_flag=True, help="Return when one of several secondaries has all of them.")
@click.option("--timeout", type=DURATION, metavar="S", help="Fail after S seconds (exit code 8).")
def wait(
    source: Path | None, state_dir: Path | None, secondary: tuple[str, int] | None, anyone: bool, timeout: float | None
) -> int:
    """Wait until all writes so far are durable.

    Returns when every write that completed before this call is durable on the secondary, or on every one of several.
    """
    if secondary and anyone:
        raise UsageError("--any waits for the first of all secondaries, --secondary for a named one: give one of them")
    request = {"command": "wait", "timeout": timeout, "any": anyone, **named(secondary)}
    ask(locate(source, state_dir), request, None if timeout is None else timeout + _ANSWER_MARGIN_S)
    return 0

"""``controller wait``: return when everything written so far is safe."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.locate import ask, locate, volume_arguments

# Beyond the controller's own deadline: it answers then, unless it hangs.
_ANSWER_MARGIN_S = 10.0


@click.command()
@volume_arguments
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Give up after S seconds (exit code 8).")
def wait(source: Path | None, state_dir: Path | None, timeout: float | None) -> int:
    """Wait until every write that completed before this call is durable on the secondary."""
    request = {"command": "wait", "timeout": timeout}
    ask(locate(source, state_dir), request, None if timeout is None else timeout + _ANSWER_MARGIN_S)
    return 0

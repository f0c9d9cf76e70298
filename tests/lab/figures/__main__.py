"""``scripts/bench [NAME...] [--quick] [--json]``: measure, and print a table."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from types import FrameType

import click

from pydbt.core.errors import PydbtError
from tests.lab.figures.report import Figure, table

# In the order of the table of docs/internals/benchmarks.md. Imported when their turn comes: some bring bcc.
FIGURES = {
    "program-cost": "program_cost",
    "tracing-cost": "tracing_cost",
    "observing-cost": "observing_cost",
    "write-overhead": "write_overhead",
    "ring-drain": "ring_drain",
    "outage-wire": "outage_wire",
    "stream": "stream",
    "resync": "resync",
    "restart": "restart",
    "verify": "verify",
    "memory": "memory",
    "maps": "maps",
    "heat": "heat",
    "idle": "idle",
    "metrics": "metrics",
    "watchers": "watchers",
    "transactions": "transactions",
    "wait-after-fsync": "wait_after_fsync",
}


@click.command(epilog=f"The names: {', '.join(FIGURES)}.")
@click.argument("names", nargs=-1, type=click.Choice(list(FIGURES)), metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Smaller sizes and fewer repetitions: a rough look.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array to stdout.")
def main(names: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Measure every figure, or those named.

    Nothing is asserted: a row says whether its bar is reached. Exit code 1 when a figure could not be measured.
    """
    if os.geteuid() != 0:
        raise click.ClickException("measuring needs root, because it makes loop devices and loads programs: use sudo")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    figures: list[Figure] = []
    failed = False
    try:
        for name in dict.fromkeys(names or FIGURES):
            began = time.monotonic()
            _say(f"{name}: measuring")
            try:
                figures += importlib.import_module(f"tests.lab.figures.{FIGURES[name]}").measure(quick)
            except PydbtError as error:
                failed = True
                _say(f"{name}: {error}")
            else:
                _say(f"{name}: done in {time.monotonic() - began:.0f} s")
    except KeyboardInterrupt:
        failed = True
        _say("interrupted")
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in figures], indent=2))
    elif figures:
        click.echo(table(figures))
    sys.exit(1 if failed else 0)


def _say(text: str) -> None:
    print(f"scripts/bench: {text}", file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first one ends the measurement; more must not disturb the taking down."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()

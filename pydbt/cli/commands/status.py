"""``controller status``: how it stands, for people or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from pydbt.cli.locate import ask, last_status, locate, volume_arguments
from pydbt.cli.render import print_status
from pydbt.cli.view import View
from pydbt.core.errors import NotRunning


@click.command()
@volume_arguments
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(source: Path | None, state_dir: Path | None, as_json: bool) -> int:
    """Show the state of a volume and its replica.

    Without a running controller: the last known state, and exit code 9.
    """
    place = locate(source, state_dir)
    try:
        report = {**ask(place, {"command": "status"}), "running": True}
    except NotRunning:
        last = last_status(place)
        if as_json and last:
            click.echo(json.dumps({**last.values, "running": False}, indent=2))
        raise
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        print_status(View(report), sys.stdout)
    return 0

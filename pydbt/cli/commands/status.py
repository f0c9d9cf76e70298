"""``controller status``: how it stands, for people or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from pydbt.cli.asked import as_a_member, told_to_members
from pydbt.cli.locate import ask, last_status, locate, unknown_programs, volume_arguments, with_local_words
from pydbt.cli.render import print_status
from pydbt.core.errors import NotRunning
from pydbt.core.seen.view import View


@click.command()
@volume_arguments
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(source: Path | None, state_dir: Path | None, as_json: bool) -> int:
    """Show the state of volumes and replicas.

    SOURCE may also be the TARGET of a secondary. Without either: a line for every volume and replica of this machine, the
    worst first. Without a running controller: the last known state, and exit code 9. Members of the group pydbt may use
    this command too, while the controller runs.
    """
    if as_a_member(state_dir):
        return _as_member(source, state_dir, as_json)
    if source is None and state_dir is None:
        return _everything(as_json)
    place = locate(source, state_dir)
    try:
        report = {**with_local_words(ask(place, {"command": "status"}), place), "running": True}
    except NotRunning as error:
        last = last_status(place)
        if as_json and last:
            click.echo(json.dumps({**last.values, "running": False}, indent=2))
        if not last and source is not None and (words := unknown_programs(source)):
            raise NotRunning(f"{error}{words}") from error
        raise
    return _show(report, as_json)


def _show(report: dict[str, Any], as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        print_status(View(report), sys.stdout)
    return 0


def _everything(as_json: bool) -> int:
    from pydbt.cli.overview import all_reports

    return _list(all_reports(), as_json)


def _list(reports: list[dict[str, Any]], as_json: bool) -> int:
    from pydbt.cli.overview import lines

    if as_json:
        click.echo(json.dumps({"volumes": reports}, indent=2))
    else:
        for line in lines(reports):
            click.echo(line)
    if not reports:
        raise NotRunning(
            "no volume and no replica is known here since the last boot: name a state directory with --state DIR"
        )
    return 0 if all(report["running"] for report in reports) else NotRunning.exit_code


def _as_member(source: Path | None, state_dir: Path | None, as_json: bool) -> int:
    """For a user who is not root: what controllers tell to the group, and nothing else."""
    from pydbt.cli.overview import in_order

    reports = told_to_members(source, state_dir)
    if source is None and state_dir is None:
        return _list(in_order(reports), as_json)
    report = reports[0]
    if report["running"]:
        return _show(report, as_json)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    raise NotRunning(View(report).text("problem") or "no controller is running")

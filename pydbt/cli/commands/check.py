"""``controller check``: one line and an exit code for monitoring, as its plug-ins have them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from pydbt.cli.asked import as_a_member, reports_for
from pydbt.cli.locate import volume_arguments
from pydbt.cli.once import was_typed
from pydbt.cli.overview import place_of
from pydbt.cli.values import DURATION
from pydbt.core.errors import NotRunning, UsageError
from pydbt.core.seen.plugin import Limits, judged, plugin_line, worst
from pydbt.core.seen.view import View

_ONLY_RUNNING = "without root this sees running controllers only"


@click.command()
@volume_arguments
@click.option("--all", "everything", is_flag=True, help="Every volume and replica of this machine.")
@click.option("-w", "--warning", type=DURATION, default="60s", show_default=True, help="Warn above this age.")
@click.option("-c", "--critical", type=DURATION, default="10m", show_default=True, help="Critical above this age.")
def check(source: Path | None, state_dir: Path | None, everything: bool, warning: float, critical: float) -> int:
    """Check the replica, for monitoring.

    Prints one line with performance data, and ends as monitoring plug-ins do: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. The age
    decides: the time since the replica was last in sync. Without a running controller, and where the dashboard says Bad, the
    state is at least WARNING; it is CRITICAL when the secondary refused for good, or the gate is shut. SOURCE may also be a
    TARGET. Members of the group pydbt may use it too.
    """
    if everything and (was_typed("source") or was_typed("state_dir")):
        raise UsageError("--all checks every volume and replica: give it, or name one")
    if everything:
        source = state_dir = None
    if critical < warning:
        raise UsageError(
            f"-c {critical:g} is less than -w {warning:g}: a replica is critical later than it is a warning"
        )
    limits, now = Limits(warning, critical), datetime.now(UTC)
    reports = reports_for(source, state_dir)
    if not reports:
        raise NotRunning(
            "no volume and no replica is known here since the last boot: name a state directory with --state DIR"
        )
    found = [judged(place_of(view) or str(state_dir or source), view, now, limits) for view in map(View, reports)]
    everything_known = source is not None or state_dir is not None or not as_a_member(None)
    click.echo(plugin_line(found, limits, "" if everything_known else _ONLY_RUNNING))
    return int(worst([one.state for one in found]))

"""``controller invalidate``: give up the content of a replica."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.place import place_argument
from pydbt.cli.stopping import stop_running, stop_timeout
from pydbt.cli.values import PATH
from pydbt.controller.state_dir import require_state_dir
from pydbt.device.checks import check_target
from pydbt.store.replica_state import load_record


@click.command()
@place_argument("target", required=True)
@click.option("--state", "state_dir", type=PATH, metavar="DIR", required=True, help="The secondary's state directory.")
@stop_timeout("secondary")
def invalidate(target: Path, state_dir: Path, timeout: float) -> int:
    """Give up the content of a replica.

    After this, the primary of its volume may overwrite TARGET in any case. Use it on the side of a split brain that is
    to lose its changes. A running secondary is stopped. TARGET is inconsistent until its primary has compared all of it
    and copied the blocks that differ.
    """
    require_state_dir(state_dir)
    from pydbt.controller import roles

    if load_record(state_dir) is not None:
        roles.require_replica(state_dir, target)
    stop_running(state_dir, timeout, "secondary", "only a replica can be invalidated")
    check_target(target, state_dir=state_dir)
    roles.invalidate(target, state_dir)
    click.echo(f"{target} is inconsistent now, until a primary of its volume has overwritten the blocks that differ")
    return 0

"""``controller promote``: make the replica a volume of its own."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.stopping import stop_running, stop_timeout
from pydbt.cli.values import PATH
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.registry import registered_secondary
from pydbt.core.errors import UsageError
from pydbt.device.checks import check_target
from pydbt.store.replica_state import load_record


@click.command()
@click.argument("target", type=PATH)
@click.option("--state", "state_dir", type=PATH, required=True, help="The secondary's state directory.")
@stop_timeout("secondary")
def promote(target: Path, state_dir: Path, timeout: float) -> int:
    """Make a replica a volume of its own.

    After this, the old primary cannot overwrite TARGET any more. A running secondary is stopped, and everything that it
    acknowledged is applied to TARGET. If a resynchronization was under way, TARGET becomes the last consistent image
    before it. The command prints which of the two it is.
    """
    if not state_dir.is_dir():
        raise UsageError(f"{state_dir} is not a state directory: there is no such directory")
    from pydbt.controller import roles

    if load_record(state_dir) is not None:
        roles.require_replica(state_dir, target)
    stop_running(state_dir, timeout, "secondary", "only a replica can be promoted")
    check_target(target, state_dir=state_dir, create_bytes=None)
    chosen = SecondaryOptions(
        target=target, listen_host="127.0.0.1", listen_port=0, state_dir=state_dir, replay_only=True, promote=True
    )
    with registered_secondary(target, state_dir, "127.0.0.1", 0):
        from pydbt.controller.secondary.service import run_secondary

        return run_secondary(chosen)

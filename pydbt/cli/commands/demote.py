"""``controller demote``: make a primary's volume a replica."""

from __future__ import annotations

from pathlib import Path

import click

from pydbt.cli.place import place_argument
from pydbt.cli.protecting import role_changed
from pydbt.cli.stopping import stop_running, stop_timeout
from pydbt.cli.values import PATH
from pydbt.controller.control import is_answering, read_saved_status
from pydbt.controller.primary.leftover import detach_leftover
from pydbt.controller.registry import claimed_state_dir
from pydbt.controller.state_dir import require_state_dir
from pydbt.core.errors import UsageError
from pydbt.device.checks import check_target, require_root
from pydbt.device.sysfs import BlockDevice
from pydbt.store.replica_state import load_record
from pydbt.store.volume_state import load_state


@click.command()
@place_argument("source", required=True)
@click.option("--state", "state_dir", type=PATH, metavar="DIR", required=True, help="The primary's state directory.")
@stop_timeout("controller")
def demote(source: Path, state_dir: Path, timeout: float) -> int:
    """Make a primary's volume a replica.

    After this, another primary of the same volume may bring SOURCE up to date. A running controller is stopped as by `down`.
    SOURCE must not be mounted, and nothing on it is changed. Then run `secondary` on it, with the same state directory.
    If SOURCE has data that the other never had, that primary is refused until you `invalidate` it.
    """
    require_root("controller demote", "it takes programs out of the kernel and writes state")
    require_state_dir(state_dir)
    check_target(source, state_dir=state_dir)
    from pydbt.controller import roles

    if load_state(state_dir) is not None:
        roles.require_volume(state_dir, source)
    elif not is_answering(state_dir) and load_record(state_dir) is not None:
        roles.require_replica(state_dir, source)
        raise UsageError(f"{source} is a replica already: run 'controller secondary' on it with this state directory")
    stop_running(state_dir, timeout, "primary", "only a primary's volume can be demoted")
    with claimed_state_dir(state_dir):
        mapped = _is_tracked(source, state_dir)
        detach_leftover(state_dir)
        record = roles.demote(source, state_dir, mapped=mapped)
        roles.note_promoted_other(state_dir, read_saved_status(state_dir))
    role_changed(source, promoted=False)
    click.echo(f"{source} is a replica now")
    found = record.divergence
    click.echo((found.choice if found is not None else "") or "this side holds nothing that the other never had")
    return 0


def _is_tracked(source: Path, state_dir: Path) -> bool:
    """Whether the programs have tracked every write since a controller ended that was killed."""
    state = load_state(state_dir)
    if state is None or not source.is_block_device():
        return False
    from pydbt.controller.primary.programs import still_tracked

    return still_tracked(BlockDevice.identify(source), state)

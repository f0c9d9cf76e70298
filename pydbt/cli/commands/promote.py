"""``controller promote``: make the replica a volume of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from pydbt.cli.last_mark import last_mark_line
from pydbt.cli.last_transaction import last_transaction_line
from pydbt.cli.once import OnceOption
from pydbt.cli.place import place_argument
from pydbt.cli.protecting import role_changed
from pydbt.cli.stopping import stop_running, stop_timeout, until_ended
from pydbt.cli.values import PATH
from pydbt.controller.control import call, is_answering, read_saved_status
from pydbt.controller.options import SecondaryOptions
from pydbt.controller.registry import registered_secondary
from pydbt.controller.state_dir import require_state_dir
from pydbt.core.errors import BusyError, NotRunning, StateError, UsageError
from pydbt.core.printable import printable
from pydbt.device.checks import check_target
from pydbt.store.gate_question_file import load_gate_question
from pydbt.store.replica_state import load_record

_WHY = "only a replica can be promoted"
_ENDED = "start 'controller secondary', or its unit, again as before: it writes nothing now, and tells the old primary of this"
_GOES_ON = (
    "'controller secondary' goes on: it tells the old primary of this, and replicates from here if its file has a table [run] "
    "for that"
)


@click.command()
@place_argument("target", required=True)
@click.option("--state", "state_dir", type=PATH, metavar="DIR", required=True, help="The secondary's state directory.")
@click.option("--force", cls=OnceOption, is_flag=True, help="Promote although the primary is alive.")
@click.option("--accept-target", cls=OnceOption, is_flag=True, help="Accept this TARGET in the place of the known one.")
@stop_timeout("secondary")
def promote(target: Path, state_dir: Path, force: bool, accept_target: bool, timeout: float) -> int:
    """Make a replica a volume of its own.

    After this, the old primary cannot overwrite TARGET any more. While the primary is alive the command is refused (exit
    code 4). A running secondary makes way, and everything that it acknowledged is applied to TARGET; one that runs by its
    NAME goes on afterwards, and tells the old primary. If a resynchronization was under way, TARGET becomes the last
    consistent image before it. The command prints of which moment TARGET is, what is lost, the last transaction of the
    file system that TARGET holds whole, and the last mark before its end.
    """
    require_state_dir(state_dir)
    from pydbt.controller import roles
    from pydbt.core.secondary.promotion import why_not_take_back

    if load_record(state_dir) is not None:
        if accept_target and is_answering(state_dir):
            raise BusyError("its secondary is running, on the target it had: stop that before another one is accepted")
        record = roles.require_replica(state_dir, target, accept_target=accept_target)
        handed = why_not_take_back(record.handed_to)
        if handed is not None and not force:
            raise BusyError(handed.why)
    status = _stop_secondary(state_dir, force, timeout)
    was_running = status is not None
    if status is None:
        if not force:
            roles.require_no_successor(state_dir)
        status = read_saved_status(state_dir) or {}
        _require_silence(target, state_dir, status, force)
    check_target(target, state_dir=state_dir, create_bytes=None)
    untold = _keep_address(state_dir, status)  # first: whoever runs it afterwards tells its old primary there
    chosen = SecondaryOptions(
        target=target, listen_host="127.0.0.1", listen_port=0, state_dir=state_dir, replay_only=True, promote=True,
        accept_target=accept_target,
    )  # fmt: skip
    with registered_secondary(target, state_dir, "127.0.0.1", 0, keep=True):
        from pydbt.controller.secondary.service import run_secondary

        code = 0 if run_secondary(chosen) == 0 else 1
    if code == 0:
        role_changed(target, promoted=True)
        _tell(state_dir, status, untold)
        click.echo(printable(last_transaction_line(target)))
        click.echo(last_mark_line(state_dir))
        click.echo(_GOES_ON if status.get("goes_on") else _ENDED)
        if not was_running:
            click.echo("the secondary was not running: nobody here knows whether its primary still writes")
    return code


def _tell(state_dir: Path, status: dict[str, Any], untold: str) -> None:
    """Of a replica that was promoted: what is lost. ``untold``: why its old primary will not be told."""
    from pydbt.cli.loss import loss_lines
    from pydbt.core.secondary.primary_watch import PrimaryReport
    from pydbt.core.secondary.promotion import Position, loss

    record = load_record(state_dir)
    if record is not None:
        primary = PrimaryReport.from_values(status.get("primary"))
        for line in loss_lines(loss(primary, Position(record.epoch, record.sequence))):
            click.echo(printable(line))
    if untold:
        click.echo(f"an old primary that comes back is not told that it was superseded: {untold}")


def _keep_address(state_dir: Path, status: dict[str, Any]) -> str:
    """Keep where this side listened, to which its old primary may still connect; why that failed. It counts after a promotion."""
    from pydbt.controller.primary.former_address import keep_former_address

    if isinstance(address := status.get("listen"), str) and address:
        try:
            keep_former_address(state_dir, address)
        except StateError as error:  # it is promoted all the same
            return str(error)
    return ""


def _stop_secondary(state_dir: Path, force: bool, timeout: float) -> dict[str, Any] | None:
    """Its last status, None when none was running. BusyError when its primary lives, UsageError when it is inconsistent."""
    try:
        status = call(state_dir, {"command": "status"}, timeout)
        if status.get("role") != "secondary":
            raise UsageError(f"{state_dir} is the state directory of a {status.get('role')}: {_WHY}")
        if "primary" in status:
            status = call(state_dir, {"command": "promote", "force": force}, timeout)
            until_ended(state_dir, timeout)
            return status
    except NotRunning:
        # It may be on its way out already, and have closed the connection before it answered.
        if not is_answering(state_dir):
            return None
    # A secondary of an earlier version tells only whether it is connected.
    if status.get("connected") and not force:
        raise BusyError("its primary is connected: stop it with 'controller down' there, or add --force")
    stop_running(state_dir, timeout, "secondary", _WHY)
    return status


def _require_silence(target: Path, state_dir: Path, saved: dict[str, Any], force: bool) -> None:
    """The secondary has ended: BusyError when its last status, a moment ago, had heard a living primary, or one asked it last."""
    from pydbt.core.secondary.primary_watch import PrimaryReport
    from pydbt.core.secondary.promotion import why_not_promote
    from pydbt.core.secondary.replica import ReplicaState

    primary = PrimaryReport.from_values(saved.get("primary"))
    try:
        age_s = (datetime.now(UTC) - datetime.fromisoformat(str(saved.get("saved_at")))).total_seconds()
        lives = primary.lives(age_s)
    except (ValueError, TypeError):
        lives = False
    asked = load_gate_question(state_dir)
    found = why_not_promote(str(target), ReplicaState.CONSISTENT, primary.host, lives=lives, gate_asked=asked)
    if found and not force:
        raise BusyError(found.why)

"""``controller transactions``: the transactions in the log of a volume's file system, read from the volume itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pydbt.cli.running_transactions import follow_transactions, list_transactions, running_place, told_by_controller
from pydbt.cli.transaction_parts import print_parts
from pydbt.cli.values import PATH
from pydbt.core.calendar import moment_of_ns
from pydbt.core.errors import NotRunning, UsageError
from pydbt.core.printable import printable
from pydbt.core.transactions.jbd2_blocks import NotUnderstood
from pydbt.core.transactions.on_disk import LogOnDisk, OnDisk, read_log
from pydbt.core.transactions.transaction import NamedRuns
from pydbt.core.units import format_bytes
from pydbt.device.volume_reader import VolumeReader

_ROW = "{:<14} {:<23} {:>10} {:>10} {:>10}  {}"


@click.command()
@click.argument("volume", type=PATH, metavar="DEVICE|IMAGE")
@click.option("--follow", is_flag=True, help="Print each as it completes, until Ctrl-C.")
@click.option("--on-disk", is_flag=True, help="Read the log, also if a controller runs.")
@click.option("--transaction", "name", metavar="N", help="List the parts of the volume that this one changes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def transactions(volume: Path, follow: bool, on_disk: bool, name: str | None, as_json: bool) -> int:
    """List a file system's last transactions.

    Where a controller replicates DEVICE, it tells the transactions that ended since it began, at most 512: number, time, size,
    how much of the volume each changes, and state. Submitted: its commit is on the way to the disk. Committed: it has completed
    there. Done: every secondary holds it as well. With --follow one line is printed for each as it is done or abandoned, or
    with --json one object per line.

    Else, and with --on-disk, it reads the log of the ext4 or XFS on DEVICE or IMAGE, which may be a volume or a replica, and
    needs no controller. Prints one line for each transaction in the log, the oldest first. The last whole one is what a mount,
    or the promotion of a replica, begins with. Nothing is changed or replayed.

    With --transaction it lists the parts of the volume that one of them changes, and what each is, where the mounted file system
    can tell: its own metadata, or a file.
    """
    if follow and name is not None:
        raise UsageError("--follow prints each transaction, --transaction one: give one of them")
    if follow and on_disk:
        raise UsageError("--follow asks the running controller, --on-disk reads the device: give one of them")
    place = None if on_disk else running_place(volume)
    if follow and place is None:
        raise NotRunning(f"no controller replicates {volume}: without --follow its log is read from the device")
    if place is not None and name is not None:
        print_parts(volume, name, told_by_controller(place), as_json)
        return 0
    if place is not None:
        return follow_transactions(place, as_json) if follow else list_transactions(place, volume, as_json)
    with VolumeReader(volume) as reader:
        try:
            log = read_log(reader.read, reader.size_bytes)
        except NotUnderstood as why:
            raise UsageError(f"{volume} shows no transactions: {why}") from None
        mounted = reader.mounted
    if name is not None:
        print_parts(volume, name, _report(volume, log, mounted), as_json)
    elif as_json:
        click.echo(json.dumps(_report(volume, log, mounted), indent=2))
    else:
        _print(volume, log, mounted)
    return 0


def _report(volume: Path, log: LogOnDisk, mounted: bool) -> dict[str, Any]:
    newest = log.newest_whole
    return {
        "volume": str(volume),
        "file_system": log.file_system,
        "mounted": mounted,
        "log_bytes": log.log_bytes,
        "last_whole": newest.transaction.name if newest is not None else None,
        "transactions": [_entry(one, log) for one in log.transactions],
    }


def _entry(one: OnDisk, log: LogOnDisk) -> dict[str, Any]:
    transaction = one.transaction
    return {
        "transaction": transaction.name,
        "state": transaction.state.value,
        "committed": _time(transaction.committed_ns),
        "replayed": one.replayed,
        "log_offset_bytes": transaction.first_block * log.block_bytes,
        "log_bytes": transaction.block_count * log.block_bytes,
        "changed": _runs(transaction.named),
        "revoked": _runs(transaction.revoked),
        "changed_whole": transaction.named_whole,
        "reason": transaction.reason or None,
    }


def _runs(named: NamedRuns) -> list[dict[str, int]]:
    return [{"offset_bytes": offset, "length_bytes": length} for offset, length in named.tolist()]


def _print(volume: Path, log: LogOnDisk, mounted: bool) -> None:
    click.echo(_ROW.format("transaction", "committed (UTC)", "in the log", "changes", "revokes", "state").rstrip())
    for one in log.transactions:
        transaction = one.transaction
        changed, revoked = (int(runs[:, 1].sum()) for runs in (transaction.named, transaction.revoked))
        more = "" if transaction.named_whole else "+"
        state = f"{transaction.state.value}{', replayed by the next mount' if one.replayed else ''}"
        reason = f": {transaction.reason}" if transaction.reason else ""
        click.echo(
            _ROW.format(
                transaction.name,
                (_time(transaction.committed_ns) or "-").replace("T", " ")[:23],
                format_bytes(transaction.block_count * log.block_bytes),
                format_bytes(changed) + more,
                format_bytes(revoked),
                state + reason,
            )
        )
    newest = log.newest_whole
    about = f"{log.file_system} on {printable(str(volume))}, a log of {format_bytes(log.log_bytes)}"
    if newest is None:
        click.echo(f"{about}: no transaction in it is whole, so the last one is unknown")
    else:
        click.echo(f"{about}: transaction {newest.transaction.name} is the last that is whole")
    if mounted:
        click.echo("it is mounted: its log changes while it is read, and newer transactions may follow")


def _time(nanoseconds: int | None) -> str | None:
    """The time as the file system's machine had it; None when it recorded none that a calendar has."""
    moment = None if nanoseconds is None else moment_of_ns(nanoseconds)
    return None if moment is None else moment.isoformat(timespec="microseconds")

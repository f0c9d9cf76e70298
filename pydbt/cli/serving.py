"""Runs a primary or a secondary in the foreground; after a change of places, the same process in the other role."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click

from pydbt.cli.logs import name_lines
from pydbt.cli.own_target import refuse_live_source, refuse_live_target, refuse_own_target
from pydbt.cli.program import Stopped
from pydbt.cli.progress import ProgressReporter
from pydbt.cli.protecting import role_changed
from pydbt.cli.responsive import write_in_background
from pydbt.cli.side import Side
from pydbt.controller.boot_chain import keep_names
from pydbt.controller.expiry import require_usable
from pydbt.controller.journal_room import require_journal_room
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.registry import registered_primary, registered_secondary
from pydbt.controller.state_dir import check_state_dir, require_lasting, require_lasting_target
from pydbt.core.errors import UsageError
from pydbt.core.printable import printable
from pydbt.core.seen.view import View
from pydbt.device.checks import check_source, check_target
from pydbt.device.partitions import read_partitions_again
from pydbt.device.sysfs import BlockDevice
from pydbt.network.address import check_plain_tcp, unix_path, unreachable_name
from pydbt.network.listen import listen as listen_at
from pydbt.network.local import check_local, remove_socket
from pydbt.network.tls import load_identity
from pydbt.posix.ownership import is_readable_by_all
from pydbt.posix.privileges import forbid_core_dumps
from pydbt.posix.service_manager import NO_MANAGER, ServiceManager
from pydbt.store.replica_state import load_record

_log = logging.getLogger("pydbt")


def serve_in_role(
    options: PrimaryOptions | SecondaryOptions,
    only_check: bool = False,
    *,
    alone: bool = True,
    manager: ServiceManager = NO_MANAGER,
    side: Side | None = None,
    until_promoted: bool = True,
) -> int:
    """In either role, until it is stopped; the exit code. PydbtError before anything was done.

    ``only_check``: end after the checks. ``alone``: no other volume's process writes to this terminal. ``manager``: what
    started this process, and is told how it goes. ``side``: what a file configures, whose state decides the role. Without it a
    secondary ends when it was promoted, or with ``until_promoted`` False tells its old primary of that.
    """
    write_in_background()
    outcome: int | PrimaryOptions | SecondaryOptions = options
    while not isinstance(outcome, int):
        if outcome is not options:  # it has changed places with its peer, or was promoted or demoted
            _new_role(outcome)
        outcome = replace(outcome, manager=manager, hooks=options.hooks)
        match outcome:
            case PrimaryOptions():
                outcome = _serve_primary(outcome, only_check, alone)
            case SecondaryOptions():
                with _heeding_signals():
                    ends = side is None and until_promoted
                    outcome = _serve_secondary(replace(outcome, until_promoted=ends), only_check)
                if side is not None and isinstance(outcome, SecondaryOptions):
                    outcome = side.options()
    return outcome


def _new_role(options: PrimaryOptions | SecondaryOptions) -> None:
    """Other programs are kept off what is a replica now, and let to what is a volume."""
    if isinstance(options, PrimaryOptions):
        role_changed(Path(options.source), promoted=True)
    else:
        role_changed(options.target, promoted=False)


def check_primary(options: PrimaryOptions, only_check: bool = True) -> BlockDevice:
    """The SOURCE, when nothing that can be seen before a start is against it; nothing is changed. PydbtError."""
    device = check_source(options.source, options.state_dir)
    check_state_dir(options.state_dir)
    require_lasting(options.state_dir)
    if options.identity is not None:
        _check_identity(options.identity, only_check)
    for address in options.secondaries:
        if options.identity is None:
            check_plain_tcp(address[0], options.insecure)
        check_local(address[0])
        refuse_own_target(device, address, options.state_dir)
    return device


def check_secondary(options: SecondaryOptions, only_check: bool = True) -> None:
    """Nothing that can be seen before a start is against this replica; nothing is changed. PydbtError."""
    check_target(options.target, state_dir=options.state_dir, create_bytes=options.create_bytes)
    check_state_dir(options.state_dir)
    if options.replay_only:
        return
    require_lasting(options.state_dir)
    if options.listener is None:  # else it was a primary until now, and must not end here
        require_lasting_target(options.target)
    require_journal_room(options.state_dir, options.journal_limit_bytes)
    host, port = options.listen
    if options.identity is None:
        check_plain_tcp(host, options.insecure)
    else:
        _check_identity(options.identity, only_check)
    if words := unreachable_name(host, port):
        _log.warning("--listen %s", words)
    if is_readable_by_all(options.target):
        _log.warning(
            "TARGET %s may be read by every user of this machine, with all that is on the volume: run chmod go-r on it",
            options.target,
        )
    if options.listener is None and (port or unix_path(host) is not None):
        # An address in use must be found before an image or a state directory is made.
        listener = listen_at(host, port)
        remove_socket(listener)
        listener.close()


def _serve_primary(options: PrimaryOptions, only_check: bool, alone: bool) -> int | SecondaryOptions:
    name_lines(options.source)
    forbid_core_dumps()
    device = check_primary(options, only_check)
    if not only_check:
        keep_names(options.volume_file, options.source, device)
    if only_check:
        click.echo(f"{printable(str(options.source))} could be replicated: options, device and identity are right")
        return 0
    progress = ProgressReporter(sys.stderr, live=alone)
    chosen = replace(options, report=lambda report: progress.update(View(report.to_json())))
    with (
        _heeding_signals(),
        registered_primary(device, options.state_dir),
        progress,
    ):
        refuse_live_target(device)  # once registered: of two that start at the same time, at least one finds the other
        # Only now: it brings the eBPF side, which no other command needs.
        from pydbt.controller.primary.service import run_primary

        return run_primary(chosen)


def _serve_secondary(options: SecondaryOptions, only_check: bool) -> int | PrimaryOptions | SecondaryOptions:
    name_lines(options.target)
    forbid_core_dumps()
    if not options.replay_only and (since := _promoted_since(options.state_dir)):
        if only_check:
            click.echo(f"{printable(str(options.target))} was promoted at {since}: its old primary would be told that")
            return 0
        # Only now: no other command needs it.
        from pydbt.controller.secondary.promoted import serve_promoted

        return serve_promoted(options)
    target, state_dir, (host, port) = options.target, options.state_dir, options.listen
    check_secondary(options, only_check)
    if only_check:
        click.echo(f"{printable(str(target))} could be a replica: options, target, port and identity are right")
        return 0
    with registered_secondary(target, state_dir, host, port, keep=not options.replay_only):
        refuse_live_source(target)  # once registered: of two that start at the same time, at least one finds the other
        # Only now: no other command needs it.
        from pydbt.controller.secondary.service import run_secondary

        outcome = run_secondary(options)
    if options.replay_only:
        read_partitions_again(target)  # it may be used now
    if isinstance(outcome, SecondaryOptions):
        from pydbt.controller.secondary.promoted import after_a_promotion

        return after_a_promotion(outcome)
    return outcome


def _promoted_since(state_dir: Path) -> str:
    """When the replica of a state directory was promoted; empty when it was not, or there is none. StateError."""
    try:
        check_state_dir(state_dir)
    except UsageError:
        return ""  # refused later, behind what is more wrong
    record = load_record(state_dir)
    return record.promoted if record is not None else ""


def _check_identity(path: Path, only_check: bool) -> None:
    identity = load_identity(path)
    if only_check:
        require_usable(identity)


@contextlib.contextmanager
def _heeding_signals() -> Iterator[None]:
    """Until the service runs and listens to it, SIGTERM undoes what the start has done, as Ctrl-C does.

    SIGHUP ends nothing, then and later: it asks to read the identity again, which a start is about to do or has just done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop), signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped

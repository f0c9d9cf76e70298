"""``controller up --all``: start what is configured and does not run."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import click

from pydbt.cli.values import DURATION
from pydbt.cli.volume_files import VOLUMES, read_volume, volume_files, volumes_folder
from pydbt.controller.supervisor import UP_SIGNAL
from pydbt.controller.supervisor_file import ROLE_NAMES, read_report
from pydbt.controller.units import is_enabled, unit_of
from pydbt.core.configured.supervision import Condition
from pydbt.core.errors import NotRunning, PydbtError, TimedOut, UsageError
from pydbt.core.printable import printable
from pydbt.device.checks import require_root

_POLL_S = 0.1


@click.command()
@click.option("--all", "everything", is_flag=True, help="Every configured volume and replica (required).")
@click.option(
    "--timeout",
    type=DURATION,
    default=10.0,
    show_default=True,
    metavar="S",
    help="Fail when no answer has come after S seconds (exit code 8).",
)
def up(everything: bool, timeout: float) -> int:
    """Start what is configured and does not run.

    A running `controller run` or `controller secondary` of all volumes reads the configuration again, and starts what has ended
    or failed, at once. Without one the command says how to begin (exit code 9).
    """
    if not everything:
        raise UsageError("say what is to be started: --all; one volume is started by 'controller run NAME'")
    require_root("controller up", "it asks a process of root")
    if not volume_files():
        raise UsageError(f"nothing is configured: write {VOLUMES}/NAME.toml with a table [run] or [secondary]")
    reports = {role: report for role in ROLE_NAMES if (report := read_report(role, volumes_folder())) is not None}
    if not reports:
        raise NotRunning(_how_to_begin(_enabled_units()))
    for role, report in reports.items():
        for volume in _started(role, report, timeout):
            failure = f": {volume['failure']}" if volume["failure"] else ""
            click.echo(printable(f"{volume['name']}: {volume['phase']}{failure}"))
    return 0


def _started(role: str, before: dict[str, Any], timeout_s: float) -> list[dict[str, Any]]:
    """The volumes as they are told after the signal. TimedOut when nothing is told."""
    process, deadline = before.get("process"), time.monotonic() + timeout_s
    if isinstance(process, int):
        _signal(role, process)
    while True:
        time.sleep(_POLL_S)
        report = read_report(role, volumes_folder())
        if report is None:
            raise NotRunning(f"'controller {role}' has ended: start it again")
        if process is None and isinstance(process := report.get("process"), int):  # it had only just begun
            before = report
            _signal(role, process)
        if report.get("asked_up", 0) > before.get("asked_up", 0):
            volumes: list[dict[str, Any]] = report["volumes"]
            if all(volume["phase"] != Condition.STOPPING for volume in volumes):
                return volumes
        if time.monotonic() > deadline:
            raise TimedOut(f"'controller {role}' (process {process}) did not answer within {timeout_s:g} s")


def _signal(role: str, process: int) -> None:
    """Ask it to start what does not run. Nothing is sent when the number has become that of another process meanwhile."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended, which the next report tells
        descriptor = os.pidfd_open(process)
        try:
            # Only what it reports now, with the lock held, is about the process that is open here.
            if (read_report(role, volumes_folder()) or {}).get("process") == process:
                signal.pidfd_send_signal(descriptor, UP_SIGNAL)
        finally:
            os.close(descriptor)


def _enabled_units() -> list[str]:
    """The units of configured volumes that a boot starts."""
    found = []
    for path in volume_files():
        try:
            volume = read_volume(path)
        except PydbtError:
            continue  # 'controller configcheck' tells it
        unit = unit_of(volume.role, volume.name) if volume.role else ""
        if unit and is_enabled(unit):
            found.append(unit)
    return found


def _how_to_begin(units: list[str]) -> str:
    words = (
        "nothing runs the configured volumes: begin with 'controller run' for volumes, and 'controller secondary' for "
        "replicas"
    )
    if not units:
        return words
    return f"{words}; those with an enabled unit are started by it: 'systemctl start {' '.join(units)}'"

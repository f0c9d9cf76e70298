"""What the process that runs every configured volume of a role tells other commands: a lock and a report in ``/run/pydbt``."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydbt.controller.registry import own_run_dir
from pydbt.core.errors import BusyError, MachineError, StateError
from pydbt.posix.files import try_lock
from pydbt.posix.ownership import folder_intruder, open_own

ROLE_NAMES = ("run", "secondary")


@contextlib.contextmanager
def supervising(role: str) -> Iterator[int]:
    """Hold the role of this machine for this process; the descriptor of its lock. BusyError: another process has it."""
    folder = own_run_dir()
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if wrong := folder_intruder(folder):
            raise MachineError(f"{folder} is not safe from other users: {wrong}; remove it and start again")
        descriptor = open_own(_lock(role), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise StateError(f"{_lock(role)} cannot be made: {error.strerror}") from error
    try:
        if not try_lock(descriptor):
            process = (read_report(role) or {}).get("process", "unknown")
            raise BusyError(
                f"'controller {role}' runs the configured volumes already (process {process}): use 'controller up --all', "
                "or SIGHUP to have it read the configuration again"
            )
        yield descriptor
        with contextlib.suppress(FileNotFoundError):
            _report(role).unlink()
    finally:
        os.close(descriptor)


def write_report(role: str, report: dict[str, Any]) -> None:
    """Replace the report of this process. It is for people: a disk that is full stops nothing."""
    from pydbt.store.atomic import replace_file  # only here: a command that reads reports does without it

    with contextlib.suppress(StateError):
        replace_file(_report(role), json.dumps(report).encode(), durable=False)


def read_report(role: str) -> dict[str, Any] | None:
    """The report of the process that runs the volumes of a role; None when there is none."""
    try:
        descriptor = open_own(_lock(role), os.O_RDWR)
    except OSError:
        return None
    try:
        if try_lock(descriptor):
            return None
        report = json.loads(_report(role).read_bytes())
        return report if isinstance(report, dict) else None
    except (OSError, ValueError):
        return {}
    finally:
        os.close(descriptor)


def supervised_volumes() -> list[dict[str, Any]]:
    """Every volume that a process of this machine keeps running, as it reports it, with its ``role``."""
    reports = {role: read_report(role) or {} for role in ROLE_NAMES}
    return [{"role": role, **volume} for role, report in reports.items() for volume in report.get("volumes", ())]


def _lock(role: str) -> Path:
    return own_run_dir() / f"supervisor-{role}.lock"


def _report(role: str) -> Path:
    return own_run_dir() / f"supervisor-{role}.json"

"""What the process that runs every configured volume of a role tells other commands: a lock and a report in ``/run/pydbt``.

``folder`` is where the files of the volumes are: another folder has a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydbt.controller.registry import lock_patiently, name_of, own_run_dir
from pydbt.core.errors import BusyError, MachineError, StateError
from pydbt.posix.files import is_locked, try_lock
from pydbt.posix.ownership import folder_intruder, open_own, read_own

ROLE_NAMES = ("run", "secondary")


@contextlib.contextmanager
def supervising(role: str, folder: Path) -> Iterator[int]:
    """Hold the role of this machine for this process; the descriptor of its lock. BusyError: another process has it."""
    lock = _lock(role, folder)
    descriptor = _take(role, folder, lock)
    try:
        _report(lock).unlink(missing_ok=True)  # of one that was killed, whose number another process may have by now
        _remove_dead(lock.parent)
        yield descriptor
    finally:
        _report(lock).unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _take(role: str, folder: Path, lock: Path) -> int:
    """The lock, open and held."""
    while True:
        try:
            lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if wrong := folder_intruder(lock.parent):
                raise MachineError(f"{lock.parent} is not safe from other users: {wrong}; remove it and start again")
            descriptor = open_own(lock, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StateError(f"{lock} cannot be made: {error.strerror}") from error
        if not lock_patiently(descriptor):
            os.close(descriptor)
            process = (read_report(role, folder) or {}).get("process", "unknown")
            raise BusyError(
                f"'controller {role}' runs the configured volumes already (process {process}): use 'controller up --all', "
                "or SIGHUP to have it read the configuration again"
            )
        if _is_at(lock, descriptor):
            return descriptor
        os.close(descriptor)  # its last owner removed it after it was opened here


def _remove_dead(place: Path) -> None:
    """Remove what processes that were killed left, also those of folders that are gone."""
    for lock in place.glob("supervisor-*.lock"):
        with contextlib.suppress(OSError):
            descriptor = open_own(lock, os.O_RDWR)
            try:
                if try_lock(descriptor) and _is_at(lock, descriptor):
                    _report(lock).unlink(missing_ok=True)
                    lock.unlink()
            finally:
                os.close(descriptor)


def _is_at(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(lock, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_report(role: str, folder: Path, report: dict[str, Any]) -> None:
    """Replace the report of this process. It is for people: a disk that is full stops nothing."""
    from pydbt.posix.atomic import replace_file  # only here: a command that reads reports does without it

    with contextlib.suppress(StateError):
        replace_file(_report(_lock(role, folder)), json.dumps(report).encode(), durable=False)


def read_report(role: str, folder: Path) -> dict[str, Any] | None:
    """The report of the process that runs the volumes of a role; None when there is none."""
    return _read(_lock(role, folder))


def supervised_volumes() -> list[dict[str, Any]]:
    """Every volume that a process of this machine keeps running, as it reports it, with its ``role``."""
    found: list[dict[str, Any]] = []
    try:
        place = own_run_dir()
    except MachineError:  # a user without a folder, who could have started none
        return found
    for lock in sorted(place.glob("supervisor-*.lock")):
        role = lock.name.split("-")[1]
        found += [{"role": role, **volume} for volume in (_read(lock) or {}).get("volumes", ())]
    return found


def _read(lock: Path) -> dict[str, Any] | None:
    if not is_locked(lock):
        return None
    try:
        report = json.loads(read_own(_report(lock)))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else None


def _lock(role: str, folder: Path) -> Path:
    return own_run_dir() / f"supervisor-{role}-{name_of(os.path.realpath(folder))}.lock"


def _report(lock: Path) -> Path:
    return lock.with_suffix(".json")

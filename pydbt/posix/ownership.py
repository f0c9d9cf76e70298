"""Whether a folder or file is safe from other users: what root writes there, nobody else may have put in its way."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

OPEN_OWN = os.O_CLOEXEC | os.O_NOFOLLOW
"""Flags to open a file of this program: a symbolic link in its place is an error, and is not followed."""
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def open_own(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """``os.open`` with OPEN_OWN."""
    return os.open(path, flags | OPEN_OWN, mode)


def read_safely(path: Path) -> tuple[str, os.stat_result]:
    """The text of a file, and its status. Something else in its place, a pipe for example, is an OSError and no wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, encoding="utf-8") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read(), status


def folder_intruder(place: str | os.PathLike[str]) -> str:
    """The reason why another user could change what is in an existing folder; empty when none can.

    The folder belongs to root or to this user, and nobody else may write to it; nor may anybody else put another folder in its
    place.
    """
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    try:
        return _of(os.fstat(descriptor)) or _way_intruder(place)
    finally:
        os.close(descriptor)


def file_intruder(path: str | os.PathLike[str], status: os.stat_result) -> str:
    """The reason why another user could write to a file that is open, or have put another one in its place; else empty."""
    return _of(status) or _way_intruder(path)


def _of(status: os.stat_result) -> str:
    if status.st_uid not in _own_users():
        return f"it belongs to user {status.st_uid}: chown it to root, or name another"
    if stat.S_IMODE(status.st_mode) & _WRITABLE_BY_OTHERS:
        return f"other users may write to it (mode {stat.S_IMODE(status.st_mode):04o}): run chmod go-w on it"
    return ""


def _way_intruder(path: str | os.PathLike[str]) -> str:
    """The folder or link on the way to a path that another user could exchange."""
    for step in _steps(Path(os.path.abspath(path))):
        status = os.lstat(step)
        if status.st_uid not in _own_users():
            return f"{step} belongs to user {status.st_uid}, who could put another in its place"
        loose = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
        if loose and step != Path(path):
            return f"{step} may be written by everybody, who could put another in its place"
    return ""


def _steps(path: Path) -> Iterator[Path]:
    """The path and the folders above it, as they are named, and those that links lead to."""
    seen: set[Path] = set()
    for way in (path, Path(os.path.realpath(path))):
        for step in (way, *way.parents):
            if step not in seen:
                seen.add(step)
                yield step


def _own_users() -> set[int]:
    """Root, the user of this process, and who called it by sudo."""
    users = {0, os.geteuid()}
    caller = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and caller.isascii() and caller.isdigit():
        users.add(int(caller))
    return users

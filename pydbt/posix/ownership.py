"""Whether a folder or file is safe from other users: what root writes there, nobody else may have put in its way."""

from __future__ import annotations

import contextlib
import errno
import grp
import io
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from pydbt.posix.reading import read_at_most

OPEN_OWN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags to open a file of this program: a symbolic link in its place is an error and not followed, a pipe is not waited for."""
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
ELSEWHERE = "use a path elsewhere"
REMOVE_IT = "remove it and start again"
"""Remedies: for a place that is chosen, and for one that nobody can choose."""
_LINKS_MAX = 40
"""As many links as the kernel follows on one way (MAXSYMLINKS, include/linux/namei.h)."""
_ACCESS_LIST = "system.posix_acl_access"
_READ_BYTES_MAX = 16 << 20
"""As much as ``read_safely`` reads, and ``read_own`` by default: the files of this program have a few MiB at most."""

_NOT_REGULAR = "it is not a regular file"


def open_own(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """``os.open`` with OPEN_OWN."""
    return os.open(path, flags | OPEN_OWN, mode)


def read_own(path: str | os.PathLike[str], bytes_max: int = _READ_BYTES_MAX) -> bytes:
    """The content of a file that this program keeps, for itself alone: in a state directory, for example.

    An OSError is all that comes of anything else in its place: a link, a pipe, a device, a file that is too large, or one of
    another user. It is never waited for, and its size is asked before it is read.
    """
    try:
        content, _ = _content(open_own(path, os.O_RDONLY), path, bytes_max)
    except _OfAnother as found:
        words = f"it belongs to user {user_name(found.status.st_uid)}, and must be root's or your own"
        raise OSError(errno.EINVAL, words, str(path)) from None
    return content


def read_safely(path: Path) -> tuple[str, os.stat_result]:
    """The text of a file, and its status. Something else in its place, a pipe for example, is an OSError and no wait.

    A file of another user is not read (Unsafe). One that is too large is an OSError, whatever its size is.
    """
    try:
        content, status = _content(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), path, _READ_BYTES_MAX)
    except _OfAnother as found:
        raise Unsafe(_of_file(found.status)) from None
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8").read(), status


class _OfAnother(Exception):
    """The file belongs to another user, and was not read."""

    def __init__(self, status: os.stat_result) -> None:
        super().__init__()
        self.status = status


def _content(descriptor: int, path: str | os.PathLike[str], bytes_max: int) -> tuple[bytes, os.stat_result]:
    """What an opened file has, if it is a regular one of this user and not too large; it is closed."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
        if status.st_uid not in own_users():
            raise _OfAnother(status)
        content = None
        if status.st_size <= bytes_max:
            with open(descriptor, "rb", closefd=False) as file:
                content = read_at_most(file.read, bytes_max, status.st_size)  # it may grow meanwhile
    finally:
        os.close(descriptor)
    if content is None:
        raise OSError(errno.EFBIG, f"it is larger than {bytes_max >> 20} MiB", str(path))
    return content, status


class Unsafe(Exception):
    """Another user could change a file, or what is, or would be, in a folder. Its words are the reason."""


def make_folder(place: str | os.PathLike[str], mode: int = 0o700, remedy: str = ELSEWHERE) -> list[Path]:
    """Make a folder, by default for this user alone, and those above it; those that it made. One that is there stays.

    Raises Unsafe, and OSError when it cannot be made. Nothing is left then.
    """
    if wrong := folder_intruder(place, remedy):
        raise Unsafe(wrong)
    missing = [folder for folder in (Path(place), *Path(place).parents) if not folder.is_dir()]
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            if _make(folder, mode if folder == Path(place) else 0o755):
                made.append(folder)
        if wrong := folder_intruder(place, remedy):  # another user may have been quicker
            raise Unsafe(wrong)
    except (OSError, Unsafe):
        remove_folders(made)
        raise
    return made


def remove_folders(made: list[Path]) -> None:
    """Take back what ``make_folder`` made, but for folders that are not empty."""
    for folder in reversed(made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _make(folder: Path, mode: int) -> bool:
    """False when another program has made it just now."""
    try:
        folder.mkdir(mode)
    except FileExistsError:
        if folder.is_dir():
            return False
        what = "a symbolic link that leads to nothing" if folder.is_symlink() else "no directory"
        raise OSError(errno.ENOTDIR, f"{folder} is {what}: remove it, or name another") from None
    return True


def folder_intruder(place: str | os.PathLike[str], remedy: str = ELSEWHERE) -> str:
    """The reason why another user could change what is in a folder; empty when none can.

    The folder belongs to root or to this user, and nobody else may write to it; nor may anybody else put another folder in its
    place. Where there is no folder yet, the way to it counts. ``remedy``: what to do when it is another user's.
    """
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return way_intruder(place, remedy)
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    try:
        return _of_folder(os.fstat(descriptor), remedy) or way_intruder(place, remedy)
    finally:
        os.close(descriptor)


def file_intruder(path: str | os.PathLike[str], status: os.stat_result) -> str:
    """The reason why another user could write to a file that is open, or have put another one in its place; else empty."""
    return _of_file(status) or way_intruder(path)


def _of_folder(status: os.stat_result, remedy: str) -> str:
    if status.st_uid not in own_users():
        return f"it belongs to user {user_name(status.st_uid)}, and must be root's or your own: {remedy}"
    if mode := _loose_mode(status):
        return f"other users may write to it (mode {mode:04o}): run chmod go-w on it"
    return ""


def _of_file(status: os.stat_result) -> str:
    """Of a file a new mode or owner is not enough: whoever has it open may write to it for as long as that lasts."""
    if status.st_uid not in own_users():
        return (
            f"it belongs to user {user_name(status.st_uid)}, who may have it open for writing: copy it to a file of your own, "
            "or make a new one"
        )
    # What is written to a character device, as /dev/null or a terminal, is not what is read there.
    if not stat.S_ISCHR(status.st_mode) and (mode := _loose_mode(status)):
        return (
            f"other users may write to it (mode {mode:04o}): run chmod go-w on it, when nobody has it open ('fuser -v' "
            "shows that)"
        )
    return ""


def _loose_mode(status: os.stat_result) -> int:
    mode = stat.S_IMODE(status.st_mode)
    return mode if mode & _WRITABLE_BY_OTHERS else 0


def way_intruder(path: str | os.PathLike[str], remedy: str = ELSEWHERE, *, whole: bool = False) -> str:
    """The folder or link on the way to a path that another user could exchange; empty when there is none.

    What is at its end does not count, unless it is a folder; and what is missing on the way does not either. ``whole``: its
    end counts too, and what is missing is an OSError; for where nobody else is to make what is missing, or take it away.
    """
    for step, status in _steps(os.fspath(path), whole):
        if not whole and not stat.S_ISDIR(status.st_mode) and not stat.S_ISLNK(status.st_mode):
            continue
        if status.st_uid not in own_users():
            return f"{step} belongs to user {user_name(status.st_uid)}, who could put another in its place: {remedy}"
        if stat.S_ISDIR(status.st_mode) and (words := _who_else_writes(step, status, remedy)):
            return words
    return ""


def is_readable_by_all(path: Path) -> bool:
    """Whether every user of the machine may read a regular file, and has a way to it."""
    try:
        status = os.stat(path)
        way = all(os.stat(folder).st_mode & stat.S_IXOTH for folder in Path(os.path.realpath(path)).parents)
    except OSError:
        return False
    return way and stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IROTH)


def _who_else_writes(folder: str, status: os.stat_result, remedy: str) -> str:
    """Who else may rename what is in a folder. In a sticky one, as /tmp, everybody only what is his own."""
    if status.st_mode & stat.S_ISVTX:
        return ""
    if status.st_mode & stat.S_IWOTH:
        return (
            f"{folder} may be written by everybody, who could put another in its place: run 'chmod o-w {folder}', or "
            f"{remedy}"
        )
    if status.st_mode & stat.S_IWGRP and not _is_private(folder, status):
        return (
            f"{folder} may be written by its group {_group_name(status.st_gid)}, whose members could put another in its place: "
            f"run 'chmod g-w {folder}', or {remedy}"
        )
    return ""


def _is_private(folder: str, status: os.stat_result) -> bool:
    """Whether the group has nobody but the owner of the folder in it, or is root's, and no access list names others.

    The groups that Debian makes for each user are such: of the user's name, and without members. The group's bits show what
    an access list allows at most (acl(5)).
    """
    try:
        os.getxattr(folder, _ACCESS_LIST)
        return False
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
    if status.st_gid == 0:
        return True
    try:
        group, owner = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:
        return False
    others = any(user.pw_gid == status.st_gid and user.pw_uid != status.st_uid for user in pwd.getpwall())
    return group.gr_name == owner.pw_name and not set(group.gr_mem) - {owner.pw_name} and not others


def _steps(path: str, whole: bool) -> Iterator[tuple[str, os.stat_result]]:
    """Every folder and link that the kernel passes on its way to a path, and what is at its end, as far as it exists.

    ``whole``: an OSError when something of it does not exist.
    """
    at = "/"
    yield at, os.lstat(at)
    left = (path if os.path.isabs(path) else os.path.join(os.getcwd(), path)).split("/")[::-1]
    links = 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)
            continue
        step = os.path.join(at, name)
        try:
            status = os.lstat(step)
            yield step, status
            if not stat.S_ISLNK(status.st_mode):
                at = step
                continue
            goal = os.readlink(step)
        except OSError:
            if whole:
                raise
            return
        links += 1
        if links > _LINKS_MAX:
            if whole:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            return
        at = "/" if goal.startswith("/") else at
        left += goal.split("/")[::-1]


def own_users() -> set[int]:
    """Root, the user of this process, and who called it by sudo."""
    users = {0, os.geteuid()}
    caller = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and caller.isascii() and caller.isdigit():
        users.add(int(caller))
    return users


def is_planted(place: str | os.PathLike[str]) -> bool:
    """Whether another user made what is in a place of this program's, and nothing of this program's can have been there before.

    Nobody else could have taken it away: as in a sticky folder of root's.
    """
    try:
        status = os.lstat(place)
    except OSError:
        return False
    return status.st_uid not in own_users() and not way_intruder(Path(place).parent)


def other_owner(folder: str | os.PathLike[str]) -> str:
    """The user to whom a folder belongs, if that is not one of ``own_users``; else empty, also without a folder."""
    try:
        user = os.stat(folder).st_uid
    except OSError:
        return ""
    return "" if user in own_users() else user_name(user)


def user_name(user: int) -> str:
    """The number of a user, and the name where there is one."""
    try:
        return f"{user} ({pwd.getpwuid(user).pw_name})"
    except KeyError:
        return str(user)


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)

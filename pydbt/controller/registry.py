"""The volumes and replicas that controllers of this machine use: one file each in ``/run/pydbt``.

``<major>-<minor>`` belongs to the controller of that SOURCE, ``state-<hash>`` to the user of a primary's state directory,
``secondary-<hash>`` to the secondary of a TARGET, ``space-<major>-<minor>`` to the controller that stores snapshots there.
The owner holds an exclusive lock on its file for as long as it lives. So a second controller for the same thing is refused,
and a dead owner is known from a living one. The files of a SOURCE and a TARGET stay behind: with them ``controller status``
finds the state directory. The other files stay behind only when their owner is killed; the next controller that registers
anything removes them, and those of targets whose state directory is gone. ``/run`` is empty after a boot. A secondary that is
not root's uses the folder that its user has there, or goes without: its target and state directory have locks of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pydbt.core.errors import BusyError, MachineError, PydbtError, StateError
from pydbt.device.sysfs import BlockDevice
from pydbt.network.address import resolve, unix_path
from pydbt.posix.files import is_locked, try_lock, write_all
from pydbt.posix.ownership import REMOVE_IT, Unsafe, folder_intruder, make_folder, open_own, read_own

RUN_DIR = Path("/run/pydbt")
# The programs in the kernel: one directory of bpffs per volume.
PINS = Path("/sys/fs/bpf/pydbt")
# A look at a lock holds it for microseconds.
_LOOKS = 10
_LOOK_S = 0.02
# A path has 4096 bytes at most, and an entry has two.
_ENTRY_BYTES_MAX = 1 << 16
_WILDCARDS = {"0.0.0.0", "::"}
_USERS_DIR = Path("/run/user")

_log = logging.getLogger("pydbt")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered controller. ``place`` is its SOURCE or TARGET; ``listen`` is where a secondary waits.

    ``disk_sequence`` tells the device from a later one of the same number; None when the kernel has none.
    """

    role: str
    place: str
    state_dir: str
    process: int
    disk_sequence: int | None = None
    listen_host: str = ""
    listen_port: int = 0


@contextlib.contextmanager
def registered_primary(device: BlockDevice, state_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the volume and its state directory for this process. BusyError when another controller holds either."""
    entry = Entry("primary", device.path, os.path.abspath(state_dir), os.getpid(), device.disk_sequence())
    with _held(_source_file(device), entry, f"SOURCE {device.path}", keep=True), claimed_state_dir(state_dir):
        yield


@contextlib.contextmanager
def claimed_state_dir(state_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a primary's state directory, which need not exist yet, against controllers that would start with it."""
    place = os.path.realpath(state_dir)
    entry = Entry("state", place, place, os.getpid())
    with _held(RUN_DIR / f"state-{name_of(place)}", entry, f"the state directory {state_dir}", keep=False):
        yield


@contextlib.contextmanager
def registered_secondary(
    target: str | os.PathLike[str], state_dir: str | os.PathLike[str], host: str, port: int, *, keep: bool = False
) -> Iterator[None]:
    """Announce a replica on this machine, so that a primary here can check that it is not its own SOURCE.

    With ``keep`` its file stays behind, so that the state of a stopped replica is found; and so it does where it was known
    before. A user who has no folder for it goes without, with a warning.
    """
    place = os.path.realpath(target)
    keep = keep or secondary_state_dir_of(place) is not None
    try:
        path = _target_file(place)
    except MachineError as error:
        _log.warning("'controller status %s' will need --state %s: %s", target, state_dir, error)
        yield
        return
    entry = Entry("secondary", place, os.path.abspath(state_dir), os.getpid(), _disk_sequence_of(place), host, port)
    with _held(path, entry, f"TARGET {target}", keep=keep):
        yield


@contextlib.contextmanager
def claimed_source(device: BlockDevice) -> Iterator[None]:
    """Hold a device against controllers that would start with it as their SOURCE, and forget it then. BusyError."""
    entry = Entry("claim", device.path, "", os.getpid(), device.disk_sequence())
    with _held(_source_file(device), entry, f"SOURCE {device.path}", keep=False):
        yield


@contextlib.contextmanager
def claimed_space(space: BlockDevice, volume: BlockDevice) -> Iterator[None]:
    """Hold a device on which snapshots of a volume are stored. BusyError when another controller has a part of it."""
    entry = Entry("space", space.path, volume.path, os.getpid(), space.disk_sequence())
    with _held(_space_file(space), entry, f"the snapshot space {space.path}", keep=False):
        require_no_space(space, _space_file(space))  # of two at the same time, at least one finds the other
        yield


def require_no_space(device: BlockDevice, own: Path | None = None) -> None:
    """BusyError when snapshots are stored on a part of a device, by any other claim than ``own``."""
    for path in RUN_DIR.glob("space-*"):
        if path != own and is_locked(path) and _is_part(path, device):
            raise BusyError(
                f"{device.path}, or a part of it, is in use by another controller for snapshots: name another"
            )


def own_run_dir() -> Path:
    """Where a secondary registers: one that is not root's may not write to root's folder.

    Nor may anybody else write to the folder of a user, or make it first. MachineError: this user has none.
    """
    if os.geteuid() == 0:
        return RUN_DIR
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    for folder in filter(None, (named, f"{_USERS_DIR}/{os.geteuid()}")):
        if os.path.isabs(folder) and _is_private(folder):
            return Path(folder) / "pydbt"
    why = f"XDG_RUNTIME_DIR is {named}, which is not this user's alone" if named else "XDG_RUNTIME_DIR is not set"
    raise MachineError(
        f"{why}, and there is no {_USERS_DIR}/{os.geteuid()}: set XDG_RUNTIME_DIR to a folder of this user with mode 0700"
    )


def _is_private(folder: str) -> bool:
    """Whether it is as the XDG Base Directory Specification asks: of this user, with access for nobody else; and stays so."""
    try:
        status = os.stat(folder)
    except OSError:
        return False
    private = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
    return private and stat.S_ISDIR(status.st_mode) and not folder_intruder(folder)


def _space_file(space: BlockDevice) -> Path:
    return RUN_DIR / f"space-{space.major}-{space.minor}"


def _is_part(claim: Path, device: BlockDevice) -> bool:
    major, minor = (int(number) for number in claim.name.split("-")[1:])
    try:
        return BlockDevice.from_number(major, minor).overlaps(device)
    except PydbtError:
        return False


def is_claimed(state_dir: str | os.PathLike[str]) -> bool:
    """Whether a living process holds a primary's state directory."""
    return is_locked(RUN_DIR / f"state-{name_of(os.path.realpath(state_dir))}")


def state_dir_of(device: BlockDevice) -> Path | None:
    """The state directory last used with a device since it appeared; None when none is known."""
    entry = _read(_source_file(device))
    if entry is None or entry.disk_sequence != device.disk_sequence():
        return None
    return Path(entry.state_dir)


def secondary_state_dir_of(target: str | os.PathLike[str]) -> Path | None:
    """The state directory last used with a TARGET since the boot, or since that device appeared; None when none is known."""
    place = os.path.realpath(target)
    path = _known_target_file(place)
    entry = None if path is None else _read(path)
    if entry is None or entry.disk_sequence != _disk_sequence_of(place):
        return None
    return Path(entry.state_dir) if Path(entry.state_dir).is_dir() else None


def _disk_sequence_of(place: str) -> int | None:
    """That of a device; None for an image file, and where there is nothing."""
    try:
        return BlockDevice.identify(place).disk_sequence()
    except PydbtError:
        return None


def is_secondary_running(target: str | os.PathLike[str]) -> bool:
    """Whether a living process keeps a replica on TARGET."""
    path = _known_target_file(os.path.realpath(target))
    return path is not None and is_locked(path)


def known_places() -> list[Entry]:
    """Every volume and replica that a controller of this machine has served since the boot, by the name of its place."""
    files = [path for path in RUN_DIR.glob("*") if path.name.startswith("secondary-") or path.name[:1].isdigit()]
    entries = [entry for path in files if (entry := _read(path)) and entry.role in ("primary", "secondary")]
    return sorted(entries, key=lambda entry: entry.place)


def living_secondaries() -> list[Entry]:
    """The secondaries that run on this machine, in any network namespace."""
    return _living("secondary-*")


def living_primaries() -> list[Entry]:
    """The primaries that run on this machine."""
    return _living("[0-9]*-[0-9]*")


def _living(pattern: str) -> list[Entry]:
    return [entry for path in sorted(RUN_DIR.glob(pattern)) if (entry := _read(path)) and is_locked(path)]


def secondaries_at(host: str, port: int) -> list[Entry]:
    """The living secondaries of this machine, in any network namespace, that listen at an address."""
    candidates = [entry for entry in living_secondaries() if entry.listen_port == port]
    if not candidates:
        return []
    wanted = _addresses(host)
    return [entry for entry in candidates if _listens_at(entry.listen_host, wanted)]


def forget(device: BlockDevice) -> None:
    """Remove the entry of a device that no controller holds; harmless when there is none."""
    path = _source_file(device)
    if path.exists() and not is_locked(path):
        path.unlink(missing_ok=True)


def _listens_at(listen_host: str, wanted: set[str]) -> bool:
    listening = _addresses(listen_host)
    if listening & _WILDCARDS:
        # It listens at every address of this machine; another address belongs to another machine with the same port.
        return any(_is_own(address) for address in wanted)
    return bool(listening & wanted)


def _addresses(host: str) -> set[str]:
    if unix_path(host) is not None:
        return {host}
    try:
        return {str(address[0]) for _, address in resolve(host, 0)}
    except PydbtError:
        return {host}


def _is_own(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:  # also where this machine has no sockets of that family
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def name_of(path: str) -> str:
    """The part of a file's name here that stands for a path."""
    return hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:16]


def _target_file(place: str) -> Path:
    return own_run_dir() / f"secondary-{name_of(place)}"


def _known_target_file(place: str) -> Path | None:
    """None for a user who has no folder for it."""
    try:
        return _target_file(place)
    except MachineError:
        return None


def _source_file(device: BlockDevice) -> Path:
    return RUN_DIR / f"{device.major}-{device.minor}"


@contextlib.contextmanager
def _held(path: Path, entry: Entry, what: str, *, keep: bool) -> Iterator[None]:
    descriptor = _take(path, what)
    try:
        _remove_dead(path.parent)
        before = os.pread(descriptor, _ENTRY_BYTES_MAX, 0)
        try:
            _write(descriptor, json.dumps(asdict(entry)).encode())
        except OSError as error:
            keep = keep and bool(before)
            raise StateError(f"{path} cannot be written: {error.strerror}; make room there") from error
        try:
            yield
        finally:
            if keep and not os.path.isdir(entry.state_dir):  # it was refused: what was known before is not forgotten
                keep = bool(before)
                with contextlib.suppress(OSError):
                    _write(descriptor, before)
    finally:
        if not keep:
            with contextlib.suppress(OSError):  # without its lock it counts as left by one that was killed
                path.unlink(missing_ok=True)
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    """On a full disk either the earlier content stays, or the new one takes its blocks."""
    write_all(descriptor, [content], 0)
    os.ftruncate(descriptor, len(content))


def _take(path: Path, what: str) -> int:
    """The file, open and locked. BusyError when somebody else holds it."""
    while True:
        try:
            make_folder(path.parent, 0o755, REMOVE_IT)
            descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        except Unsafe as error:
            raise MachineError(f"{path.parent} is not safe from other users: {error}") from None
        except OSError as error:
            raise StateError(f"{path} cannot be made: {error.strerror}") from error
        if not lock_patiently(descriptor):
            os.close(descriptor)
            other = _read(path)
            whose = f" (process {other.process}, state directory {other.state_dir})" if other else ""
            raise BusyError(f"{what} is in use by another controller{whose}: stop it first")
        # Its last owner may have removed it after it was opened here and before it was locked: then it is no lock any more.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def _remove_dead(folder: Path) -> None:
    """Remove the files of owners that were killed. A process that is about to take one makes it anew."""
    for path in (*folder.glob("state-*"), *folder.glob("secondary-*"), *folder.glob("space-*")):
        if path.name.startswith("secondary-") and (entry := _read(path)) and os.path.isdir(entry.state_dir):
            continue  # it tells where the state of a stopped replica is
        try:
            descriptor = open_own(path, os.O_RDWR)
        except OSError:
            continue  # gone meanwhile
        with contextlib.suppress(FileNotFoundError):
            if try_lock(descriptor) and os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                path.unlink()
        os.close(descriptor)


def lock_patiently(descriptor: int) -> bool:
    """As ``try_lock``, but a process that only checks the lock for a moment does not count."""
    for _ in range(_LOOKS):
        if try_lock(descriptor):
            return True
        time.sleep(_LOOK_S)
    return False


def _read(path: Path) -> Entry | None:
    try:
        return Entry(**json.loads(read_own(path)))
    except PermissionError as error:
        raise MachineError(f"{path} may be read by root only: run this as root, with sudo") from error
    except (OSError, ValueError, TypeError):
        return None

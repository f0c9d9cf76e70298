"""Mounts and swap areas: ``/proc/PID/mountinfo`` and ``/proc/swaps``.

``every_mount`` knows the mounts of every mount namespace in which a process lives, and reaches them through
``/proc/PID/root``. A namespace that only a file or a descriptor keeps alive is out of reach: ``pydbt.device.usage`` still
finds that its devices are in use. Sources: proc_pid_mountinfo(5), mount_namespaces(7),
Documentation/ABI/testing/sysfs-fs-btrfs.

Users choose names of mount points, sources and swap files. The kernel escapes space, tab, newline and backslash in them, and
nothing else (mangle() in fs/proc_namespace.c): every other byte may come, and only a newline ends a line. So no name, and no
text of a file system's own options, may end in an exception here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydbt.device.freezer import mount_id_of_descriptor

_OCTAL = re.compile(r"\\([0-7]{3})")
# Mount id, parent's id, device number, root, mount point, options, and optional fields or the hyphen behind a space.
_HEAD = re.compile(
    r"(?P<id>[0-9]+) [0-9]+ (?P<major>[0-9]+):(?P<minor>[0-9]+) [^ ]* (?P<point>[^ ]*) (?P<options>[^ ]*) ?"
)
_BTRFS = Path("/sys/fs/btrfs")
_PROC = Path("/proc")
# File systems on devices that show an anonymous device number.
_ON_DEVICES = ("btrfs", "bcachefs")

LineFilter = Callable[[bytes], bool]
"""Whether a line of mountinfo is to be read as a whole."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. ``major`` is 0 for file systems on no single block device (btrfs, overlay, tmpfs).

    ``point`` can be opened by this process. ``root`` is the beginning of it that leads into another mount namespace.
    """

    mount_id: int
    major: int
    minor: int
    point: str
    options: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]
    root: str = ""

    @property
    def read_only(self) -> bool:
        return "ro" in self.options or "ro" in self.super_options

    def super_option(self, name: str) -> str | None:
        """The value of ``name=value`` among the file system's own options, or None."""
        prefix = f"{name}="
        return next((option.removeprefix(prefix) for option in self.super_options if option.startswith(prefix)), None)


def read_mounts() -> list[Mount]:
    """Every mount of this mount namespace, in mount order."""
    return _parsed(_mount_lines(_PROC / "self"))


def every_mount(is_wanted: LineFilter | None = None) -> list[Mount]:
    """Every mount of every mount namespace in which a process lives: this one first, each in mount order.

    ``is_wanted``: of the other namespaces, only mounts whose line it wants. Any user can make a hundred thousand of them
    (fs.mount-max) in a namespace of his own, and to read a line as a whole takes much longer than to look into it.
    """
    found = read_mounts()
    seen = {_namespace_of(_PROC / "self")}
    for process in _PROC.glob("[0-9]*"):
        namespace = _namespace_of(process)
        if namespace is None or namespace in seen:
            continue
        try:
            lines = _mount_lines(process)
        except OSError:
            continue  # it has ended: another process of its namespace may follow
        if lines:
            seen.add(namespace)
            wanted = lines if is_wanted is None else filter(is_wanted, lines)
            found += [_reached_through(process, mount) for mount in _parsed(wanted)]
    return found


def _may_be_on(devices: Collection[tuple[int, int]]) -> LineFilter:
    """Whether a line, of another namespace, may be that of a mount whose file system lives on one of these devices.

    In names a space is escaped, so that no name has what is looked for.
    """
    numbers = [f" {major}:{minor} ".encode() for major, minor in devices]
    anonymous = [f" - {fs_type} ".encode() for fs_type in _ON_DEVICES]

    def may_be(line: bytes) -> bool:
        if any(part in line for part in numbers) or any(part in line for part in anonymous):
            return True
        return b" - xfs " in line and any(option in line for option in (b"logdev=", b"rtdev="))

    return may_be


def _reached_through(process: Path, mount: Mount) -> Mount:
    root = f"{process}/root"
    # A user chooses the source of a file system without a device, and what lies there in his namespace: it may be a place
    # that never answers, and is not asked for.
    source = mount.source if mount.major or mount.fs_type in _ON_DEVICES else ""
    return replace(mount, point=f"{root}{mount.point}", root=root, source=source)


def _namespace_of(process: Path) -> str | None:
    try:
        return os.readlink(process / "ns/mnt")
    except OSError:
        return None  # it has ended, or belongs to another user


def _mount_lines(process: Path) -> list[bytes]:
    return [line for line in (process / "mountinfo").read_bytes().split(b"\n") if line]


def _parsed(lines: Iterable[bytes]) -> list[Mount]:
    return [mount for line in lines if (mount := parse_mount(os.fsdecode(line))) is not None]


def parse_mount(line: str) -> Mount | None:
    """Parse one mountinfo line. Its optional fields end at a single hyphen. None when it does not begin as such a line does."""
    head = _HEAD.match(line)
    if head is None:
        return None
    # An empty source is legal and leaves two spaces in a row; split(" ") keeps it as an empty field.
    fields = line[head.end() :].split(" ")
    tail = fields[fields.index("-") + 1 :] if "-" in fields else []
    # A file system writes its own options, and may leave spaces in them.
    fs_type, source, super_options = (*tail[:2], "", "")[0], (*tail[1:2], "")[0], " ".join(tail[2:])
    return Mount(
        mount_id=int(head["id"]),
        major=int(head["major"]),
        minor=int(head["minor"]),
        point=_unescape(head["point"]),
        options=tuple(head["options"].split(",")),
        fs_type=fs_type,
        source=_unescape(source),
        super_options=tuple(_unescape(super_options).split(",")),
    )


def mounts_of(major: int, minor: int, mounts: Iterable[Mount] | None = None) -> list[Mount]:
    """The mounts, in any mount namespace, whose file system lives, even in part, on this block device.

    btrfs shows an anonymous device number and may lie on several devices; ``/sys/fs/btrfs`` names its members.
    """
    wanted = (major, minor)
    return [
        mount
        for mount in (every_mount(_may_be_on([wanted])) if mounts is None else mounts)
        if (mount.major, mount.minor) == wanted
        or (mount.fs_type == "btrfs" and wanted in devices_of_btrfs(mount))
        or wanted in _side_devices(mount)
    ]


def mounts_on(devices: Collection[tuple[int, int]]) -> list[Mount]:
    """The mounts, in any mount namespace, whose file system lives, even in part, on one of these devices."""
    known: dict[Mount, set[tuple[int, int]]] = {}  # of each file system, which may have any number of mounts
    found = []
    for mount in every_mount(_may_be_on(devices)):
        alike = replace(mount, mount_id=0, point="", options=())
        if alike not in known:
            known[alike] = devices_of_mount(mount)
        if not known[alike].isdisjoint(devices):
            found.append(mount)
    return found


def one_of_each(mounts: Iterable[Mount]) -> list[Mount]:
    """One mount of each file system: where there is a choice, one whose point leads to it and not to another one above it."""
    chosen: dict[tuple[int, int], Mount] = {}
    reached: set[tuple[int, int]] = set()
    for mount in mounts:
        number = (mount.major, mount.minor)
        chosen.setdefault(number, mount)
        if number not in reached and _reaches(mount):
            chosen[number] = mount
            reached.add(number)
    return list(chosen.values())


def _reaches(mount: Mount) -> bool:
    return mount_id_of(mount.point) == mount.mount_id


def devices_of_mount(mount: Mount) -> set[tuple[int, int]]:
    """The block devices, as (major, minor), that the mount's file system writes to; empty when it has none."""
    devices = _side_devices(mount)
    if mount.major:
        devices.add((mount.major, mount.minor))
    elif mount.fs_type == "btrfs":
        devices |= devices_of_btrfs(mount)
    elif not mount.fs_type.startswith("fuse"):  # a user writes what he likes into the source of these
        # bcachefs names its members joined with colons; other file systems name one path or none.
        devices |= {number for part in mount.source.split(":") if (number := _device_number(part, mount.root))}
    return devices


def devices_of_btrfs(mount: Mount) -> set[tuple[int, int]]:
    """Every member device of a mounted btrfs, found through the member that its mount line names."""
    named = _device_number(mount.source, mount.root)
    for file_system in _BTRFS.glob("*/devices"):
        try:
            entries = list(file_system.iterdir())
        except OSError:
            continue  # unmounted meanwhile
        members = {number for entry in entries if (number := _read_device_number(entry / "dev"))}
        if named in members:
            return members
    return {named} if named else set()


def mount_of_path(path: str | os.PathLike[str]) -> Mount | None:
    """The mount that a path is on, by the kernel's mount id, which is also right for bind mounts and subvolumes."""
    mount_id = mount_id_of(path)
    return next((mount for mount in read_mounts() if mount.mount_id == mount_id), None)


def mount_id_of(path: str | os.PathLike[str]) -> int | None:
    """The kernel's number of the mount that a path is on, in whatever namespace; None when it cannot be reached."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return mount_id_of_descriptor(descriptor)
    finally:
        os.close(descriptor)


def swap_paths() -> list[str]:
    """The block devices and files that are in use as swap."""
    return parse_swaps(os.fsdecode(Path("/proc/swaps").read_bytes()))


def parse_swaps(text: str) -> list[str]:
    """The paths in the text of ``/proc/swaps``: the first column, which ends at a space or tab."""
    return [_unescape(re.split("[ \t]", line, maxsplit=1)[0]) for line in text.split("\n")[1:] if line]


def device_numbers(mount: Mount, option: str) -> list[tuple[int, int]]:
    """The device that a mount names in an option, if it does."""
    path = mount.super_option(option)
    return [number] if path and (number := _device_number(path, mount.root)) else []


def _side_devices(mount: Mount) -> set[tuple[int, int]]:
    """XFS's external log and realtime devices, which its device number does not show."""
    if mount.fs_type != "xfs":
        return set()
    return {*device_numbers(mount, "logdev"), *device_numbers(mount, "rtdev")}


def _device_number(path: str, root: str) -> tuple[int, int] | None:
    """The device of that name in a mount's own namespace; where it has no such name, in this one."""
    for place in dict.fromkeys((f"{root}{path}", path)) if path.startswith("/") else ():
        try:
            status = os.stat(place)
        except (OSError, ValueError):
            continue
        if status.st_rdev:
            return os.major(status.st_rdev), os.minor(status.st_rdev)
    return None


def _read_device_number(path: Path) -> tuple[int, int] | None:
    try:
        major, minor = path.read_text().strip().split(":")
        return int(major), int(minor)
    except (OSError, ValueError):
        return None


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)

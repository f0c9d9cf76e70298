"""The files that say what a boot mounts, what is armed before it, and by which names a volume's device is known.

Read by a generator of systemd, so early and so often that only Python's own library is imported, and as little of it as can be.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pydbt.core.configured.boot_order import NAMES_SUFFIX, ArmedVolume, known_names, units_ordered_by
from pydbt.core.configured.fstab import FSTAB, PlannedMount, at_goal, mount_of_unit, mounts_in_fstab

# By the directories of systemd.unit(5); what is in the first of them counts.
UNIT_FOLDERS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
GENERATED = "run/systemd/generator"
MAX_FILE_BYTES = 1 << 20
"""Of a file that is read here; a longer one is none of these."""


def read_short(path: Path) -> str | None:
    """The text of a regular file, with other bytes than UTF-8 as surrogates; None when it is not there. OSError.

    Something else in its place, as a pipe, is an OSError and no wait.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(f"it is longer than {MAX_FILE_BYTES} bytes")
    return data.decode("utf-8", "surrogateescape")


def mounts_at_boot(root: Path = Path("/"), faults: list[str] | None = None) -> list[PlannedMount]:
    """Every mount that ``fstab`` and the units of systemd name. ``faults`` gets a sentence for what cannot be read."""
    found: list[PlannedMount] = []
    told = faults if faults is not None else []
    try:
        found += mounts_in_fstab(read_short(root / FSTAB.lstrip("/")) or "")
    except OSError as error:
        told.append(f"{FSTAB} cannot be read: {error}")
    return found + mounts_of_units(root, told)


def mounts_of_units(root: Path = Path("/"), faults: list[str] | None = None) -> list[PlannedMount]:
    """As ``mounts_at_boot``, by the units alone."""
    found: list[PlannedMount] = []
    told = faults if faults is not None else []
    for path in _mount_units(root):
        try:
            text = read_short(path)
            if text and (unit := mount_of_unit(str(path), path.name, text)):
                found.append(unit)
        except OSError as error:
            told.append(f"{path} cannot be read: {error}")
    return found


def at_their_goals(
    mounts: Iterable[PlannedMount],
    volume: ArmedVolume,
    root: Path = Path("/"),
    follow: Callable[[str], str] = os.path.realpath,
) -> list[PlannedMount]:
    """The mounts, those of the volume by ``fstab`` at the path that their mount point leads to.

    No other link is followed: the look at a path waits for a server of NFS that is away, or for an automount, and at a
    ``daemon-reload`` systemd, which would mount it, waits for its generators. Of a root that is looked at from outside none is:
    there links would lead elsewhere.
    """
    names = volume.names | {volume.source}
    return [
        at_goal(mount, follow(mount.point)) if mount.line and mount.device in names and root == Path("/") else mount
        for mount in mounts
    ]


def names_file(volume_file: Path) -> Path:
    """The file of a volume's names, beside the volume's own."""
    return volume_file.with_name(volume_file.name.removesuffix(".toml") + NAMES_SUFFIX)


def armed_volume(volume_file: Path, source: str, state_dir: str) -> ArmedVolume:
    """A configured volume, with the names that were kept of its device. OSError."""
    names = known_names(read_short(names_file(volume_file)) or "", source)
    needs = dict.fromkeys((state_dir, os.path.realpath(state_dir)))
    return ArmedVolume(volume_file.name.removesuffix(".toml"), source, names, tuple(needs))


def units_behind(unit: str, root: Path = Path("/")) -> frozenset[str] | None:
    """The units before which a unit was ordered by files of its own; None when no generator has written one."""
    generated = root / GENERATED / f"{unit}.d"
    folders = [*(root / folder / f"{unit}.d" for folder in UNIT_FOLDERS), generated]
    texts = [text for folder in folders for path in sorted(folder.glob("*.conf")) if (text := _text_of(path))]
    return units_ordered_by(texts) if generated.is_dir() else None


def _text_of(path: Path) -> str:
    try:
        return read_short(path) or ""
    except OSError:
        return ""


def _mount_units(root: Path) -> Iterator[Path]:
    """The first of each name; one that is masked is none."""
    seen: set[str] = set()
    for folder in UNIT_FOLDERS:
        try:
            names = sorted(name for name in os.listdir(root / folder) if name.endswith(".mount"))
        except OSError:
            continue
        for name in names:
            path = root / folder / name
            if name not in seen and os.path.realpath(path) != os.devnull:
                yield path
            seen.add(name)

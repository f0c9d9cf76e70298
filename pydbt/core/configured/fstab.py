"""What mounts a device: the lines of ``fstab``, and the units of mounts that systemd has from elsewhere.

Lines are read as systemd reads them, by getmntent(3). A line that says nothing of a mount is left out, and no line changes what
another one says.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pydbt.core.configured.unit_names import named_device, simplified, unit_of_path

FSTAB = "/etc/fstab"
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\", "\\\\": "\\"}
"""Those of getmntent(3); other numbers stay as they are written."""
_ESCAPE = re.compile(r"\\(?:040|011|012|134|\\)")
_BLANKS = re.compile(r"[ \t]+")
AUTOMOUNT = "x-systemd.automount"
"""With it a line is mounted when somebody looks there, with ``noauto`` too (systemd.mount(5))."""
_NEEDS = "x-systemd.requires-mounts-for="
_SECTION = re.compile(r"\[(\w+)\]\s*")


class PlannedMount(NamedTuple):
    """One place at which something is to be mounted.

    ``where`` says for a person where this is written; ``spec`` is what is written there for the device, and ``device`` the
    path below ``/dev`` that it means, or empty. ``unit`` is that of the mount, or empty when its path cannot have one.
    ``at_boot``: it is mounted without a person or program that asks for it. ``needs`` are paths that must be mounted before.
    ``line`` and ``options`` are those of ``fstab``: lines are counted from 1.
    """

    where: str
    spec: str
    device: str
    point: str
    unit: str
    at_boot: bool = True
    needs: tuple[str, ...] = ()
    line: int = 0
    options: tuple[str, ...] = ()


def mounts_in_fstab(text: str, file: str = FSTAB) -> list[PlannedMount]:
    """Every line that mounts something. Comments, swap, and lines without an absolute mount point mount nothing."""
    lines = enumerate(text.split("\n"), start=1)
    return [mount for number, line in lines if (mount := _mount_of_line(number, line, file)) is not None]


def swaps_in_fstab(text: str) -> list[tuple[int, str]]:
    """Number and device of each line by which a boot turns swap on; a file or a name that leads nowhere has no device."""
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        spec, _, kind, options, *_ = [*(decoded(field) for field in _BLANKS.split(line.lstrip(" \t"))), "", "", "", ""]
        if kind == "swap" and not spec.startswith("#") and "noauto" not in options.split(","):
            found.append((number, named_device(spec) or spec))
    return found


def at_goal(mount: PlannedMount, point: str) -> PlannedMount:
    """The same mount at the path that its mount point leads to: systemd follows the links in it."""
    if point == mount.point:
        return mount
    return mount._replace(point=point, unit=unit_of_path(point, "mount"))


def mount_of_unit(file: str, name: str, text: str) -> PlannedMount | None:
    """A unit ``NAME.mount`` in a file; None for one that names nothing to mount."""
    what, point, needs = "", "", []
    for section, key, value in _settings(text):
        match section, key:
            case "Mount", "What":
                what = value
            case "Mount", "Where":
                point = simplified(value)
            case "Unit", "RequiresMountsFor":
                needs += value.split()
    if not what or not point.startswith("/"):
        return None
    spec = what.replace("%%", "%")
    device = "" if "%" in what.replace("%%", "") else named_device(spec)
    return PlannedMount(f"{_shown(point)} in {file}", _shown(spec), device, point, name, needs=_needed(spec, needs))


def _mount_of_line(number: int, line: str, file: str) -> PlannedMount | None:
    line = line.partition("\0")[0].lstrip(" \t")
    if not line or line.startswith("#"):
        return None
    spec, point, kind, options, *_ = [*(decoded(field) for field in _BLANKS.split(line)), "", "", "", ""]
    point = simplified(point)
    if kind == "swap" or not point.startswith("/"):
        return None
    words = options.split(",")
    needs = [word.removeprefix(_NEEDS).strip("\"'") for word in words if word.startswith(_NEEDS)]
    return PlannedMount(
        f"{_shown(point)} in {file}",
        _shown(spec),
        named_device(spec),
        point,
        unit_of_path(point, "mount"),
        at_boot="noauto" not in words,
        needs=_needed(spec, needs),
        line=number,
        options=tuple(words),
    )


def _needed(spec: str, named: list[str]) -> tuple[str, ...]:
    """What lies on another file system: the source of a bind mount, the file behind a loop device."""
    paths = [spec, *named]
    return tuple(simplified(path) for path in paths if path.startswith("/") and not path.startswith("/dev/"))


def decoded(field: str) -> str:
    """A field of ``fstab`` as it is meant: a blank or a backslash in it is written as an escape."""
    return _ESCAPE.sub(lambda match: _ESCAPES[match[0]], field)


def _shown(text: str) -> str:
    """For a person, in one line: other bytes than text, and control characters, as Python writes them."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _settings(text: str) -> list[tuple[str, str, str]]:
    """Sections, keys and values of a unit's file (systemd.syntax(7)), in their order."""
    found, section, begun = [], "", ""
    for line in text.split("\n"):
        bare = line.strip()
        if bare.startswith(("#", ";")):
            continue  # also between the parts of a line that goes on
        if bare.endswith("\\"):
            begun += bare[:-1] + " "
            continue
        bare, begun = begun + bare, ""
        if header := _SECTION.fullmatch(bare):
            section = header[1]
        elif "=" in bare:
            key, _, value = bare.partition("=")
            found.append((section, key.strip(), value.strip()))
    return found

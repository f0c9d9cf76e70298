"""Lines of this machine's own configuration that would take a target: of fstab(5), crypttab(5) and mdadm.conf(5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# The words before '=' in the first column of fstab and the second of crypttab, and udev's folder of links for each.
_FOLDERS = {
    "UUID": "/dev/disk/by-uuid/",
    "LABEL": "/dev/disk/by-label/",
    "PARTUUID": "/dev/disk/by-partuuid/",
    "PARTLABEL": "/dev/disk/by-partlabel/",
    "ID": "/dev/disk/by-id/",
}


@dataclass(frozen=True, slots=True)
class ForeignClaim:
    """A device that a line of a file names: as it is written there, and as a path."""

    file: str
    line: int
    written: str
    path: str


def claims_in(file: str, text: str) -> Iterator[ForeignClaim]:
    """Every device that one of the three files names, by the file's own name."""
    base = file.rpartition("/")[2]
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        for written in _devices(base, words):
            if path := path_of_spec(written):
                yield ForeignClaim(file, number, written, path)


def path_of_spec(written: str) -> str:
    """The path that ``UUID=...`` and the like, or a path, leads to; empty for what names no device."""
    word = written.strip('"').replace('"', "")
    kind, equals, value = word.partition("=")
    if equals and kind.upper() in _FOLDERS and value:
        name = value.lower() if kind.upper() in ("UUID", "PARTUUID") else value
        return _FOLDERS[kind.upper()] + name.replace("/", r"\x2f").replace(" ", r"\x20")
    return word.replace(r"\040", " ") if word.startswith("/dev/") else ""


def _devices(base: str, words: list[str]) -> list[str]:
    match base:
        case "fstab":
            return words[:1]
        case "crypttab":
            return words[1:2]
        case "mdadm.conf":
            if words[0].upper() == "ARRAY":
                return [one for word in words for one in _members(word)]
    return []


def _members(word: str) -> list[str]:
    """``devices=/dev/vdb,/dev/vdc`` of an array."""
    kind, _, value = word.partition("=")
    return value.split(",") if kind.lower() == "devices" else []

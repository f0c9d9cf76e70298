"""Lines of this machine's own configuration that would take a target: of fstab(5), crypttab(5) and mdadm.conf(5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydbt.core.configured.fstab import decoded
from pydbt.core.configured.unit_names import named_device


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
            if path := named_device(decoded(written) if base == "fstab" else written):
                yield ForeignClaim(file, number, written, path)


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

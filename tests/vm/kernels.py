"""Kernels of other distributions for the machines: packages, unpacked into the image's file system in the place of its own.

An archive keeps a line of kernels for years and each of its versions for weeks. So a name here is a line, of which the newest
version that the archive has is taken.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN = "http://deb.debian.org/debian"
UBUNTU = "http://archive.ubuntu.com/ubuntu"
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line of kernels is. ``packages``: a pattern for each, with the release as its group; the first is the image."""

    archive: str
    suite: str
    packages: tuple[str, ...]


LINES = {
    "5.15": Line(UBUNTU, "jammy-updates", (r"linux-image-unsigned-(5\.15\.0-\d+-generic)", r"linux-modules-({})")),
    "6.8": Line(UBUNTU, "noble", (r"linux-image-unsigned-(6\.8\.0-\d+-generic)", r"linux-modules-({})")),
    "6.12": Line(DEBIAN, "trixie", (r"linux-image-(6\.12\.\d+\+deb13-cloud-amd64)-unsigned",)),
    "6.12-rt": Line(DEBIAN, "trixie", (r"linux-image-(6\.12\.\d+\+deb13-rt-amd64)-unsigned",)),
    "7.0": Line(UBUNTU, "noble-updates", (r"linux-image-unsigned-(7\.0\.0-\d+-generic)", r"linux-modules-({})")),
    # Debian's packages from 7.1 on: the image, its modules, and what is built in.
    "7.2": Line(
        DEBIAN,
        "sid",
        (r"linux-binary-unsigned-(7\.\d+\.\d+\+deb14-cloud-amd64)", r"linux-modules-({})", r"linux-base-({})"),
    ),
    "7.3": Line(
        DEBIAN,
        "trixie-backports",
        (r"linux-binary-unsigned-(7\.3\.\d+\+deb13-cloud-amd64)", r"linux-modules-({})", r"linux-base-({})"),
    ),
}


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    file: str
    sha256: str


def packages_of(line: str, folder: Path) -> tuple[str, list[Path]]:
    """The release of the newest kernel of a line, and its packages, fetched into ``folder``. LookupError when there is none."""
    source = LINES[line]
    index = list(_index(source, folder))
    found = [(match[1], entry) for entry in index if (match := re.fullmatch(source.packages[0], entry.name))]
    if not found:
        raise LookupError(
            f"{source.archive} {source.suite} has no kernel {line} any more: change {Path(__file__).name}"
        )
    release, image = max(found, key=lambda pair: [int(number) for number in re.findall(r"\d+", pair[0])])
    wanted = [image]
    for pattern in source.packages[1:]:
        name = pattern.format(re.escape(release))
        wanted.append(next(entry for entry in index if re.fullmatch(name, entry.name)))
    return release, [_fetched(source, entry, folder) for entry in wanted]


def _index(source: Line, folder: Path) -> Iterator[_Package]:
    path = folder / f"{source.suite}.xz"
    if not path.exists():
        _fetch(f"{source.archive}/dists/{source.suite}/main/binary-amd64/Packages.xz", path)
    with lzma.open(path, "rt") as lines:
        entry: dict[str, str] = {}
        for text in lines:
            key, colon, value = text.partition(": ")
            if colon and not text.startswith(" "):
                entry[key] = value.rstrip("\n")
            elif not text.strip():
                if entry.get("Package", "").startswith("linux-"):
                    yield _Package(entry["Package"], entry["Filename"], entry["SHA256"])
                entry = {}


def _fetched(source: Line, package: _Package, folder: Path) -> Path:
    path = folder / Path(package.file).name
    if not path.exists():
        _fetch(f"{source.archive}/{package.file}", path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != package.sha256:
        path.unlink()
        raise LookupError(f"{package.file} is not what {source.suite} says it is: try again")
    return path


def _fetch(address: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, part.open("wb") as output:
        while piece := answer.read(1 << 20):
            output.write(piece)
    part.rename(path)

"""The files of the page, read once at the start: no request names a path of the disk."""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

STATIC_FOLDER = Path(__file__).parent / "static"
START = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".json": "application/json", ".webmanifest": "application/manifest+json",
}  # fmt: skip
_OTHER = "text/plain; charset=utf-8"
_PACKED_ALREADY = (".png", ".woff2")


@dataclass(frozen=True, slots=True)
class Page:
    """One file. ``packed``: by gzip, or empty where that saves nothing; ``tag``: as in ETag."""

    content: bytes
    packed: bytes
    kind: str
    tag: str


def load_pages(folder: Path) -> dict[str, Page]:
    """By their path below the folder. Only regular files: a link may lead anywhere. Empty without the folder."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                found[path.relative_to(folder).as_posix()] = _page(path)
    return found


def _page(path: Path) -> Page:
    content = path.read_bytes()
    packed = b"" if path.suffix in _PACKED_ALREADY else gzip.compress(content, mtime=0)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return Page(content, packed if len(packed) < len(content) else b"", _TYPES.get(path.suffix, _OTHER), tag)

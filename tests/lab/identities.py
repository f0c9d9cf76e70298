"""What the controllers of the bench prove themselves with: identities where a cable is between them, sockets where none is."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
import threading
from pathlib import Path

from pydbt.controller import pki

_numbers = itertools.count()
# Two machines get their identities at the same time, and the first of both makes the authority.
_making = threading.RLock()


@functools.cache
def _folder() -> Path:
    """Of this process, until it ends. A short path: a socket's has 107 bytes at most."""
    place = Path(tempfile.mkdtemp(prefix="pydbt-lab-", dir="/tmp"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def make_identities(folder: Path, *names: str) -> list[Path]:
    """The identity files of machines of one new authority, in a folder of its own."""
    pki.make_authority(folder)
    return [pki.issue(folder, name) for name in names]


@functools.cache
def identity(name: str) -> Path:
    """An identity file of the bench's own authority."""
    with _making:
        folder = _folder() / "pki"
        if not folder.exists():
            pki.make_authority(folder)
        place = folder / f"{name}.identity"
        return place if place.exists() else pki.issue(folder, name)


def socket_address() -> str:
    """An address for a secondary on this machine that needs neither a port nor an identity."""
    return f"unix:{_folder()}/{next(_numbers)}.sock"

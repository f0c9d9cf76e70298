"""Replace a file so that a crash at any instant leaves the old content or the new content, whole."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pydbt.core.errors import StateError
from pydbt.core.units import Buffer
from pydbt.posix.files import sync_folder, write_all

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.new")


def replace_file(path: str | os.PathLike[str], data: Buffer | Iterable[Buffer], *, durable: bool = True) -> None:
    """Replace a file's content by ``data``, with mode 0600. StateError names the file when it cannot be written.

    Several buffers are written one after the other. Each is made only when the one before it is written.

    ``durable`` waits until the content and its name are on disk. Without it, only readers before the next crash of the
    machine are promised a whole file.
    """
    path = Path(path)
    # Random, and not the process id: two threads may replace the same file at once.
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    try:
        _write(temporary, [data] if isinstance(data, Buffer) else data, durable)
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StateError(f"{path} cannot be written: {error.strerror}") from error


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what ``replace_file`` left in a folder when it was killed. Nobody else may write there: its caller has the lock."""
    with contextlib.suppress(OSError):  # they do no harm but for their room
        for path in list(Path(folder).iterdir()):
            if _UNFINISHED.fullmatch(path.name) and not path.is_symlink():
                with contextlib.suppress(OSError):  # nothing of ours: a folder
                    path.unlink(missing_ok=True)


def remove_file(path: str | os.PathLike[str]) -> None:
    """Remove a file, durably. StateError names it when it cannot be removed; an absent file is no error."""
    path = Path(path)
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StateError(f"{path} cannot be removed: {error.strerror}") from error


def _write(path: Path, parts: Iterable[Buffer], durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for part in parts:
            write_all(descriptor, [part])
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

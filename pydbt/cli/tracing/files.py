"""The files that a trace writes: a recording, and fio's log."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pydbt.core.errors import StateError, UsageError
from pydbt.core.seen.io_log import LOG_ENTRY, fio_log, log_entries
from pydbt.core.seen.io_meaning import FileId, file_of
from pydbt.core.seen.io_recording import BLOCK_RECORDS_MAX, MAGIC, FileNames, Part, TraceBegin, TraceEnd, encode_part
from pydbt.core.seen.io_words import PathOf

# Of the log of fio, which is put in order in memory: 24 bytes each.
LOG_ENTRIES_MAX = 4_000_000
_LINES_AT_ONCE = 10_000
# A block is written when it has this many, or when its first one is this old: a process that is killed loses no more.
_BLOCK_RECORDS = 1 << 13
_BLOCK_S = 5.0


def require_new(path: Path) -> None:
    """UsageError when there is one already."""
    if os.path.lexists(path):
        raise _is_there(path)


def _is_there(path: Path) -> UsageError:
    return UsageError(f"{path} exists already: name a new file, or remove it first")


def new_file(path: Path) -> BinaryIO:
    """It is readable for its owner alone: it names processes and files. UsageError when there is one already."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", 0)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be made: {error.strerror}") from None


class Recorder:
    """``bound_bytes``: no more is written, but for the end."""

    def __init__(self, path: Path, begin: TraceBegin, bound_bytes: int, path_of: PathOf) -> None:
        self._path, self._bound, self._path_of = path, bound_bytes, path_of
        self._waiting: list[np.ndarray] = []
        self._count = self._size = 0
        self._due = float("inf")
        self._named: set[FileId] = set()
        self.full = self._has_records = False
        self._file = new_file(path)
        self._write(MAGIC)
        self._write(encode_part(begin))

    def add(self, records: np.ndarray) -> None:
        """Call it now and then without any, too."""
        if self.full:
            return
        if len(records):
            if not self._waiting:
                self._due = time.monotonic() + _BLOCK_S
            self._waiting.append(records)
            self._count += len(records)
        if self._count >= _BLOCK_RECORDS or time.monotonic() >= self._due:
            self._write_out()

    def end(self, lost: int) -> None:
        """Whole, also when it was full before."""
        self._write_out()
        self._write(encode_part(TraceEnd(lost, self.full)))
        self._file.close()

    def abandon(self) -> None:
        """After a failure: what is recorded stays, and can be read; a file without any record is removed."""
        if not self._file.closed:
            self._file.close()
            if not self._has_records:
                self._path.unlink(missing_ok=True)

    def _write_out(self) -> None:
        if not self._waiting:
            return
        records = np.concatenate(self._waiting)
        self._waiting, self._count, self._due = [], 0, float("inf")
        for at in range(0, len(records), BLOCK_RECORDS_MAX):
            part = records[at : at + BLOCK_RECORDS_MAX]
            names = self._new_names(part)
            if (names and not self._fits(names)) or not self._fits(part):
                self.full = True
                return
            self._has_records = True

    def _new_names(self, records: np.ndarray) -> FileNames:
        with_file = records[records["inode"] != 0]
        _, first = np.unique(with_file[["inode", "generation", "file_system"]], return_index=True)
        files = [file for at in first if (file := file_of(with_file[at])) is not None and file not in self._named]
        self._named.update(files)
        return {file: path for file in files if (path := self._path_of(file)) is not None}

    def _fits(self, part: Part) -> bool:
        block = encode_part(part)
        if self._size + len(block) > self._bound:
            return False
        self._write(block)
        return True

    def _write(self, data: bytes) -> None:
        self._size += len(data)
        _write_all(self._file, data, self._path)


class FioLog:
    """Kept in memory until the end, because fio wants the order of submission. ``left_out``: I/Os beyond what is kept."""

    def __init__(self, path: Path, device: str) -> None:
        self._path, self._device = path, device
        self._entries: list[np.ndarray] = []
        self._count = self.left_out = 0
        self._file = new_file(path)

    def add(self, records: np.ndarray) -> None:
        entries = log_entries(records)[: LOG_ENTRIES_MAX - self._count]
        self.left_out += len(records) - len(entries)
        self._count += len(entries)
        self._entries.append(entries)

    def abandon(self) -> None:
        """After a failure: a log that is not whole is removed."""
        if not self._file.closed:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def end(self, lost: int) -> None:
        entries = np.concatenate([np.zeros(0, LOG_ENTRY), *self._entries])
        lines: list[str] = []
        for line in fio_log(entries, self._device):
            lines.append(line)
            if len(lines) >= _LINES_AT_ONCE:
                _write_all(self._file, "".join(lines).encode(), self._path)
                lines = []
        _write_all(self._file, "".join(lines).encode(), self._path)
        self._file.close()


def _write_all(file: BinaryIO, data: bytes, path: Path) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}") from None

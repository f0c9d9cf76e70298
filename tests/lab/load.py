"""Loads that do what programs do to a file system, in threads, until told to stop."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab.patience import Interrupted

_TOLERATED = (errno.ENOSPC, errno.ENOENT, errno.EEXIST, errno.EOPNOTSUPP, errno.EINVAL)
_FITRIM = 0xC0185879  # include/uapi/linux/fs.h
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16


class Load:
    """Threads that repeat a step until stopped. What a thread raises comes out of ``stop``."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        self.steps = 0

    def add(self, step: Callable[[], None], pause_s: float = 0.0) -> None:
        def repeat() -> None:
            try:
                while not self._stopping.is_set():
                    step()
                    self.steps += 1
                    if pause_s:
                        self._stopping.wait(pause_s)
            except Interrupted:
                pass  # the main thread knows
            except Exception as error:
                self._errors.append(error)

        self._threads.append(threading.Thread(target=repeat, daemon=True))
        self._threads[-1].start()

    @property
    def failed(self) -> bool:
        """Something was raised; ``stop`` tells what."""
        return bool(self._errors)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a load does not end"
        if self._errors:
            raise self._errors[0]


@contextlib.contextmanager
def load() -> Iterator[Load]:
    """Stopped whatever happens; an error of the load is told beside another one, and does not hide it."""
    running = Load()
    try:
        yield running
    except BaseException as error:
        try:
            running.stop()
        except Exception as other:
            error.add_note(f"the load failed as well: {other!r}")
        raise
    running.stop()


class FileStress:
    """One worker's mixture of file operations in a directory of its own, from a seed (as fsstress does it)."""

    def __init__(self, folder: Path, seed: int, largest_bytes: int = 3 << 20) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._largest = largest_bytes
        self._operations = (
            self._create,
            self._create,
            self._overwrite,
            self._overwrite,
            self._truncate,
            self._rename,
            self._mapped,
            self._direct,
            self._direct,
            self._punch,
            self._zero,
            self._sync,
            self._remove,
            self._trim,
        )
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self) -> None:
        try:
            self._random.choice(self._operations)()
        except OSError as error:
            if error.errno not in _TOLERATED:
                raise
            if error.errno == errno.ENOSPC:
                for path in self._folder.iterdir():
                    path.unlink()

    def _path(self) -> Path:
        return self._folder / f"f{self._random.randrange(24)}"

    def _size(self) -> int:
        return int(2 ** self._random.uniform(0, self._largest.bit_length() - 1))

    @contextlib.contextmanager
    def _open(self, flags: int) -> Iterator[tuple[int, int]]:
        descriptor = os.open(self._path(), flags | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _create(self) -> None:
        with self._open(os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as (descriptor, _):
            os.write(descriptor, self._random.randbytes(self._size()))

    def _overwrite(self) -> None:
        with self._open(os.O_WRONLY) as (descriptor, size):
            os.pwrite(descriptor, self._random.randbytes(min(self._size(), 200_000)), self._random.randrange(size + 1))

    def _truncate(self) -> None:
        with self._open(os.O_WRONLY) as (descriptor, size):
            os.ftruncate(descriptor, self._random.randrange(2 * size + 1) % self._largest)

    def _rename(self) -> None:
        os.rename(self._path(), self._path())

    def _mapped(self) -> None:
        with self._open(os.O_RDWR) as (descriptor, size):
            if not size:
                return
            with mmap.mmap(descriptor, size) as memory:
                for _ in range(self._random.randrange(1, 40)):
                    at = self._random.randrange(size)
                    part = self._random.randbytes(self._random.randrange(1, 3000))[: size - at]
                    memory[at : at + len(part)] = part
                if self._random.random() < 0.5:
                    memory.flush()

    def _direct(self) -> None:
        """O_DIRECT from anonymous memory, at any 4 KiB."""
        length = 4096 * self._random.choice((1, 1, 2, 16, 128, 512))
        with mmap.mmap(-1, length) as memory, self._open(os.O_WRONLY | os.O_CREAT | os.O_DIRECT) as (descriptor, size):
            memory.write(self._random.randbytes(length))
            os.pwrite(descriptor, memory, self._random.randrange(size // 4096 + 1) * 4096)

    def _fallocate(self, mode: int) -> None:
        with self._open(os.O_WRONLY) as (descriptor, size):
            if size > 1:
                at = self._random.randrange(size)
                _fallocate(descriptor, mode, at, self._random.randrange(1, size - at + 1))

    def _punch(self) -> None:
        self._fallocate(_PUNCH_HOLE | _KEEP_SIZE)

    def _zero(self) -> None:
        self._fallocate(_ZERO_RANGE | self._random.choice((0, _KEEP_SIZE)))

    def _sync(self) -> None:
        with self._open(os.O_WRONLY) as (descriptor, _):
            os.fsync(descriptor)

    def _remove(self) -> None:
        os.unlink(self._path())

    def _trim(self) -> None:
        if self._random.random() < 0.03:
            trim(self._folder)


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    if done:
        raise OSError(ctypes.get_errno(), "fallocate")


def trim(folder: Path) -> int:
    """FITRIM of the file system a folder is on; the bytes trimmed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        answer = fcntl.ioctl(descriptor, _FITRIM, struct.pack("=QQQ", 0, (1 << 64) - 1, 0))
        return int(struct.unpack("=QQQ", answer)[1])
    finally:
        os.close(descriptor)


class Sequential:
    """Multi-MiB writes, one after the other: large folios on XFS, with a sync now and then."""

    def __init__(self, path: Path, seed: int, size_bytes: int = 16 << 20) -> None:
        self._path, self._random, self._size = path, random.Random(seed), size_bytes

    def __call__(self) -> None:
        try:
            with self._path.open("wb", buffering=0) as file:
                piece = self._random.randbytes(1 << 20) * 4
                for _ in range(self._size // len(piece)):
                    file.write(piece)
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._path.unlink()


class Database:
    """Numbered rows, a few in each transaction, one transaction after the other."""

    _KEPT_ROWS = 8000

    def __init__(self, path: Path, seed: int, journal_mode: str = "wal") -> None:
        self.path = path
        self._random = random.Random(seed)
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=60, isolation_level=None)
        self._connection.execute(f"pragma journal_mode={journal_mode}")
        # Not "full": with journal_mode=delete a commit is the removal of a file, which only "extra" makes durable.
        self._connection.execute("pragma synchronous=extra")
        self._connection.execute("create table if not exists t(id integer primary key, filling blob, length integer)")
        self._connection.execute("create index if not exists i on t(length)")
        self.committed = self._connection.execute("select coalesce(max(id),0) from t").fetchone()[0]

    def __call__(self) -> None:
        first = self.committed + 1
        rows = [(first + i, self._random.randbytes(n := self._random.randrange(20, 1500)), n) for i in range(5)]
        self._connection.execute("begin immediate")
        self._connection.executemany("insert into t values(?,?,?)", rows)
        # A long run fits into a small volume.
        self._connection.execute("delete from t where id < ?", (first - self._KEPT_ROWS,))
        self._connection.execute("commit")
        self.committed = first + len(rows) - 1

    def close(self) -> None:
        self._connection.close()


def check_database(path: Path, least_rows: int) -> int:
    """The last row of a database, which is intact and reaches the row named with none missing between its first and last."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("pragma integrity_check").fetchone()[0] == "ok"
        count, low, last = connection.execute(
            "select count(*), coalesce(min(id),1), coalesce(max(id),0) from t"
        ).fetchone()
        assert count == last - low + 1, f"{count} rows from {low} to {last}"
        assert connection.execute("select count(*) from t where length(filling)<>length").fetchone()[0] == 0
        assert last >= least_rows, f"the replica has {last} rows; a wait had returned for {least_rows}"
        return int(last)
    finally:
        connection.close()


def write_files(folder: Path, chance: random.Random) -> None:
    """Twenty files of up to 400 kB, on the disk."""
    for number in range(20):
        (folder / f"file{number}").write_bytes(chance.randbytes(chance.randrange(1, 400_000)))
    os.sync()

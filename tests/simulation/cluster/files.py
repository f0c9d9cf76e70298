"""A file system of one machine: names and contents, each durable only after a sync of its own; and `os` over it.

Contents are `Lossy`; of the changes of names that no sync of the folder followed, a crash keeps the first few.
"""

from __future__ import annotations

import errno
import os as real
import random
from collections.abc import Iterator
from types import SimpleNamespace

from tests.simulation.cluster.disk import Lossy, Machine

FREE_BYTES = 1 << 30


class Files:
    """Names are whole paths. Folders are not kept: a name with a prefix is in it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.names: dict[str, Lossy] = {}
        self.durable_names: dict[str, Lossy] = {}
        self.changes: list[dict[str, Lossy | None]] = []

    def change(self, changes: dict[str, Lossy | None]) -> None:
        """Give names a content, or (None) take them away; all of it or, after a crash, nothing."""
        _carry_out(changes, self.names)
        self.changes.append(changes)

    def sync_names(self) -> None:
        for changes in self.changes:
            _carry_out(changes, self.durable_names)
        self.changes = []

    def crash(self, rng: random.Random) -> None:
        self.changes = self.changes[: rng.randint(0, len(self.changes))]
        self.sync_names()
        self.names = dict(self.durable_names)
        for content in self.names.values():
            content.crash(rng)

    def copy(self, machine: Machine) -> Files:
        other = Files(machine)
        copies: dict[int, Lossy] = {}

        def copied(table: dict[str, Lossy | None]) -> dict[str, Lossy | None]:
            made = {}
            for name, content in table.items():
                if content is not None and id(content) not in copies:
                    copies[id(content)] = content.copy()
                made[name] = None if content is None else copies[id(content)]
            return made

        other.names, other.durable_names = copied(self.names), copied(self.durable_names)
        other.changes = [copied(changes) for changes in self.changes]
        return other


def _carry_out(changes: dict[str, Lossy | None], names: dict[str, Lossy]) -> None:
    for name, content in changes.items():
        if content is None:
            names.pop(name, None)
        else:
            names[name] = content


class SimPath:
    """As much of a pathlib.Path as the stores use."""

    __slots__ = ("files", "text")

    def __new__(cls, path: SimPath | str, files: Files | None = None) -> SimPath:
        if isinstance(path, SimPath):
            return path
        self = object.__new__(cls)
        self.text, self.files = path, files
        return self

    def __truediv__(self, name: object) -> SimPath:
        return SimPath(f"{self.text}/{name}", self.files)

    def __str__(self) -> str:
        return self.text

    __fspath__ = __repr__ = __str__

    @property
    def name(self) -> str:
        return self.text.rpartition("/")[2]

    @property
    def parent(self) -> SimPath:
        return SimPath(self.text.rpartition("/")[0], self.files)

    def with_name(self, name: str) -> SimPath:
        return self.parent / name

    def exists(self) -> bool:
        return self.text in self.files.names or self.is_dir()

    def is_dir(self) -> bool:
        return any(name.startswith(f"{self.text}/") for name in self.files.names)

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator[SimPath]:
        names = [name for name in self.files.names if name.startswith(f"{self.text}/")]
        return iter([SimPath(name, self.files) for name in sorted(names)])

    def glob(self, pattern: str) -> Iterator[SimPath]:
        return (path for path in self.iterdir() if path.text.endswith(pattern.lstrip("*")))

    def mkdir(self, **_: object) -> None:
        pass

    def unlink(self, missing_ok: bool = False) -> None:
        self.files.machine.touch()
        if self.text in self.files.names:
            self.files.change({self.text: None})
        elif not missing_ok:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.text)

    def read_bytes(self) -> bytes:
        if self.text not in self.files.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.text)
        return bytes(self.files.names[self.text].current)


def read_simulated(path: SimPath, bytes_max: int = 0) -> bytes:
    """In the place of ``ownership.read_own``: nobody else has files here."""
    return path.read_bytes()


class SimOs:
    """As much of `os` as the stores use, on SimPaths and descriptors of its own."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._open: dict[int, tuple[Files, Lossy | None, list[int]]] = {}
        self._next = 1000
        self._numbers = 0

    def __getattr__(self, name: str) -> object:
        assert name.startswith(("O_", "POSIX_FADV_")) or name == "PathLike", f"os.{name} is not simulated"
        return getattr(real, name)

    def urandom(self, size: int) -> bytes:
        """Different every time, and the same every run."""
        self._numbers += 1
        return self._numbers.to_bytes(size, "big")

    def open(self, path: SimPath, flags: int, mode: int = 0o600) -> int:
        files = path.files
        if flags & real.O_DIRECTORY:
            content = None
        else:
            content = files.names.get(path.text)
            if content is None:
                if not flags & real.O_CREAT:
                    raise FileNotFoundError(errno.ENOENT, "no such file", path.text)
                files.machine.touch()
                content = Lossy()
                files.change({path.text: content})
        self._next += 1
        self._open[self._next] = (files, content, [0])
        return self._next

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)

    def _writable(self, descriptor: int) -> tuple[Files, Lossy]:
        files, content, _ = self._open[descriptor]
        files.machine.touch()
        return files, content

    def write(self, descriptor: int, data: memoryview) -> int:
        files, content = self._writable(descriptor)
        if files.machine.no_room:
            raise OSError(errno.ENOSPC, "no space left on device")
        place = self._open[descriptor][2]
        content.write(place[0], data)
        place[0] += len(data)
        return len(data)

    def writev(self, descriptor: int, views: list[memoryview]) -> int:
        return self.write(descriptor, b"".join(views))

    def pwrite(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        files, content = self._writable(descriptor)
        if files.machine.no_room and offset + len(data) > len(content.current):
            raise OSError(errno.ENOSPC, "no space left on device")
        content.write(offset, data)
        return len(data)

    def pwritev(self, descriptor: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        return self.pwrite(descriptor, b"".join(views), offset)

    def preadv(self, descriptor: int, views: list[memoryview], offset: int) -> int:
        _, content, _ = self._open[descriptor]
        total = 0
        for view in views:
            data = content.read(offset + total, len(view))
            view[: len(data)] = data
            total += len(data)
        return total

    def fdatasync(self, descriptor: int) -> None:
        files, content = self._writable(descriptor)
        if files.machine.trouble:
            if content is not None:
                content.fail_sync(self.rng)
            raise OSError(errno.EIO, "input/output error")
        if content is None:
            files.sync_names()
        else:
            content.sync()
        files.machine.touch()

    fsync = fdatasync

    def posix_fadvise(self, descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, real.POSIX_FADV_DONTNEED), "no other advice is simulated"
        self._open[descriptor][1].drop_cache()

    def fstat(self, descriptor: int) -> SimpleNamespace:
        content = self._open[descriptor][1]
        return SimpleNamespace(st_size=len(content.current), st_dev=1, st_ino=id(content))

    def posix_fallocate(self, descriptor: int, offset: int, length: int) -> None:
        files, content = self._writable(descriptor)
        if files.machine.no_room:
            raise OSError(errno.ENOSPC, "no space left on device")
        missing = offset + length - len(content.current)
        if missing > 0:
            content.current.extend(bytes(missing))

    def rename(self, old: SimPath, new: SimPath) -> None:
        files = old.files
        files.machine.touch()
        content = files.names[old.text]
        files.change({old.text: None, new.text: content})

    replace = rename

    def unlink(self, path: SimPath) -> None:
        path.unlink()

    def statvfs(self, path: SimPath) -> SimpleNamespace:
        free = 0 if path.files.machine.no_room else FREE_BYTES
        return SimpleNamespace(f_blocks=FREE_BYTES, f_bfree=free, f_bavail=free, f_frsize=1)

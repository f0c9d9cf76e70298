"""Work on a mounted volume as programs do it: archives unpacked and removed, a database, random direct writes, trim."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import random
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pydbt.core.units import KIB, MIB
from tests.lab.load import trim
from tests.lab.patience import Patience
from tests.lab.raw import DirectWriter

ACCOUNTS = 2000
# Of one tree of files, and of the file that is written at random. Bursts of it fit into the kernel's room for data
# not sent yet: more would be "log full", and a resynchronization, before the demo wants to show one.
_SHARE_BYTES = 24 * MIB
_DIRECT_SIZES = tuple(size * KIB for size in (4, 4, 4, 4, 8, 16, 64))


class Work:
    """What is done to one volume, from a seed. The counts are of what was done, as the volume's user sees it."""

    def __init__(self, volume: Path, archive: Path, size_bytes: int, patience: Patience, seed: int = 1) -> None:
        """``archive`` is made, outside of the volume. A volume of ``size_bytes`` is filled to a third at most."""
        self._volume, self._archive, self._patience = volume, archive, patience
        self._share = min(size_bytes // 16, _SHARE_BYTES)
        self._random = random.Random(seed)
        self._trees: list[Path] = []
        self._tree_number = 0
        self.files = self.deleted_files = self.transactions = self.direct_writes = self.trims = 0
        self._archived_files = _make_archive(archive, self._share, random.Random(seed), patience)

    def unpack(self) -> None:
        """One more tree of files."""
        tree = self._volume / f"tree-{self._tree_number}"
        self._tree_number += 1
        tree.mkdir()
        self._trees.append(tree)
        self._patience.run("tar", "-xf", self._archive, "-C", tree)
        self.files += self._archived_files

    def delete(self) -> None:
        """The oldest tree."""
        shutil.rmtree(self._trees.pop(0))
        self.deleted_files += self._archived_files

    def replace_tree(self) -> None:
        """A new tree for the oldest; synced, so that it goes to the disk now and not when memory runs out."""
        self.unpack()
        self.delete()
        self.sync()

    def trim(self) -> None:
        """Tell the disk which blocks are free, if what lies below the loop device can take that."""
        try:
            trim(self._volume)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        else:
            self.trims += 1

    def sync(self) -> None:
        """Everything written to the volume is on its disk when this returns."""
        self._patience.run("sync", "-f", self._volume)

    @contextlib.contextmanager
    def database(self) -> Iterator[Callable[[], None]]:
        """A step that moves money between accounts, one durable transaction each; no money appears or vanishes."""
        connection = sqlite3.connect(
            self._volume / "accounts.db", check_same_thread=False, timeout=60, isolation_level=None
        )
        try:
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.execute("create table if not exists account(id integer primary key, balance integer, note blob)")
            if not connection.execute("select count(*) from account").fetchone()[0]:
                rows = ((number, 1000, self._random.randbytes(200)) for number in range(ACCOUNTS))
                connection.execute("begin immediate")
                connection.executemany("insert into account values(?,?,?)", rows)
                connection.execute("commit")
            yield lambda: self._transfer(connection)
        finally:
            connection.close()

    def _transfer(self, connection: sqlite3.Connection) -> None:
        giver, taker = self._random.sample(range(ACCOUNTS), 2)
        connection.execute("begin immediate")
        connection.execute("update account set balance=balance-1, note=? where id=?", (os.urandom(200), giver))
        connection.execute("update account set balance=balance+1, note=? where id=?", (os.urandom(200), taker))
        connection.execute("commit")
        self.transactions += 1

    @contextlib.contextmanager
    def direct_writer(self) -> Iterator[Callable[[], None]]:
        """A step that writes past the page cache, at random places of one file."""
        path = self._volume / "random.dat"
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(0, self._share, MIB):
                    self._patience.check()
                    file.write(os.urandom(MIB))
        chance = random.Random(self._random.random())
        with DirectWriter(path, max(_DIRECT_SIZES)) as writer:

            def step() -> None:
                size = chance.choice(_DIRECT_SIZES)
                place = chance.randrange((self._share - size) // 4096 + 1) * 4096
                writer.put(place, chance.randbytes(size))
                self.direct_writes += 1

            yield step


def _make_archive(path: Path, size_bytes: int, chance: random.Random, patience: Patience) -> int:
    """A tar archive of small files whose bytes do not repeat; how many."""
    count, left = 0, size_bytes
    with tarfile.open(path, "w") as archive:
        while left > 0:
            patience.check()
            size = min(int(2 ** chance.uniform(8, 17)), left)
            entry = tarfile.TarInfo(f"folder-{count % 40}/file-{count}")
            entry.size = size
            archive.addfile(entry, io.BytesIO(chance.randbytes(size)))
            count, left = count + 1, left - size
    return count

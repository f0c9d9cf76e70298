"""A load inside a machine: files, a database and large writes on a mounted folder, until SIGTERM.

usage: ``python -m tests.vm.guest_load FOLDER SEED PROGRESS``. PROGRESS is a file that is replaced five times per
second: JSON with ``steps`` done and ``rows``, the last row that the database called committed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

from tests.lab.load import Database, FileStress, Sequential, load

# As much as an emulated machine replicates with ease, also when others have its processor: half a MiB per second.
KIB = 1 << 10


def main(folder: Path, seed: int, progress: Path) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    chance = random.Random(seed)
    database = Database(folder / "rows.db", chance.randrange(1 << 30), chance.choice(["wal", "delete"]))
    with load() as running:
        running.add(database, 0.5)
        running.add(FileStress(folder / "stress", chance.randrange(1 << 30), 256 * KIB), 0.5)
        running.add(Sequential(folder / "large", chance.randrange(1 << 30), 4096 * KIB), 15.0)
        while not stop.wait(0.2):
            write(progress, running.steps, database)
    database.close()
    write(progress, running.steps, database)


def write(progress: Path, steps: int, database: Database) -> None:
    part = progress.with_suffix(".part")
    part.write_text(json.dumps({"steps": steps, "rows": database.committed}))
    os.replace(part, progress)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

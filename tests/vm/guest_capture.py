"""In a machine: capture a device while a file system on it is made and worked on, and write down all that was captured.

usage: ``python -m tests.vm.guest_capture DEVICE MKFS FOLDER SEED STEPS OUT``. OUT gets JSON: ``writes``, a list of
[sector, sectors, digest of the data or null for a discard], and the counts of the programs and of the kernel.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import xxhash

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from tests.lab.disks import Device
from tests.lab.load import FileStress, load
from tests.lab.tracking import PAYLOAD, tracked, wait_quiet

MIB = 1 << 20


class Unaligned:
    """Direct writes of any number of 512-byte sectors at any sector of a file, some of them O_DSYNC (so: FUA)."""

    def __init__(self, path: Path, seed: int, size_bytes: int = 4 * MIB) -> None:
        self._random, self._size, self._memory = random.Random(seed), size_bytes, mmap.mmap(-1, 64 << 10)
        path.write_bytes(bytes(size_bytes))
        self._descriptors = [os.open(path, os.O_WRONLY | os.O_DIRECT | flag) for flag in (0, os.O_DSYNC)]

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def __call__(self) -> None:
        sectors = self._random.randrange(1, 128)
        at = self._random.randrange(self._size // 512 - sectors)
        self._memory[: sectors * 512] = self._random.randbytes(sectors * 512)
        os.pwrite(self._random.choice(self._descriptors), memoryview(self._memory)[: sectors * 512], at * 512)


class Careful:
    """A database that syncs as much as it can: a rollback journal, and ``synchronous=extra``."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode=delete", "synchronous=extra"):
            self._connection.execute(f"pragma {pragma}")
        self._connection.execute("create table t(id integer primary key, filling blob)")

    def close(self) -> None:
        self._connection.close()

    def __call__(self) -> None:
        self._connection.execute("insert into t(filling) values (randomblob(700))")


def work(folder: Path, seed: int, steps: int) -> None:
    """Everything at once, until this many steps are done; then nothing holds the file system any more."""
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack, load() as running:
        for number in range(2):
            running.add(FileStress(folder / f"stress{number}", chance.randrange(1 << 30), 1 * MIB), 0.05)
        for step in (Unaligned(folder / "unaligned", chance.randrange(1 << 30)), Careful(folder / "careful.db")):
            stack.callback(step.close)
            running.add(step, 0.05)
        while running.steps < steps and not running.failed:
            time.sleep(0.2)
        running.stop()


def main(device: Device, mkfs: str, folder: Path, seed: int, steps: int, out: Path) -> None:
    writes: list[tuple[int, int, str | None]] = []
    with tracked(device, PAYLOAD, bio_based=True) as capture:
        before = device.statistics()

        def catch_up() -> int:
            records = capture.drain()
            pieces = iter(capture.payload(records))
            for record in records[records["kind"] == RecordKind.SUBMIT]:
                digest = None
                if record["pieces"]:
                    state = xxhash.xxh3_128()
                    for _ in range(record["pieces"]):
                        state.update(next(pieces))
                    digest = state.hexdigest()
                elif not record["flags"] & RecordFlag.NO_DATA_OP:
                    continue  # a flush alone
                writes.append((int(record["sector"]), int(record["sectors"]), digest))
            capture.release(records)
            return len(records)

        done = threading.Event()

        def follow() -> None:
            while not done.wait(0.02):
                catch_up()

        follower = threading.Thread(target=follow)
        follower.start()
        try:
            subprocess.run([*mkfs.split(), device.path], check=True)
            subprocess.run(["mount", "-o", "discard", device.path, folder], check=True)
            work(folder, seed, steps)
            subprocess.run(["umount", folder], check=True)
            device.flush()
            wait_quiet(capture)
        finally:
            done.set()
            follower.join()
        while catch_up():
            pass
        counters = capture.counters()
        after = device.statistics()
    answer = {
        "writes": writes,
        "kernel_sectors": sum(after[key] - before[key] for key in ("write_sectors", "discard_sectors")),
        "captured_sectors": counters.submitted_sectors,
        "lost": counters.lost + counters.no_payload + counters.unknown_ops + counters.passthrough,
    }
    out.write_text(json.dumps(answer))


if __name__ == "__main__":
    path, mkfs, folder, seed, steps, out = sys.argv[1:]
    main(Device(Path(path)), mkfs, Path(folder), int(seed), int(steps), Path(out))

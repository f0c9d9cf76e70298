"""In a machine: load all observing programs on its kernel; they tell who wrote what to a file system, and how long it took.

usage: ``python -m tests.vm.guest_observe DEVICE MKFS FOLDER OUT``. OUT gets JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydbt.controller.primary.io_watch import io_device
from pydbt.core.seen.io_meaning import IoFlag
from pydbt.core.seen.io_names import OPERATIONS, PARTS
from pydbt.core.seen.writers.answer import views
from pydbt.core.seen.writers.reading import Names
from pydbt.core.seen.writers.sums import WriterSums
from pydbt.device.sysfs import BlockDevice
from pydbt.device.written_places import written_places
from pydbt.kernel.tracing.block_io import BlockIo, EventOptions
from pydbt.kernel.tracing.writers import MOUNTED, WriterPrograms
from tests.lab.disks import Device
from tests.lab.tracking import spec_of, tracked, wait_quiet

MIB = 1 << 20
DIRECT, BUFFERED = 20 * MIB, 10 * MIB


def dd(file: Path, size_bytes: int, *options: str) -> int:
    """Its process."""
    words = ["dd", "if=/dev/urandom", f"of={file}", "bs=64k", f"count={size_bytes >> 16}", *options]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        pass
    assert process.returncode == 0, words
    return process.pid


def observed(device: Device, folder: Path) -> dict[str, Any]:
    """``device`` is mounted at ``folder``, and nothing is on its way."""
    found = BlockDevice.identify(device.path)
    with (
        tracked(device) as capture,
        WriterPrograms.attach(spec_of(device), capture.pin_dir) as writers,
        BlockIo.attach(io_device(found)) as figures,
        BlockIo.attach(io_device(found), EventOptions()) as events,
    ):
        places = written_places(found)
        writers.set_places({number: MOUNTED if mounted else 0 for number, mounted in places.mounted.items()})
        assert events.events is not None
        direct = dd(folder / "direct", DIRECT, "oflag=direct")
        records = events.events.drain()
        buffered = dd(folder / "buffered", BUFFERED, "conv=fsync")
        os.sync()
        wait_quiet(capture)
        sums = WriterSums()
        for _ in range(3):
            sums.take(writers.read(), 1.0, out_of_normal=False)
        # A file system writes its log in the name of whoever waits for that; it has no pages of a program.
        ours = records[(records["process"] == direct) & (records["flags"] & IoFlag.DIRECT != 0)]
        counts = figures.figures()[OPERATIONS.index("write")]
        return {
            "problem": writers.problem,
            "direct": direct,
            "buffered": buffered,
            "answer": views(sums, Names()),
            "writes": int(counts["count"]),
            "write_bytes": int(counts["bytes"]),
            "timed": int(counts["latency"][PARTS.index("total")].sum()),
            "records_of_direct": len(ours),
            "bytes_of_direct": int(ours["bytes"].sum()),
        }


def main(device: Device, mkfs: str, folder: Path, out: Path) -> None:
    subprocess.run([*mkfs.split(), device.path], check=True)
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", device.path, folder], check=True)
    try:
        os.sync()
        out.write_text(json.dumps(observed(device, folder)))
    finally:
        subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    path, mkfs, folder, out = sys.argv[1:]
    main(Device(Path(path)), mkfs, Path(folder), Path(out))

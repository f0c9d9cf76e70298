"""fio, and a process that drains captured writes as the controller does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pydbt.core.errors import MachineError
from pydbt.kernel.capture import Capture
from tests.lab.disks import Device
from tests.lab.patience import run
from tests.lab.programs import end_with_parent


@dataclass(frozen=True, slots=True)
class FioReport:
    """What fio did."""

    requests: int
    requests_per_s: float
    bytes_per_s: float


def random_writes(
    device: Device, *, seconds: float | None = None, count: int | None = None, depth: int = 32
) -> FioReport:
    """4 KiB random writes, direct, by libaio: for this long, or this many."""
    extent = ["--time_based", f"--runtime={seconds:g}"] if seconds else [f"--number_ios={count}"]
    output = run(
        "fio", "--name=bench", f"--filename={device}", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio",
        f"--iodepth={depth}", "--norandommap", "--randrepeat=0", "--output-format=json", *extent,
    )  # fmt: skip
    write = json.loads(output[output.index("{") :])["jobs"][0]["write"]
    return FioReport(write["total_ios"], write["iops"], write["bw_bytes"])


@contextlib.contextmanager
def drained(capture: Capture) -> Iterator[None]:
    """Another process that takes records and payload off the rings meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.figures.drainer", str(capture.pin_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
        process_group=0,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline().strip() != "ready":
            raise MachineError("the draining process did not start")
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

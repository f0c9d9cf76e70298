"""fio, and a process that drains captured writes as the controller does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.errors import MachineError
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec
from tests.lab.figures.disks import end_with_parent, run

PIN_ROOT = Path("/sys/fs/bpf/pydbt")


@dataclass(frozen=True, slots=True)
class Writes:
    """What fio did."""

    requests: int
    requests_per_s: float
    bytes_per_s: float


def random_writes(device: Path, *, seconds: float | None = None, count: int | None = None, depth: int = 32) -> Writes:
    """4 KiB random writes, direct, by libaio: for so long, or so many."""
    extent = ["--time_based", f"--runtime={seconds:g}"] if seconds else [f"--number_ios={count}"]
    output = run(
        "fio", "--name=bench", f"--filename={device}", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio",
        f"--iodepth={depth}", "--norandommap", "--randrepeat=0", "--output-format=json", *extent,
    )  # fmt: skip
    write = json.loads(output[output.index("{") :])["jobs"][0]["write"]
    return Writes(write["total_ios"], write["iops"], write["bw_bytes"])


@contextlib.contextmanager
def captured(volume: VolumeSpec, options: CaptureOptions, name: str) -> Iterator[Capture]:
    """Programs attached for this long."""
    pins = PIN_ROOT / f"bench-{name}"
    Capture.remove_pins(pins)
    capture = Capture.attach(volume, options, pins)
    try:
        yield capture
    finally:
        capture.detach()


@contextlib.contextmanager
def drained(capture: Capture) -> Iterator[None]:
    """Another process that takes records and payload off the rings meanwhile."""
    command = [sys.executable, "-m", "tests.lab.figures.drainer", str(capture.pin_dir)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=end_with_parent, process_group=0
    )
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

"""How fast records come off the ring, against bcc's ring buffer with a Python callback on the same records."""

from __future__ import annotations

import mmap
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pydbt.controller.primary.volume import RECORDS_A_LOOK
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import MachineError
from pydbt.core.tracking.capture_record import RecordKind
from pydbt.core.tracking.in_flight import InFlight
from pydbt.core.tracking.tracker import Tracker
from pydbt.core.units import MIB, Geometry
from pydbt.kernel import syscalls
from pydbt.kernel.capture import Capture
from pydbt.kernel.headers import find_headers
from pydbt.kernel.record import RECORD_BYTES, RING_RECORD
from tests.lab.disks import Device, image, loop_over
from tests.lab.figures.fio import random_writes
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.report import Figure, figure, ratios
from tests.lab.tracking import ADDRESSES, tracked

NAME = "ring-drain"
_VOLUME_BYTES = 512 * MIB
_WRITES = 65536
_RECORDS = 2 * _WRITES  # a submission and, mostly, a completion each
_EMITTED_A_RUN = 1024
_LOG_SLOTS = 1 << 18

# What a tracer written with bcc does: a record a time into the ring. The records come from a table instead of a
# tracepoint, so that both sides read the same ones and neither pays for making them.
_PROGRAM = """
struct record { u64 words[WORDS]; };
BPF_F_TABLE("array", u32, struct record, records, RECORDS, BPF_F_MMAPABLE);
BPF_RINGBUF_OUTPUT(ring, RING_PAGES);

int emit(struct bpf_raw_tracepoint_args *ctx)
{
    u32 first = ctx->args[0];
#pragma clang loop unroll(disable)
    for (int i = 0; i < RUN; i++) {
        u32 key = first + i;
        struct record *record = records.lookup(&key);
        if (!record)
            return 0;
        ring.ringbuf_output(record, sizeof(*record), 0);
    }
    return 0;
}
"""


class _Tracer:
    """bcc's way: ``poll`` calls a Python function for every record."""

    def __init__(self) -> None:
        headers = find_headers()
        if headers.source:
            os.environ["BCC_KERNEL_SOURCE"] = headers.source
        from bcc import BPF

        macros = {
            "WORDS": RECORD_BYTES // 8,
            "RECORDS": _RECORDS,
            "RUN": _EMITTED_A_RUN,
            "RING_PAGES": 1 << (2 * _RECORDS * RECORD_BYTES // mmap.PAGESIZE - 1).bit_length(),
        }
        flags = [f"-D{name}={value}" for name, value in macros.items()]
        self._program: Any = BPF(text=_PROGRAM.encode(), cflags=[*flags, *headers.flags, "-Wno-macro-redefined"])
        self._emit = self._program.load_func(b"emit", BPF.RAW_TRACEPOINT)
        self._memory = mmap.mmap(self._program[b"records"].map_fd, _RECORDS * RECORD_BYTES)
        self._count = 0
        self._program[b"ring"].open_ring_buffer(self._callback)

    def _callback(self, _context: Any, _data: Any, _size: int) -> None:
        """The least a callback can do; one that looks at its record takes longer."""
        self._count += 1

    def seconds(self, records: np.ndarray) -> float:
        """Put these records into the ring, and time how long it takes to receive them all."""
        # The block layer merges a few writes on their way, which then complete together: make up for those.
        raw = np.resize(records, _RECORDS).tobytes()
        self._memory[: len(raw)] = raw
        for first in range(0, _RECORDS, _EMITTED_A_RUN):
            syscalls.run_program(self._emit.fd, first)
        self._count = 0
        began = time.perf_counter()
        while self._count < _RECORDS:
            before = self._count
            self._program.ring_buffer_poll(0)
            if self._count == before:
                raise MachineError(f"bcc's ring buffer gave only {self._count} of {_RECORDS} records")
        return time.perf_counter() - began

    def close(self) -> None:
        self._memory.close()
        self._program.cleanup()


def _drain(capture: Capture, each: Callable[[np.ndarray], object]) -> float:
    """Records per second that can be taken off the ring until it is empty, each batch treated and dropped."""
    count = 0
    began = time.perf_counter()
    while len(records := capture.drain(RECORDS_A_LOOK)):
        count += len(records)
        each(records)
    seconds = time.perf_counter() - began
    if count < _WRITES:
        raise MachineError(f"only {count} records were captured of {_WRITES} writes")
    return count / seconds


class _Tracking:
    """What the primary does with each batch: who is in flight, INSERT into log, lists and map; later DELETE."""

    def __init__(self, volume_bytes: int) -> None:
        self._geometry = Geometry(volume_bytes)
        self._tracker = Tracker(self._geometry, _LOG_SLOTS)
        self._in_flight = InFlight(self._geometry)
        self._sequence = 0

    def take(self, records: np.ndarray) -> None:
        self._in_flight.apply(records)
        writes = records[records["kind"] == RecordKind.SUBMIT]
        firsts, counts = Runs.of_sectors(writes["sector"], writes["sectors"], self._geometry)
        sequences = self._sequence + 1 + np.arange(len(writes), dtype=np.uint64)
        if self._tracker.insert_all(sequences, firsts, counts) < len(writes):
            raise MachineError("the transaction log is too small for this measurement")
        self._sequence += len(writes)
        self._tracker.acknowledge(self._sequence)


def _records_of_writes(capture: Capture, disk: Device) -> np.ndarray:
    """Have the ring filled by real writes; a copy of their records, which stay in it."""
    while len(capture.drain()):
        pass
    random_writes(disk, count=_WRITES)
    return capture.peek(_RECORDS)


def measure(quick: bool) -> list[Figure]:
    """Records per second, both on the records of 65,536 real writes, in turn."""
    rounds = 3 if quick else 7
    plain: list[float] = []
    followed: list[float] = []
    bcc: list[float] = []
    with memory_folder(_VOLUME_BYTES) as folder:
        file = image(folder / "disk.img", _VOLUME_BYTES, seed=1)
        tracer = _Tracer()
        try:
            with (
                loop_over(file) as disk,
                tracked(disk, ADDRESSES) as capture,
            ):
                for _ in range(rounds):
                    records = _records_of_writes(capture, disk)
                    plain.append(_drain(capture, len))
                    bcc.append(_RECORDS / tracer.seconds(records))
                    _records_of_writes(capture, disk)
                    followed.append(_drain(capture, _Tracking(_VOLUME_BYTES).take))
        finally:
            tracer.close()
    return [
        _row("records off the ring", plain, bcc, 20.0),
        _row("... and through the tracker", followed, bcc, None),
    ]


def _row(what: str, ours: list[float], theirs: list[float], bar: float | None) -> Figure:
    measured = f"{statistics.median(ours) / 1e6:.2f} M/s : {statistics.median(theirs) / 1e6:.3f} M/s"
    return figure(NAME, what, measured, "x", ratios(ours, theirs), bar=bar)


assert RING_RECORD.itemsize == RECORD_BYTES

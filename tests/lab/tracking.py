"""Capture of a device under test, and a replica built from nothing but what was captured."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydbt.controller.registry import PINS
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB
from pydbt.kernel.capture import Capture, CaptureOptions, VolumeSpec
from pydbt.kernel.record import RING_RECORD
from tests.lab.disks import Device
from tests.lab.images import Bytes, Numbers, differing_of
from tests.lab.patience import wait_until

ADDRESSES = CaptureOptions(data_ring_bytes=0)
PAYLOAD = CaptureOptions(data_ring_bytes=256 * MIB)


def spec_of(device: Device, block_bytes: int = 4096, bio_based: bool = False) -> VolumeSpec:
    major, minor = device.disk_number
    return VolumeSpec(major, minor, device.start_sector, device.size_sectors, block_bytes, bio_based)


def new_pin_dir() -> Path:
    """A place of this process alone; those of processes that were killed are cleared away."""
    for old in PINS.glob("lab-*"):
        if not Path(f"/proc/{old.name.split('-')[1]}").exists():
            Capture.remove_pins(old)
    return PINS / f"lab-{os.getpid()}-{os.urandom(4).hex()}"


@contextlib.contextmanager
def tracked(
    device: Device, options: CaptureOptions = ADDRESSES, block_bytes: int = 4096, bio_based: bool = False
) -> Iterator[Capture]:
    """Attached inside, detached after, whatever happens."""
    pin_dir = new_pin_dir()
    try:
        capture = Capture.attach(spec_of(device, block_bytes, bio_based), options, pin_dir)
        try:
            yield capture
        finally:
            capture.close()
    finally:
        Capture.remove_pins(pin_dir)


def wait_quiet(capture: Capture) -> None:
    """Until every write submitted has completed: by the programs' count, or else by the disk's own.

    Kernels exist that run no tracing program while one particular task is current, so that a completion in
    an interrupt of that task is neither seen nor counted in recursion_misses. The kernel's count of requests
    in flight decides then, as it does for the controller's audit.
    """
    disk = Path(f"/sys/dev/block/{capture.volume.disk_major}:{capture.volume.disk_minor}")

    def quiet() -> bool:
        counters = capture.counters()
        if counters.submitted_sectors == counters.completed_sectors:
            return True
        in_flight = (disk / "inflight").read_text().split()
        return in_flight[1] == "0" and counters == capture.counters()

    wait_until(quiet, f"submitted equals completed: {capture.counters()}")


def check_completions(capture: Capture, completed_sectors: int) -> None:
    """All of the completions that the kernel counted, but for what wait_quiet() tells of."""
    counters = capture.counters()
    assert completed_sectors == counters.submitted_sectors
    hidden = completed_sectors - counters.completed_sectors
    assert 0 <= hidden <= completed_sectors // 20, counters


def blocks_set(words: NDArray[np.uint64]) -> Numbers:
    """Numbers of the set bits."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))


class Rebuilt:
    """An image that changes only by captured records, applied in their order."""

    def __init__(self, capture: Capture, image: Bytes) -> None:
        self.capture = capture
        self.image = image.copy()
        self.records = np.empty(0, RING_RECORD)

    def follow(self, work: Callable[[], object]) -> None:
        """Do the work in a thread and apply what is captured, until all of it has completed."""
        failure: list[BaseException] = []

        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                failure.append(error)

        worker = threading.Thread(target=guarded)
        worker.start()
        while worker.is_alive():
            if not self.catch_up():
                worker.join(0.002)
        if failure:
            raise failure[0]
        wait_quiet(self.capture)
        while self.catch_up():
            continue

    def catch_up(self) -> int:
        """Apply what is there; returns how many records that was."""
        records = self.capture.drain()
        self._apply(records)
        self.capture.release(records)
        self.records = np.concatenate((self.records, records))
        return len(records)

    def _apply(self, records: NDArray[np.void]) -> None:
        submitted = records[records["kind"] == RecordKind.SUBMIT]
        pieces = iter(self.capture.payload(records))
        columns = (submitted[name].tolist() for name in ("sector", "sectors", "pieces", "flags"))
        for sector, sectors, count, flags in zip(*columns, strict=True):
            offset, end = sector * 512, (sector + sectors) * 512
            if flags & RecordFlag.NO_DATA_OP:
                self.image[offset:end] = 0
            elif not flags & RecordFlag.NO_PAYLOAD:
                for _ in range(count):
                    piece = next(pieces)
                    self.image[offset : offset + len(piece)] = np.frombuffer(piece, np.uint8)
                    offset += len(piece)
                assert offset == end, "the pieces do not add up to the write"
        assert next(pieces, None) is None, "payload without a record"

    def check_no_record_lost(self) -> None:
        """The data of some may be missing, where the reader was too slow."""
        counters = self.capture.counters()
        assert counters.lost == counters.unknown_ops == counters.passthrough == 0, counters

    def check_nothing_lost(self) -> None:
        self.check_no_record_lost()
        counters = self.capture.counters()
        assert counters.no_payload == 0, counters

    def check_equals(self, device: Device) -> None:
        """Byte for byte, and by losing nothing."""
        self.check_nothing_lost()
        assert self.capture.data_used_bytes() == 0
        differing = differing_of(self.image, device.contents(), 512)
        assert not len(differing), f"{len(differing)} sectors differ, the first is {differing[0]}"

"""Where the records of a trace come from: the programs in the kernel, or a recording."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pydbt.core.errors import DeviceError, StateError, UsageError
from pydbt.core.seen.io_meaning import FileId
from pydbt.core.seen.io_record import IO_RECORD
from pydbt.core.seen.io_recording import BadRecording, FileNames, TraceBegin, TraceEnd, parts_of
from pydbt.device.inode_paths import InodePaths
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.tracing.block_io import BlockIo, EventOptions, IoDevice

_POLL_S = 0.1
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order of their ends, and how many were lost since the beginning."""

    records: np.ndarray
    lost: int


class LiveTrace:
    """The device's I/Os from now on, until ``stop``; its programs are attached from the beginning. Close it, by ``with``."""

    def __init__(self, device: BlockDevice, options: EventOptions) -> None:
        """MachineError names what this machine lacks."""
        seen = IoDevice(
            device.disk_major, device.disk_minor, device.start_sector, device.size_sectors, device.bio_based
        )
        self.device = device
        self._programs = BlockIo.attach(seen, options)
        self.begin = TraceBegin(device.path, device.size_bytes, time.time_ns() - time.monotonic_ns())
        self._paths = InodePaths()
        self._stopped = False

    def __enter__(self) -> LiveTrace:
        return self

    def __exit__(self, *_: object) -> None:
        self._programs.close()

    def stop(self) -> None:
        self._stopped = True

    def path_of(self, file: FileId) -> str | None:
        return self._paths.path(*file)

    def batches(self, duration_s: float | None) -> Iterator[Batch]:
        """About ten per second, also when nothing comes. DeviceError, after all, when the device is gone."""
        events = self._programs.events
        assert events is not None
        end = time.monotonic() + duration_s if duration_s is not None else float("inf")
        lost, next_look, gone = 0, 0.0, False
        while True:
            last = self._stopped or time.monotonic() >= end
            records = events.drain()
            if last or time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_S
                lost = int(self._programs.figures()["lost"].sum()) + self._programs.run_time().missed
                gone = not self.device.exists()
            yield Batch(records, lost)
            if gone:
                raise DeviceError(f"{self.device.path} has vanished: the kernel removed the device while it was traced")
            if last:
                return
            time.sleep(min(_POLL_S, max(0.0, end - time.monotonic())))


class Recording:
    """A file of ``--record``, which is read from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self._path, self._names, self._stopped = path, FileNames(), False
        try:
            self._file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read: {error.strerror}: name a file of 'controller trace --record'"
            ) from None
        self._parts = parts_of(self._file.read)
        try:
            begin = next(self._parts)
        except BadRecording as error:
            raise UsageError(f"{path} cannot be played: {error}") from None
        assert isinstance(begin, TraceBegin)
        self.begin = begin
        self.full = False

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def stop(self) -> None:
        self._stopped = True

    def path_of(self, file: FileId) -> str | None:
        """The name that it had when it was recorded."""
        return self._names.get(file)

    def batches(self, duration_s: float | None) -> Iterator[Batch]:
        """One per block. StateError when it is damaged or was cut off, after everything before that place."""
        nothing = np.zeros(0, IO_RECORD)
        try:
            for part in self._parts:
                match part:
                    case np.ndarray():
                        yield Batch(part, 0)
                    case TraceEnd():
                        self.full = part.full
                        yield Batch(nothing, part.lost)
                    case dict():
                        self._names |= part
                if self._stopped:
                    return
        except BadRecording as error:
            raise StateError(f"{self._path}: {error}; the records before that place were read") from None

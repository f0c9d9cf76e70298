"""Questions to the file system on the volume, for people who look at it: which space is free, and whose a block is.

A file system may not answer for as long as its device hangs. So each kind of question has one thread at most, and who asks
waits for a bounded time. Nothing is guessed: what is not answered in time is unknown.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pydbt.controller.primary.job import Job
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import DeviceError
from pydbt.core.seen.heat import Cells, free_blocks
from pydbt.device.block_owner import BlockOwner, owner_of
from pydbt.device.fsmap import NoMap, free_parts, map_records, mount_with_map, open_mount
from pydbt.device.sysfs import BlockDevice

OWNER_ANSWER_S = 2.0
"""A person who clicked on a block waits this long."""
FREE_AT_ONCE_S = 0.4
"""A map does not wait longer than this for where free space is: it is there with the next one."""
FREE_READ_S = 1.0
"""No more work than this is made for one map, which leaves free space out then."""
FREE_KEPT_S = 10.0
"""Of the same part of the volume it is not asked for again before this."""
TOO_LARGE_S = 60.0
"""After a part of the volume was too large to be read in time, none of this size is tried before this."""


class OneQuestion:
    """One question at a time; the next one begins when the last was answered. From any thread."""

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, threading.Lock()
        self._job: Job | None = None

    def ask(self, question: Callable[[], Any], patience_s: float) -> Any:
        """The answer. DeviceError when there is none in time, or none at all."""
        until = time.monotonic() + patience_s
        if not self._lock.acquire(timeout=patience_s):
            raise DeviceError("others ask the file system, and wait for its answer")
        try:
            if self._job is not None and not self._job.ended.wait(max(0.0, until - time.monotonic())):
                raise DeviceError("the file system has not answered an earlier question yet")
            self._job = job = Job(self._name, question)
            if not job.ended.wait(max(0.0, until - time.monotonic())):
                raise DeviceError(f"the file system did not answer within {patience_s:g} s")
        finally:
            self._lock.release()
        if job.error:
            raise DeviceError(job.error)
        return job.result


class FileSystemQuestions:
    """Of one volume. From any thread."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._owners, self._free = OneQuestion("block owner"), OneQuestion("free space")
        self._kept: tuple[Cells, Runs, float] | None = None
        self._too_large: tuple[int, float] | None = None  # bytes, and when

    def owner(self, offset_bytes: int) -> BlockOwner:
        """Whose the block is; unknown, with the reason, where the file system does not answer."""
        try:
            found: BlockOwner = self._owners.ask(lambda: owner_of(self._device, offset_bytes), OWNER_ANSWER_S)
        except DeviceError as error:
            return BlockOwner(None, None, f"unknown: {error}")
        return found

    def free(self, cells: Cells) -> Runs | None:
        """The free blocks of these cells; None where they are not known, or not yet."""
        now, kept, span = time.monotonic(), self._kept, cells.span_bytes()
        if kept is not None and kept[0] == cells and now < kept[2] + FREE_KEPT_S:
            return kept[1]
        if (
            self._too_large is not None
            and span[1] - span[0] >= self._too_large[0]
            and now < self._too_large[1] + TOO_LARGE_S
        ):
            return None
        try:
            found: Runs | None = self._free.ask(lambda: self._read_free(cells), FREE_AT_ONCE_S)
        except DeviceError:
            return None
        return found

    def _read_free(self, cells: Cells) -> Runs | None:
        until = time.monotonic() + FREE_READ_S
        start, end = cells.span_bytes()
        try:
            descriptor, _ = open_mount(self._device, mount_with_map(self._device))
        except NoMap:
            return None
        parts = [np.zeros((0, 2), np.int64)]
        try:
            for records in map_records(descriptor, self._device, start, end - 1):
                parts.append(free_parts(records))
                if time.monotonic() > until:
                    self._too_large = end - start, time.monotonic()
                    return None
        except NoMap:
            return None
        finally:
            os.close(descriptor)
        found = free_blocks(cells, np.concatenate(parts))
        self._kept = cells, found, time.monotonic()
        return found

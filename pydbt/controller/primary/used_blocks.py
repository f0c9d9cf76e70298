"""The blocks that a first copy needs, as the event that the brain waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf

import numpy as np

from pydbt.controller.primary.job import Job
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import BusyError, PydbtError, StateError
from pydbt.core.primary import events as ev
from pydbt.core.units import Geometry, format_bytes
from pydbt.device.filesystem import used_extents
from pydbt.device.sysfs import BlockDevice

KEPT_S = 30.0
"""What was found to be free is asked for again within this time, or looked for anew."""
AT_ONCE_S = 0.2
"""The loop waits for the blocks in use no longer than this. Most times they are there by then."""


class UsedBlocksSearch:
    """Finds them in a thread: it asks for all mounts, whose number any user chooses, and has a file system written out."""

    def __init__(
        self,
        device: BlockDevice,
        geometry: Geometry,
        whole: bool,
        later: Callable[[ev.UsedBlocks], None],
        likely: Callable[[], Runs] = Runs.none,
        first: Callable[[], None] = lambda: None,
        failed: Callable[[StateError], None] = lambda error: None,
    ) -> None:
        """``likely``: finds where differences are likely, which takes as long as it takes to read the log of a file system.
        ``first``: done before all else; its StateError goes to ``failed``, in the thread, and there is no answer."""
        self._likely, self._first, self._failed = likely, first, failed
        self._device, self._geometry, self._whole, self._later = device, geometry, whole, later
        self._lock = threading.Lock()
        self._there = threading.Event()
        self._is_late = False
        self._error: StateError | None = None
        self._found = everything(
            geometry, "the blocks in use could not be found, so the whole device is compared or copied"
        )
        Job("used blocks", self._search, self._tell)

    def at_once(self) -> ev.UsedBlocks | None:
        """The blocks, when that is quick. Else None, and ``later`` is called with them in the thread."""
        self._there.wait(AT_ONCE_S)
        with self._lock:
            self._is_late = not self._there.is_set()
            return None if self._is_late else self._found

    def _search(self) -> None:
        try:
            self._first()
        except StateError as error:
            self._error = error
            return
        self._found = replace(scan(self._device, self._geometry, self._whole), likely=self._likely())

    def _tell(self) -> None:
        if self._error is not None:
            self._failed(self._error)
            return
        with self._lock:
            if not self._is_late:
                self._there.set()
                return
        self._later(self._found)


class FreeSpace:
    """Where free space is; what was found is kept for a while. Called from the loop's thread alone."""

    def __init__(self, device: BlockDevice, geometry: Geometry) -> None:
        self._device, self._geometry = device, geometry
        self._is_searching = False
        self._ended_at = -inf  # of the search whose result is kept
        self._free: Runs | None = None

    def found(self) -> Runs | None:
        """None where it is not known. BusyError while it is looked for, for longer than the loop waits."""
        if not self._is_searching and time.monotonic() > self._ended_at + KEPT_S:
            self._is_searching = True
            used = UsedBlocksSearch(self._device, self._geometry, False, self._keep).at_once()
            if used is not None:
                self._keep(used)
            if used is not None and used.whole:
                self._ended_at = (
                    -inf
                )  # nothing was waited for, and a file system may be mounted before the next question
        if self._is_searching:
            raise BusyError("where free space is takes long to find out on this machine: try again in a moment")
        return self._free

    def _keep(self, used: ev.UsedBlocks) -> None:
        """Also in the thread of the search, which nobody waits for by then."""
        self._free = None if used.whole else every_block(self._geometry).minus(used.runs)
        self._ended_at, self._is_searching = time.monotonic(), False


def scan(device: BlockDevice, geometry: Geometry, whole: bool) -> ev.UsedBlocks:
    """The blocks in use, or with ``whole`` all of them. It may take as long as a file system takes to write everything out."""
    if whole:
        return everything(geometry, "the whole device is compared or copied")
    try:
        used = used_extents(device)
    except (PydbtError, OSError) as error:
        return everything(geometry, f"the whole device is copied: {error}")
    runs = blocks_of_bytes(used.firsts_bytes, used.lengths_bytes, geometry)
    return ev.UsedBlocks(runs, f"{format_bytes(used.total_bytes)} in use; {used.reason}", used.whole)


def everything(geometry: Geometry, explanation: str) -> ev.UsedBlocks:
    """All blocks, because it is not known which of them are in use, or because all are asked for."""
    return ev.UsedBlocks(every_block(geometry), explanation, whole=True)


def every_block(geometry: Geometry) -> Runs:
    """One run of all blocks of a volume."""
    return Runs(np.zeros(1, dtype=np.int64), np.array([geometry.block_count], dtype=np.int64))


def blocks_of_bytes(firsts: np.ndarray, lengths: np.ndarray, geometry: Geometry) -> Runs:
    """Runs of bytes as runs of the blocks they touch, the last block of the volume at most."""
    block = geometry.block_bytes
    first_blocks = firsts // block
    return Runs(first_blocks, np.minimum(-(-(firsts + lengths) // block), geometry.block_count) - first_blocks)

"""Watches how the volume is used while it runs: by a file system that is mapped with DAX, and by swap.

Both are found in tables of mounts. Any user can make these long, and then the kernel takes seconds to write one down, and has no
limit of time for it. So a thread reads them, and the loop takes what it has found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from pydbt.controller.primary.job import Job
from pydbt.device.dax import maps_memory, unseen_stores
from pydbt.device.mounts import swap_paths
from pydbt.device.sysfs import BlockDevice
from pydbt.device.usage import swap_on

SWAP_S = 5.0
"""Swap is looked for this often. Stores by DAX are worse: they are looked for at each check."""
MOUNTS_READ_S = 20.0
"""From here on it is unknown how the volume is used."""


@dataclass(frozen=True, slots=True)
class Use:
    """``unseen``: why stores may go to the device that no program sees, else empty; ``swap``: the swap areas on it."""

    unseen: str = ""
    swap: tuple[str, ...] = ()


class UseWatch:
    """Called from the loop's thread alone."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._job: Job | None = None
        self._begun_at = -inf
        self._error = ""
        self._last = Use()

    def begin(self, now: float, then: Callable[[], None]) -> None:
        """Look in a thread, which calls ``then`` at its end; nothing, while one does, or where a look is not due."""
        if self._job is not None:
            return
        if not maps_memory(self._device) and now < self._begun_at + SWAP_S:
            return
        self._begun_at = now
        if maps_memory(self._device) or _may_have_swap():
            self._job = Job("use", lambda: look_at_use(self._device), then)
        else:
            self._last, self._error = Use(), ""

    def take(self) -> Use:
        """What the last look that has ended well has found."""
        if self._job is not None and self._job.ended.is_set():
            self._error = self._job.error
            self._last = self._job.result or self._last
            self._job = None
        return self._last

    def problem(self, now: float) -> str:
        """Why it is unknown how the volume is used; empty while that is known."""
        why = self._error
        if self._job is not None and now > self._begun_at + MOUNTS_READ_S:
            why = f"the tables of mounts were not read within {MOUNTS_READ_S:g} s"
        if not why:
            return ""
        return (
            f"it is unknown whether {self._device.path} is used as swap or mapped with DAX ({why}): blocks could then differ "
            "until the next verification"
        )


def _may_have_swap() -> bool:
    """Where it cannot be asked now, as without a free descriptor, the thread looks, and tells why it cannot."""
    try:
        return bool(swap_paths())
    except OSError:
        return True


def look_at_use(device: BlockDevice) -> Use:
    """For a thread: it may take as long as the kernel takes."""
    return Use(unseen_stores(device, at_start=False), tuple(swap_on(device)))

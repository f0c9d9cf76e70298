"""Tells each secondary once a second how far the volume is, so that a promotion there can say what is lost."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from pydbt.controller.primary.status import in_kernel_bytes
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary.modes import FOLLOWING_MODES, Mode
from pydbt.core.primary.status import PrimaryStatus
from pydbt.core.protocol.frames import STANDING, UNKNOWN_STANDING, Standing


class Standings:
    """Called from the loop's thread alone."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._host = socket.gethostname()[:256]
        self._marked: tuple[str, int] | None = None  # a moment, and where the kernel's ring ended then

    def tell(self, now: float) -> None:
        """Tell them the latest moment of which it is known that every earlier write has its number."""
        volume, here = self._volume, self._mark()
        in_kernel = in_kernel_bytes(volume)
        before = self._marked or here
        self._marked = here
        for peer in volume.peers.values():
            if STANDING not in peer.connection.features:
                continue
            brain = peer.brain
            moment, position = here if brain.state.position >= here[1] else before
            lacks = _behind_bytes(brain.status(now), in_kernel)
            if lacks is None and UNKNOWN_STANDING not in peer.connection.features:
                lacks = volume.geometry.size_bytes  # an earlier version knows no other word for it
            followed = brain.mode in FOLLOWING_MODES and not brain.state.taints and brain.state.position >= position
            peer.connection.send(
                Standing(
                    host=self._host,
                    source=volume.device.path,
                    moment=moment,
                    sequence=brain.state.sequence,
                    followed=followed,
                    behind_bytes=None if lacks is None else min(lacks, volume.geometry.size_bytes),
                )
            )

    def _mark(self) -> tuple[str, int]:
        """The moment first: a write between the two lies before the position, and is not promised by the moment."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return moment, self._volume.capture.producer_position()


def _behind_bytes(status: PrimaryStatus, more_bytes: int) -> int | None:
    """The most that the secondary lacks: outside of mode normal the kernel's bitmaps name more blocks. None: nobody knows."""
    if not status.known:
        return None
    if status.mode is Mode.NORMAL:
        return max(status.out_of_sync_bytes, status.unacknowledged_bytes)
    return status.out_of_sync_bytes + more_bytes

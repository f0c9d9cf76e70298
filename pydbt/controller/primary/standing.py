"""Tells each secondary once a second how far the volume is, so that a promotion there can say what is lost."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from pydbt.controller.primary.report import SecondaryReport, VolumeReport
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary.modes import FOLLOWING_MODES
from pydbt.core.protocol.frames import Standing


class Standings:
    """Called from the loop's thread alone."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._host = socket.gethostname()[:256]
        self._marked: tuple[str, int] | None = None  # a moment, and where the kernel's ring ended then

    def tell(self, report: VolumeReport) -> None:
        """Tell them the latest moment of which it is known that every earlier write has its number."""
        volume, here = self._volume, self._mark()
        before = self._marked or here
        self._marked = here
        for peer, status in zip(volume.peers.values(), report.secondaries, strict=True):
            if not peer.connection.takes_standings:
                continue
            brain = peer.brain
            moment, position = here if brain.state.position >= here[1] else before
            followed = brain.mode in FOLLOWING_MODES and not brain.state.taints and brain.state.position >= position
            peer.connection.send(
                Standing(
                    host=self._host,
                    source=volume.device.path,
                    moment=moment,
                    sequence=brain.state.sequence,
                    followed=followed,
                    behind_bytes=_behind_bytes(status),
                )
            )

    def _mark(self) -> tuple[str, int]:
        """The moment first: a write between the two lies before the position, and is not promised by the moment."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return moment, self._volume.capture.producer_position()


def _behind_bytes(status: SecondaryReport) -> int:
    return max(status.out_of_sync_bytes, status.lag_bytes)

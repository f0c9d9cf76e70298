"""Tells each secondary once per second how far the volume is, so that a promotion there can say what is lost."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from pydbt.controller.primary.status import in_kernel_bytes
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary.standing import RingMoment, behind_bytes, is_followed, vouched_for
from pydbt.core.protocol.frames import STANDING, UNKNOWN_STANDING, Standing


class Standings:
    """Called from the loop's thread alone."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._host = socket.gethostname()[:256]
        self._before: RingMoment | None = None

    def tell(self, now: float) -> None:
        """Tell them the latest moment of which it is known that every earlier write has its number."""
        volume, here = self._volume, self._here()
        in_kernel = in_kernel_bytes(volume)
        before = self._before or here
        self._before = here
        for peer in volume.peers.values():
            if STANDING not in peer.connection.features:
                continue
            brain = peer.brain
            taken_in = brain.state.position
            vouched = vouched_for(taken_in, here, before)
            lacks = behind_bytes(brain.status(now), in_kernel)
            if lacks is None and UNKNOWN_STANDING not in peer.connection.features:
                lacks = volume.geometry.size_bytes  # an earlier version knows no other word for it
            peer.connection.send(
                Standing(
                    host=self._host,
                    source=volume.device.path,
                    moment=vouched.moment,
                    sequence=brain.state.sequence,
                    followed=is_followed(brain.mode, bool(brain.state.taints), taken_in, vouched),
                    behind_bytes=None if lacks is None else min(lacks, volume.geometry.size_bytes),
                )
            )

    def _here(self) -> RingMoment:
        """The moment first: a write between the two lies before the position, and is not promised by the moment."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return RingMoment(moment, self._volume.capture.producer_position())

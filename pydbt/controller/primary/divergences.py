"""Keeps the moments that a split brain is explained with, and tells what only this side has."""

from __future__ import annotations

import socket

from pydbt.controller.clocks import look_at_clocks
from pydbt.controller.primary.handshake import Refused
from pydbt.controller.primary.moments import wall_moment
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.divergence import Divergence

# The moment of the last write is written down this often, so that a volume that is written all the time costs no more writes.
_NOTE_S = 60.0


class Divergences:
    """Called from the loop's thread alone. Times are of the monotonic clock."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._common: dict[int, float] = {}  # by secondary: when the last write was captured that both have
        self._noted: float | None = None

    def note(self, now: float, *, final: bool = False) -> None:
        """Take down when both were the same last, and when this side was written last. Not written to disk yet."""
        look_at_clocks()
        volume, metadata = self._volume, self._volume.metadata
        at = volume.written_at
        if at is None:
            return
        on_record = {record.slot for record in metadata.state.secondaries}
        for peer in [peer for peer in volume.peers.values() if peer.number in on_record]:
            common = _last_common(peer, at)
            if common is not None and common != self._common.get(peer.number):
                self._common[peer.number] = common
                metadata.change_record(peer.number, last_common=wall_moment(common, now))
        if at != self._noted and (final or self._noted is None or at - self._noted >= _NOTE_S):
            self._noted = at
            metadata.change(last_written=wall_moment(at, now))

    def explained(self, peer: Peer, refusal: Refused, out_of_sync_bytes: int | None, now: float) -> Refused:
        """The refusal of a split brain with the evidence of both sides."""
        if refusal.code != "split-brain":
            return refusal
        record, state, at = peer.record, self._volume.metadata.state, self._volume.written_at
        own = Divergence(
            host=socket.gethostname(),
            device=self._volume.device.path,
            last_common=record.last_common,
            first_alone=record.first_alone,
            last_alone=state.last_written if at is None else wall_moment(at, now),
            differing_bytes=out_of_sync_bytes,
        )
        words = f"{refusal} (this side is {own}; the other side is {refusal.side or Divergence()})"
        return Refused(refusal.code, words, refusal.side)


def _last_common(peer: Peer, written_at: float) -> float | None:
    """When the last write was captured that the secondary has; None where it does not follow write by write."""
    if peer.brain.mode is not Mode.NORMAL:
        return None
    oldest = peer.brain.state.queue.oldest_arrival()
    return written_at if oldest is None else min(oldest, written_at)

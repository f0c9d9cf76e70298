"""Feeds the brains: every event that waits goes in, and the effects that come out are carried out."""

from __future__ import annotations

import time

from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary import events as ev


class Feed:
    """Called from the loop's thread alone, and not from within an effect."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._effects = EffectRunner(volume)

    def process(self) -> None:
        """Give the brains every event that waits, and carry out their effects."""
        volume = self._volume
        while volume.events:
            number, event = volume.events.popleft()
            answers = self._effects.carry_out(volume.fanout.handle(event, time.monotonic(), number))
            volume.events.extendleft(reversed(answers))
        for peer in volume.peers.values():
            peer.note_in_sync(volume.drained_at)
        if any(peer.taints_changed() for peer in volume.peers.values()):
            volume.keep()

    def catch_up(self) -> None:
        """Let the brains hear of every write up to now: an answer that is made next leaves out none that has completed."""
        ahead = self._volume.catch_up()  # which puts another queue in the place of this one
        self._volume.events.extendleft(reversed(ahead))
        self.process()

    def take(self, event: ev.VolumeEvent, number: int | None = None) -> None:
        """Give the brains an event now, behind those that wait."""
        self._volume.events.append((number, event))
        self.process()

    def part(self, peer: Peer) -> None:
        """Give a secondary up, and forget it. StateError when that cannot be written down: it stays, and is paused."""
        volume = self._volume
        self.take(ev.RemoveAsked(), peer.number)
        volume.map_writer.wait()  # none of its files may come back once they are removed
        peer.forget_era()
        # As long as it is on record, its map must name the blocks that it lacks.
        volume.metadata.remove(peer.number)
        del volume.peers[peer.number]
        answers = self._effects.carry_out(volume.fanout.drop(peer.number, time.monotonic()))
        # Only now: carrying out effects may have put another queue in the place of this one.
        volume.events.extendleft(reversed(answers))
        peer.close(wait=False)  # it may be frozen, and the others must not wait for it
        self.process()

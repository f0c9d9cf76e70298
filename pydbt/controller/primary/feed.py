"""Feeds the brains: every event that waits goes in, and the effects that come out are carried out."""

from __future__ import annotations

import time
from collections.abc import Callable

from pydbt.controller.primary.effects import EffectRunner
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.state_save import SaveEnded
from pydbt.controller.primary.volume import Volume
from pydbt.core.primary import events as ev
from pydbt.store.secondary_record import SecondaryRecord


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

    def saved(self, ended: SaveEnded) -> None:
        """A write of the state has ended: what rests on it counts. Whoever could not be told of it is given up until it is on the
        disk."""
        volume = self._volume
        volume.metadata.ended(ended)
        for peer in list(volume.peers.values()):
            peer.connection.saved(volume.metadata.saves.durable)
            volume.events.extend((peer.number, event) for event in peer.written_down())
            if ended.error and peer.connection.rests:
                volume.events.append((peer.number, peer.fail(ended.error)))

    def part(self, peer: Peer, then: Callable[[str], None]) -> None:
        """Give a secondary up, and forget it; ``then`` is told when that is done, with an error when it cannot be written down:
        it stays, and is paused."""
        self.take(ev.RemoveAsked(), peer.number)
        record = peer.record

        def told(error: str) -> None:
            if not error:
                self._forget(peer, record)
            then(error)

        # As long as it is on record, its map must name the blocks that it lacks.
        self._volume.metadata.remove(peer.number, told)

    def _forget(self, peer: Peer, record: SecondaryRecord) -> None:
        """It is not on record any more."""
        volume = self._volume
        volume.metadata.remove_files(record, peer.forget_era)
        del volume.peers[peer.number]
        answers = self._effects.carry_out(volume.fanout.drop(peer.number, time.monotonic()))
        # Only now: carrying out effects may have put another queue in the place of this one.
        volume.events.extendleft(reversed(answers))
        peer.close(wait=False)  # it may be frozen, and the others must not wait for it
        self.process()

"""One volume and all of its secondaries: a brain for each, and what they share.

Invariant, for *each* secondary, at every instant and also if the process dies in it:
*blocks that differ* ⊆ kernel bitmaps ∪ that brain's ``tracker.pending`` ∪ ``tracker.dirty`` ∪ in transit ∪ unsettled,
and everything of it that lives in this process alone is covered by the kernel bitmaps or by that secondary's persisted map.

A secondary that is slow or dead holds nobody back: not the writers, who wait for no one; not the others' room for data
(``payload_room``); not the bitmaps (``bitmap_share``). Records leave the kernel's ring as they come, whoever is slow, and
what a brain keeps of them is bounded by its own log.

Effects and events come with the number of the secondary they concern, or None where they concern the volume.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.mark_events import MarkAsked, MarksLeft, MarksTold, MarkWaitAsked
from pydbt.core.protocol.frames import Generation
from pydbt.core.tracking.capture_record import Records
from pydbt.core.volume.bitmap_share import BitmapShare
from pydbt.core.volume.marking import Marking, Placed
from pydbt.core.volume.payload_room import PayloadRoom
from pydbt.core.volume.shared_waits import SharedWaits

Addressed = tuple[int | None, ev.Effect]


class Fanout:
    """Feed it events, carry out the effects it returns, in order. ``brains`` are by number, and never renumbered.

    ``data_room_bytes``: the kernel's room for captured data; ``quiet_held``: its quiet bitmap may hold bits.
    """

    def __init__(self, data_room_bytes: int, quiet_held: bool) -> None:
        self.brains: dict[int, Primary] = {}
        self._data_room_bytes = data_room_bytes
        self._room = PayloadRoom()
        self.bitmaps = BitmapShare(self._do, quiet_held)
        self._waits = SharedWaits()
        self.marks = Marking()
        self._with_payload: set[int] = set()
        self._name = 0
        self._renamed = False
        self._deadline: float | None = None  # both until the next event; None: not reckoned since the last one
        self._calm_until: float | None = None
        self._first: list[Addressed] = []  # effects that go before all others of an event
        self._effects: list[Addressed] = []

    # --- the interface ------------------------------------------------------------------------------------
    def add(self, peer: int, brain: Primary) -> None:
        """From here on this brain gets what is captured. Those there are must be of the same generation."""
        current = brain.state.generations.current
        assert not self.brains or current == self._name, "the secondaries of a volume share its current generation"
        self._name = current
        self._begin()
        for other in self.brains.values():
            brain.transactions.lost.learn(other.transactions.lost)
        self.brains[peer] = brain
        self.bitmaps.join(peer, brain.quiet)
        self._room.join(peer)

    def drop(self, peer: int, now: float) -> list[Addressed]:
        """Forget a secondary, after ``ev.RemoveAsked``: what is written from there on has a name that it has not heard of."""
        self._begin()
        self._room.leave(peer)
        del self.brains[peer]
        self.bitmaps.forget(peer)
        self.marks.forget(peer)
        for token, lacking in self._waits.forget(peer):
            self._do(lacking, ev.AnswerWait(token, lacks=lacking is not None))
            self._tell_all(ev.WaitGone(token), now)
        return self._end(now)

    def handle(self, event: ev.VolumeEvent, now: float, peer: int | None = None) -> list[Addressed]:
        """Take one event of a secondary, or of the volume, in; return what is to be done, in order."""
        self._begin()
        match event:
            case ev.Captured(records=records):
                self._room.captured(records)
                self._tell_all(event, now)
                self._keep_room(now)
            case ev.QuietTaken():
                self.bitmaps.taken(event, lambda number, mine: self._tell(number, mine, now))
            case ev.WaitAsked():
                for number in self._waits.add(event, list(self.brains)):
                    self._tell(number, event, now)
            case ev.WaitGone(token=token):
                self._waits.drop(token)
                self.marks.drop(token)
                self._tell_all(event, now)
            case MarkAsked():
                self.marks.ask(event, self.brains)
            case MarkWaitAsked():
                self.marks.wait(event, self.brains)
            case _ if peer is None:
                self._tell_all(event, now)
            case _:
                if isinstance(event, ev.Persisted) and event.cover:
                    self.bitmaps.covered(peer)
                self._tell(peer, event, now)
        return self._end(now)

    def deadline(self) -> float:
        """When ``handle(ev.Tick(), now)`` is due at the latest."""
        if self._deadline is None:
            own = min(self.bitmaps.deadline(), self.marks.deadline())
            self._deadline = min([own, *(brain.deadline() for brain in self.brains.values())])
        return self._deadline

    def calm_until(self) -> float:
        """As of one brain, for the volume: when something is due although nothing happens; minus infinity: all the time."""
        if self._calm_until is None:
            own = min(self.bitmaps.deadline(), self.marks.deadline())
            self._calm_until = min([own, *(brain.calm_until() for brain in self.brains.values())])
        return self._calm_until

    # --- from one event to what is to be done -------------------------------------------------------------
    def _begin(self) -> None:
        self._first, self._effects, self._renamed = [], [], False
        self._deadline = self._calm_until = None

    def _end(self, now: float) -> list[Addressed]:
        self._advance_marks(now)
        self.bitmaps.advance(now)
        views = {number: brain.state.generations for number, brain in self.brains.items()}
        effects = [(number, self._of_now(number, effect)) for number, effect in (*self._first, *self._effects)]
        if self._renamed and views:
            return [(None, ev.KeepAllGenerations(views)), *effects]
        return effects

    def _advance_marks(self, now: float) -> None:
        """Every brain has taken in the same records here, so that a mark has one place for all of them."""
        for decision in self.marks.advance({number: brain.marks for number, brain in self.brains.items()}, now):
            match decision:
                case Placed(peers=peers, event=event):
                    for number in peers:
                        self._tell(number, event, now)
                case (peer, answer):
                    self._do(peer, answer)

    def _of_now(self, number: int | None, effect: ev.Effect) -> ev.Effect:
        """A COMMIT that goes out with this event makes an image of the name that the volume has at its end.

        A secondary that has stopped following meanwhile hears of nothing newer than what it was given.
        """
        match effect:
            case ev.SendFrame(frame=Generation()) if number in self.brains:
                generations = self.brains[number].state.generations
                return ev.SendFrame(Generation(generations)) if generations.shared else effect
        return effect

    def _do(self, number: int | None, effect: ev.Effect) -> None:
        self._effects.append((number, effect))

    def _tell_all(self, event: ev.Event, now: float) -> None:
        for number in self.brains:
            self._tell(number, event, now)

    def _tell(self, number: int, event: ev.Event, now: float) -> None:
        """One brain's turn. What it wants of what is shared is seen to; the rest is passed on."""
        brain = self.brains.get(number)
        if brain is None:
            return  # removed meanwhile
        for effect in brain.handle(event, now):
            self._take(number, effect, now)
        name = brain.state.generations.current
        if name != self._name:
            self._name = name
            for other in self.brains:
                if other != number:
                    self._rename(other, name, now)

    def _rename(self, number: int, name: int, now: float) -> None:
        """Ahead of everything that this event has to send: the write that made the new name necessary is among it."""
        before, self._effects = self._effects, []
        self._tell(number, ev.Renamed(name), now)
        for addressed in self._effects:
            match addressed:
                case (_, ev.SendFrame(frame=Generation())):
                    self._first.append(addressed)
                case _:
                    before.append(addressed)
        self._effects = before

    def _take(self, number: int, effect: ev.BrainEffect, now: float) -> None:
        match effect:
            case ev.ReleasePayload(records=records):
                self._passed(number, records)
            case ev.SendStream(records=records):
                self._do(number, effect)
                self._passed(number, records)
            case ev.SetPayload(on=True):
                self._with_payload.add(number)
                self._do(number, effect)
            case ev.SetPayload():
                self._with_payload.discard(number)
                if not self._with_payload:
                    self._do(None, effect)
            case ev.TakeQuiet(flip=flip):
                self.bitmaps.ask(number, flip, now)
            case ev.ZeroQuiet():
                pass  # it needs the quiet bitmap no longer: what is done about that is the others' business too
            case ev.KeepGenerations():
                self._renamed = True
            case MarksTold():
                self.marks.told(number, effect)
            case MarksLeft():
                self.marks.left(number)
            case ev.AnswerWait(token=token, lost=lost) if lost:
                if asked := self._waits.lost(token):
                    self._do(None, effect)
                    for other in asked:
                        self._tell(other, ev.WaitGone(token), now)
            case ev.AnswerWait(token=token, lacks=lacks):
                others = self._waits.lacks(token, number) if lacks else self._waits.answered(token, number)
                if others is not None:
                    self._do(number if lacks else None, effect)
                    for other in others:
                        self._tell(other, ev.WaitGone(token), now)
            case _:
                self._do(number, effect)

    # --- what is shared -----------------------------------------------------------------------------------
    def _passed(self, number: int, records: Records) -> None:
        for free in self._room.passed(number, records):
            self._do(None, ev.ReleasePayload(free))

    def _keep_room(self, now: float) -> None:
        """What one secondary alone cannot take must not end the streams of the others."""
        following = [number for number, brain in self.brains.items() if brain.logging]
        for number in self._room.laggards(following, self._data_room_bytes):
            self._tell(
                number, ev.RoomShort("the secondary is slower than others, and takes the room for captured data"), now
            )

    def take_last_bits(self, words: npt.NDArray[np.uint64]) -> None:
        """At the end, after the last event: every map takes in what a bitmap of the kernel names."""
        for brain in self.brains.values():
            brain.state.tracker.pending.merge_words(words)

    @property
    def tells_everything(self) -> bool:
        """Whether the maps that are written now, with the kernel's bits in them, name every block that may differ.

        A secondary without a map is compared as a whole in any case; the others' maps are complete without it.
        """
        return all(
            (brain.state.replica.scanned or not brain.quiet.mapped) and not brain.state.taints
            for brain in self.brains.values()
        )

    def lacking_bytes(self) -> tuple[int, int]:
        """Blocks that some secondary has not got, each counted once (the kernel's active bitmap comes on top); and those of them
        that only wait for an acknowledgement, of whatever secondary. It costs a union of all maps: not for every second.
        """
        union = DirtyMap(next(iter(self.brains.values())).state.geometry.block_count)
        for brain in self.brains.values():
            union.merge(brain.out_of_sync_map(on_the_way=False))
            if (staged := brain.state.rolled_back) is not None:
                union.merge(staged)
        lasting = self._size(union)
        for brain in self.brains.values():
            union.merge(brain.state.tracker.dirty)
        lacking = self._size(union)
        return lacking, lacking - lasting

    def _size(self, blocks: DirtyMap) -> int:
        geometry = next(iter(self.brains.values())).state.geometry
        return min(blocks.count() * geometry.block_bytes, geometry.size_bytes)

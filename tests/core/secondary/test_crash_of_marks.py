"""A mark that was acknowledged is held after any crash, at its place; and earlier programs are kept off its journal."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.protocol import frames as f
from pydbt.core.protocol.completed import COMPLETED_DTYPE, Completed
from pydbt.core.protocol.mark import NamedMark
from pydbt.core.secondary import events as e
from pydbt.core.secondary.held_marks import KEPT_MARKS
from pydbt.core.secondary.journal import needs_history
from tests.core.secondary.test_crash import Crash, World


class MarkedWorld(World):
    """Its primary sets marks, and tells transactions, in mode normal."""

    def __init__(self, seed: int) -> None:
        self.marks: dict[int, int] = {}  # sequences by number
        self.on_the_way: set[int] = set()
        self.acknowledged_marks: set[int] = set()
        super().__init__(seed)

    def send_stream(self) -> None:
        super().send_stream()
        if self.mode != "normal" or not self.online:
            return
        if self.rng.random() < 0.2:
            row = (self.sequence, self.sequence, self.sequence, 0, 0, 0, 1, 0, 0)
            self.send(Completed(self.sequence, 0, np.array([row], COMPLETED_DTYPE)))
        if self.online and self.rng.random() < 0.3:
            self.sequence += 1
            self.history[self.sequence] = self.history[self.sequence - 1]
            number = len(self.marks) + 1
            self.marks[number] = self.sequence
            self.on_the_way.add(number)
            self.send(NamedMark(self.sequence, number, f"mark {number}", 0, 0, synced=False))

    def primary_step(self) -> None:
        super().primary_step()
        if not self.online or self.mode != "normal":
            self.on_the_way.clear()  # the stream was given up

    def heard(self, frame: f.Frame) -> None:
        streams = self.online and self.mode == "normal"
        super().heard(frame)
        if not streams or not self.online:
            self.on_the_way.clear()
        elif isinstance(frame, f.Ack):
            held = {number for number in self.on_the_way if self.marks[number] <= frame.sequence}
            self.on_the_way -= held
            self.acknowledged_marks |= held

    def write_record(self, item: e.Append) -> None:
        assert not needs_history(item.entry) or self.record.journal_layout == 2, "an earlier program would read it"
        super().write_record(item)

    def boot(self, trusted: int | None = None) -> None:
        super().boot(trusted)
        newest = sorted(self.acknowledged_marks)[-KEPT_MARKS:]
        held = self.brain.keeper.marks
        lost = [number for number in newest if number not in held.numbers and number > min(held.numbers, default=0)]
        assert not lost, f"marks {lost} were acknowledged, and {held.numbers} are held"
        places = {one.mark.number: one.mark.sequence for one in held._marks}
        assert all(self.marks[number] == at for number, at in places.items())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_after_a_crash_at_any_moment_every_mark_that_was_acknowledged_is_held_at_its_place(seed: int) -> None:
    world = MarkedWorld(seed)
    for _ in range(400):
        try:
            world.step()
            if world.rng.random() < 0.01:
                raise Crash
        except Crash:
            world.crash()


def test_the_world_sets_marks_that_are_acknowledged_and_empties_its_journal_for_earlier_programs() -> None:
    world = MarkedWorld(3)
    layouts = set()
    for _ in range(3000):
        try:
            world.step()
        except Crash:
            world.crash()
        layouts.add(world.record.journal_layout)
        if world.online and world.rng.random() < 0.005:
            world.drop()
            world.tell(e.Disconnected(world.connection, "link down"))
            world.full = False
            for _ in range(200):
                if world.brain.drained or world.restart is not None:
                    break
                for step in (world.applier_step if world.applier_items else world.tick,):
                    try:
                        step()
                    except Crash:
                        world.crash()
            layouts.add(world.record.journal_layout)
    assert len(world.acknowledged_marks) > KEPT_MARKS and layouts == {1, 2}

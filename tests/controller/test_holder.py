"""Holding the source: every request is answered in order, and what cannot be had is told once and done in another way."""

from __future__ import annotations

import logging
import queue
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.controller.primary import holder
from pydbt.controller.primary.block_reader import BlockReader
from pydbt.controller.primary.holder import Holder
from pydbt.core.blocks.runs import Runs
from pydbt.core.errors import UsageError
from pydbt.core.primary import events as ev
from pydbt.core.units import Geometry
from pydbt.device.block import DirectReader
from pydbt.device.commands import CommandFailed
from pydbt.device.holdable import Holdable
from pydbt.device.snapshot import Room
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import loop_device

MIB = 1 << 20


class Volume:
    """Gives another device as a snapshot, or the errors it was told to."""

    kind = "snapshot"

    def __init__(self, device: BlockDevice) -> None:
        self.device, self.refusal, self.trouble = device, "", ""
        self.standing = False

    def take(self) -> BlockDevice:
        if self.refusal:
            raise CommandFailed(self.refusal)
        self.standing = True
        return self.device

    def problem(self) -> str:
        assert self.standing
        return self.trouble

    def remove_leftover(self) -> bool:
        was, self.standing = self.standing, False
        return was


@pytest.fixture
def world(tmp_path, monkeypatch):
    with loop_device(tmp_path, MIB) as source, loop_device(tmp_path, MIB) as other:
        for device, letter in ((source, b"s"), (other, b"o")):
            device.path.write_bytes(letter * MIB)
            device.flush()
        device = BlockDevice.identify(source.path)
        said: queue.SimpleQueue[object] = queue.SimpleQueue()
        with DirectReader(device) as reader:
            blocks = BlockReader(reader, Geometry(MIB, 4096), lambda: 7, said.put)
            volume = Volume(BlockDevice.identify(other.path))
            monkeypatch.setattr(holder, "look", lambda device, room: Holdable((), volume))
            monkeypatch.setattr(holder, "problem_of", lambda volume: volume.problem())
            state = SimpleNamespace(uuid=SimpleNamespace(hex=f"test{device.minor}"))
            kept_still = Holder(device, state, Room(state.uuid.hex), blocks, lambda: 7, said.put)
            yield SimpleNamespace(holder=kept_still, blocks=blocks, said=said, volume=volume)
            kept_still.close()
            blocks.close()


def ask(world: SimpleNamespace, effect: ev.Effect) -> object:
    world.holder.ask(effect)
    return world.said.get(timeout=20)


def read(world: SimpleNamespace, reading: int, held: bool) -> object:
    world.blocks.submit(ev.ReadBlocks(reading, Runs(np.array([3]), np.array([1])), held))
    return world.said.get(timeout=20)


def test_reads_of_a_hold_come_from_the_snapshot_and_fail_when_it_is_gone(world):
    assert ask(world, ev.Flush()) == ev.Flushed("snapshot", apart=True)
    assert ask(world, ev.Hold(1, 5.0)) == ev.Held(1, "snapshot", 7, apart=True)
    assert read(world, 1, held=True).error == ""
    assert bytes(world.blocks.reading(1).data) == b"o" * 4096
    assert read(world, 2, held=False).error == ""
    assert bytes(world.blocks.reading(2).data) == b"s" * 4096
    released = ask(world, ev.Release(1))
    assert (released.hold, released.error) == (1, "")
    assert not world.volume.standing
    assert "is gone" in read(world, 3, held=True).error


def test_a_snapshot_that_became_invalid_is_reported_at_its_release_and_removed(world):
    ask(world, ev.Hold(1, 5.0))
    world.volume.trouble = "the snapshot became invalid"
    assert ask(world, ev.Release(1)).error == "the snapshot became invalid"
    assert not world.volume.standing


def test_a_snapshot_whose_state_cannot_be_read_is_not_trusted(world, monkeypatch):
    ask(world, ev.Hold(1, 5.0))

    def problem() -> str:
        raise CommandFailed("dmsetup failed")

    monkeypatch.setattr(world.volume, "problem", problem)
    assert ask(world, ev.Release(1)).error == "dmsetup failed"
    assert not world.volume.standing


def test_without_room_for_a_snapshot_it_is_held_in_another_way_and_told_once(world, caplog):
    world.volume.refusal = "lvcreate failed: insufficient free space"
    with caplog.at_level(logging.WARNING, "pydbt"):
        for hold in (1, 2):
            assert ask(world, ev.Hold(hold, 5.0)) == ev.Held(hold, "quiescent", 7)
            assert ask(world, ev.Release(hold)) == ev.Released(hold, 0.0)
    assert len(caplog.records) == 1
    assert "insufficient free space" in caplog.text
    assert not ask(world, ev.Flush()).apart, "little must be left before it is held"
    world.volume.refusal = ""
    assert ask(world, ev.Hold(3, 5.0)).apart
    ask(world, ev.Release(3))


def test_a_gentle_hold_takes_no_snapshot(world):
    assert ask(world, ev.Hold(1, 5.0, gently=True)) == ev.Held(1, "quiescent", 7)
    assert not world.volume.standing
    ask(world, ev.Release(1))


def test_a_source_that_may_not_be_held_is_an_error_in_the_answer_and_not_the_end(world, monkeypatch):
    def look(device: BlockDevice, room: Room) -> Holdable:
        raise UsageError("it is swap now")

    monkeypatch.setattr(holder, "look", look)
    assert ask(world, ev.Flush()) == ev.Flushed("", error="it is swap now")
    assert ask(world, ev.Hold(1, 5.0)).error == "it is swap now"
    assert ask(world, ev.Release(1)) == ev.Released(1, 0.0)


def test_a_snapshot_that_stands_at_the_end_is_removed(world):
    ask(world, ev.Hold(1, 5.0))
    world.holder.close()
    assert not world.volume.standing

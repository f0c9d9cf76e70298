"""The secondary's brain with a disk that loses any subset of what was not synced, killed at every kind of moment.

A whole primary is played: writes, a dirty map, resyncs by blocks and digests, the stream. After each crash the
replica recovers by itself and must be exactly the primary at the sequence it names, never behind what it acknowledged.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.apply_plan import ZEROS, plan, sources_of
from pydbt.core.blocks.runs import Runs
from pydbt.core.blocks.sector_table import ExtentKind, SectorTable
from pydbt.core.blocks.staged import StagedBlocks
from pydbt.core.protocol import frames as f
from pydbt.core.protocol.digests import UnitDigest
from pydbt.core.secondary import events as e
from pydbt.core.secondary import journal as j
from pydbt.core.secondary.brain import Secondary
from pydbt.core.secondary.config import SecondaryConfig
from pydbt.core.secondary.held_marks import HeldMarks
from pydbt.core.secondary.recovery import Recovery
from pydbt.core.secondary.replica import AppliedPoint, ReplicaRecord, ReplicaState
from pydbt.core.units import Geometry

SECTORS = 12
SIZE = SECTORS * 512
SEGMENT = 16 * 1024
VOLUME = "ab" * 16
GEOMETRY = Geometry(SIZE, 512)


def content(value: int) -> bytes:
    """A sector that tells its value; 0 reads as zeros."""
    return value.to_bytes(8, "little") + bytes([value % 251] * 504) if value else bytes(512)


class FakeDisk:
    """Writes reach the medium at a sync; at a crash each unsynced piece does or does not, one by one."""

    def __init__(self, piece_bytes: int) -> None:
        self.piece = piece_bytes
        self.medium: dict[int, bytes] = {}
        self.cache: dict[int, list[bytes]] = {}

    def write(self, offset: int, data: bytes) -> None:
        assert offset % self.piece == 0
        for begin in range(0, len(data), self.piece):
            chunk = bytes(data[begin : begin + self.piece]).ljust(self.piece, b"\0")
            self.cache.setdefault((offset + begin) // self.piece, []).append(chunk)

    def read(self, offset: int, length: int) -> bytes:
        pieces = range(offset // self.piece, -(-(offset + length) // self.piece))
        whole = b"".join(self.cache.get(i, [self.medium.get(i, bytes(self.piece))])[-1] for i in pieces)
        return whole[offset % self.piece :][:length]

    def sync(self) -> None:
        for index, versions in self.cache.items():
            self.medium[index] = versions[-1]
        self.cache.clear()

    def crash(self, rng: random.Random) -> None:
        for index, versions in self.cache.items():
            self.medium[index] = rng.choice([self.medium.get(index, bytes(self.piece)), *versions])
        self.cache.clear()


class World:
    """Brain, fake workers and a primary, stepped in an order that a seed decides."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.target, self.log = FakeDisk(512), FakeDisk(64)
        self.record = ReplicaRecord(replica="cd" * 16, target="t", segment_bytes=SEGMENT, fresh=True)
        self.kept_marks = HeldMarks()
        self.now = 0.0
        self.epoch = 1
        self.sequence = 0
        self.history: dict[int, list[int]] = {0: [0] * SECTORS}
        self.dirty = set(range(SECTORS))
        self.acknowledged = self.progress = 0
        self.resync = 0
        self.connection = 0
        self.online = False
        self.full = False
        self.boot()

    # --- the secondary's shell ----------------------------------------------------------------------------
    def boot(self, trusted: int | None = None) -> None:
        """What the engine does: read the journal, raise the incarnation, begin."""
        recovery, staged = self.recover(trusted)
        if self.record.consistent and not recovery.whole:
            raise AssertionError("the journal lost what the image needs")
        self.record = replace(self.record, incarnation=self.record.incarnation + 1)
        self.tail = self.durable = recovery.tail
        self.incarnation = self.record.incarnation
        self.cut(self.tail)
        config = SecondaryConfig(SIZE, stage=True, checkpoint_bytes=4096, sync_bytes=2048, stage_margin_bytes=0)
        self.brain = Secondary(config, self.record, recovery, staged, self.now)
        self.journal_items: deque = deque()
        self.applier_items: deque = deque()
        self.point = self.brain.keeper.applied_to
        self.in_stage = self.point.position < max(self.record.must_reach, recovery.committed_at)
        self.refusing = False
        self.limit = self.point.position
        self.online = False
        self.restart = None
        self.tell(e.Tick())

    def recover(self, trusted: int | None) -> tuple[Recovery, StagedBlocks]:
        recovery, staged = Recovery(self.record, self.kept_marks), StagedBlocks()
        position, lowest = self.record.checkpoint, 0
        while trusted is None or position < trusted:
            room = SEGMENT - position % SEGMENT
            header = j.decode_record_header(
                self.log.read(position, 64), position, room, (lowest, self.record.incarnation)
            )
            if header is None:
                break
            body = memoryview(self.log.read(position + 64, header.length))
            if not j.record_is_whole(header, body):
                break
            recovery.add(header, j.record_epoch(header, body), j.record_mark(header, body))
            if header.kind is j.JournalRecordKind.COMMIT:
                staged.clear()
            elif recovery.stage_from is not None and header.kind in (
                j.JournalRecordKind.STREAM,
                j.JournalRecordKind.BLOCKS,
            ):
                staged.add(j.record_extents(header, body)[0], GEOMETRY)
            position, lowest = header.end, header.incarnation
        return recovery, staged

    def tell(self, event: e.Event) -> None:
        if isinstance(event, e.FrameReceived) and isinstance(event.frame, f.Begin):
            self.carry_out(self.brain.handle(e.RoomMeasured(self.rng.choice([0, 1 << 30])), self.now))
        self.carry_out(self.brain.handle(event, self.now))

    def carry_out(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            match effect:
                case e.Append() | e.Resume():
                    self.journal_items.append(effect)
                case e.Apply() | e.Write() | e.Sync() | e.Compare() | e.SetApplied():
                    self.applier_items.append(effect)
                case e.Persist(record):
                    self.record = record
                case e.KeepMarks(marks):
                    self.kept_marks = marks
                case e.Send(connection, frame) if connection == self.connection and self.online:
                    self.heard(frame)
                case e.CloseConnection(connection) if connection == self.connection:
                    self.drop()
                case e.Restart():
                    self.restart = effect

    def journal_step(self) -> None:
        """A group commit of a random part of the queue, which a crash may cut in two."""
        count = self.rng.randint(1, len(self.journal_items))
        tickets, ends = [], []
        for _ in range(count):
            item = self.journal_items.popleft()
            if isinstance(item, e.Resume):
                self.finish_group(tickets, ends)
                tickets, ends = [], []
                self.tail, self.incarnation, self.refusing = self.durable, item.incarnation, False
                self.cut(self.tail)
                continue
            if self.refusing:
                continue
            if self.full:
                self.finish_group(tickets, ends)
                tickets, ends = [], []
                self.refusing = True
                if self.rng.random() < 0.5:  # it got as far as the file before there was no room
                    self.write_record(item)
                self.cut(self.durable)
                self.tell(e.JournalRefused(item.ticket, self.durable, True, "no room"))
                continue
            self.write_record(item)
            tickets.append(item.ticket)
            ends.append(self.tail)
        if self.rng.random() < 0.05:
            raise Crash
        self.finish_group(tickets, ends)

    def write_record(self, item: e.Append) -> None:
        size = j.entry_bytes(item.entry)
        room = SEGMENT - self.tail % SEGMENT
        if size > room:
            self.log.write(self.tail, j.encode_pad(self.tail, room, self.incarnation))
            self.tail += room
        self.log.write(self.tail, b"".join(map(bytes, j.encode_record(item.entry, self.tail, self.incarnation))))
        self.tail += size

    def cut(self, position: int) -> None:
        """What JournalFiles does: nothing is ever found where the journal ended."""
        self.log.write(position, bytes(64))
        self.log.sync()

    def finish_group(self, tickets: list[int], ends: list[int]) -> None:
        if tickets:
            self.log.sync()
            self.durable = ends[-1]
            self.tell(e.JournalDurable(tuple(tickets), tuple(ends)))

    def applier_step(self) -> None:
        item = self.applier_items.popleft()
        match item:
            case e.Apply(limit):
                self.apply(limit)
            case e.Write(ticket, frame):
                self.write(frame.extents, sources_of(frame.extents, 0), b"".join(map(bytes, frame.payload)))
                self.tell(e.Written(ticket))
            case e.Sync(ticket):
                if self.rng.random() < 0.02:
                    self.target.crash(self.rng)  # a failed sync: pages are clean, and on the disk or not
                    self.applier_items.clear()
                    self.tell(e.TargetFailed("input/output error"))
                    return
                self.target.sync()
                self.tell(e.Synced(ticket, self.point))
            case e.Compare(ticket, frame, _, digest):
                self.target.sync()
                blocks = frame.units.blocks()
                ours = [digest.of(self.target.read(b * 512, 512)) for b in blocks.tolist()]
                theirs = [bytes(frame.digests[i * 16 : i * 16 + 16]) for i in range(len(blocks))]
                differ = [b for b, x, y in zip(blocks.tolist(), ours, theirs, strict=True) if x != y]
                self.tell(e.Compared(ticket, np.array(differ, dtype=np.int64)))
            case e.SetApplied(point):
                self.point, self.in_stage = point, False

    def apply(self, limit: int) -> None:
        while self.point.position < limit:
            position = self.point.position
            header = j.decode_record_header(self.log.read(position, 64), position, None, (0, 1 << 62))
            assert header is not None, "what is applied is whole"
            epoch, sequence = self.point.epoch, self.point.sequence
            if header.kind is not j.JournalRecordKind.PAD:
                body = memoryview(self.log.read(position + 64, header.length))
                assert j.record_is_whole(header, body)
                if header.kind in (j.JournalRecordKind.STREAM, j.JournalRecordKind.BLOCKS):
                    extents, payload = j.record_extents(header, body)
                    self.write(extents, sources_of(extents, 0), payload)
                if header.kind is j.JournalRecordKind.BEGIN:
                    self.in_stage = True
                elif header.kind is j.JournalRecordKind.COMMIT:
                    self.in_stage, epoch, sequence = False, j.record_epoch(header, body), header.last
                elif header.kind in (j.JournalRecordKind.STREAM, j.JournalRecordKind.MARK) and not self.in_stage:
                    sequence = header.last
            self.point = AppliedPoint(header.end, epoch, sequence)
            if self.rng.random() < 0.02:
                raise Crash
        self.tell(e.Applied(self.point))

    def write(self, extents: SectorTable, sources: np.ndarray, payload: bytes) -> None:
        for runs in plan(extents, sources):
            for sector, count, source in zip(runs.sectors, runs.lengths_sectors, runs.sources, strict=True):
                data = bytes(count * 512) if source == ZEROS else payload[source : source + count * 512]
                self.target.write(int(sector) * 512, data)

    # --- the primary --------------------------------------------------------------------------------------
    def connect(self) -> None:
        self.connection += 1
        self.online, self.mode, self.begun, self.keeping = True, "hello", False, False
        self.batches: dict[int, dict[int, int]] = {}
        self.digests: dict[int, dict[int, int]] = {}
        self.batch = 0
        self.unacknowledged: deque[tuple[int, int]] = deque()
        self.kept: list[tuple[int, int, int]] = []
        self.tell(
            e.Connected(
                self.connection,
                f.Hello(VOLUME, SIZE, 512, self.epoch, features=(f.PROGRESS, f.KEYED_DIGESTS)),
                bytes(32),
            )
        )

    def drop(self) -> None:
        """The connection is gone: what was not acknowledged is out of sync."""
        if self.online:
            self.online = False
            self.dirty |= {sector for _, sector in self.unacknowledged}
            self.dirty |= {sector for _, sector, _ in self.kept}
            for batch in (*self.batches.values(), *self.digests.values()):
                self.dirty |= set(batch)

    def heard(self, frame: f.Frame) -> None:
        match frame:
            case f.Welcome(volume=volume, sequence=sequence, progress=progress):
                assert progress >= self.progress, "it counts anew what it had acknowledged"
                self.progress = progress
                if volume is None:
                    self.dirty = set(range(SECTORS))
                else:
                    assert sequence >= self.acknowledged, "it forgot how far it was"
                self.mode = "resync"
            case f.Ack(sequence=sequence, batch=batch, resync_committed=committed, progress=progress):
                assert progress >= self.progress
                self.progress = progress
                for number in [number for number in self.batches if number <= batch]:
                    del self.batches[number]
                if self.mode == "committing" and committed == self.resync:
                    self.mode = "normal"
                    self.acknowledged = max(self.acknowledged, sequence)
                if self.mode == "normal":
                    assert sequence <= self.sequence
                    self.acknowledged = max(self.acknowledged, sequence)
                    while self.unacknowledged and self.unacknowledged[0][0] <= sequence:
                        self.unacknowledged.popleft()
            case f.Want(batch=batch, units=units):
                self.dirty |= set(units.blocks().tolist()) & set(self.digests.pop(batch))
            case f.Refuse():
                self.drop()

    def primary_write(self) -> None:
        self.sequence += 1
        sector = self.rng.randrange(SECTORS)
        value = self.rng.choice([0, self.sequence])
        state = list(self.history[self.sequence - 1])
        state[sector] = value
        self.history[self.sequence] = state
        if not self.online or not self.keeping:
            self.dirty.add(sector)
        else:
            self.kept.append((self.sequence, sector, value))

    def send_stream(self) -> None:
        if not self.kept:
            return
        taken, self.kept = self.kept, []
        first = taken[0][0]
        kinds = [ExtentKind.DATA if value else ExtentKind.ZERO for _, _, value in taken]
        table = SectorTable.of([s for _, s, _ in taken], [1] * len(taken), kinds, [n - first for n, _, _ in taken])
        payload = b"".join(content(value) for _, _, value in taken if value)
        self.unacknowledged += [(number, sector) for number, sector, _ in taken]
        self.send(f.Stream(first, taken[-1][0], table, (payload,) if payload else ()))

    def send(self, frame: f.Frame) -> None:
        self.tell(e.FrameReceived(self.connection, frame))

    def primary_step(self) -> None:
        if not self.online:
            if self.rng.random() < 0.3:
                self.epoch += self.rng.random() < 0.1
                self.connect()
            return
        match self.mode:
            case "hello":
                return
            case "resync":
                self.resync_step()
            case "normal" if self.rng.random() < 0.03:
                # Its log is full, say: what is not acknowledged is swept, on the same connection.
                self.dirty |= {sector for _, sector in self.unacknowledged} | {sector for _, sector, _ in self.kept}
                self.unacknowledged.clear()
                self.kept, self.mode, self.begun, self.keeping = [], "resync", False, False
                self.resync_step()
            case "normal":
                self.send_stream()

    def resync_step(self) -> None:
        if not self.begun:
            self.resync, self.begun = self.resync + 1, True
            self.send(f.Begin(self.resync, self.epoch, len(self.dirty) * 512))
            return
        if not self.keeping and self.rng.random() < 0.3:
            self.keeping = True  # S0: from here on the stream is kept, and what is dirty by now is swept once more
        if self.dirty:
            sectors = self.rng.sample(sorted(self.dirty), self.rng.randint(1, len(self.dirty)))
            self.dirty -= set(sectors)
            values = {sector: self.history[self.sequence][sector] for sector in sorted(sectors)}
            self.batch += 1
            table = SectorTable.of(list(values), [1] * len(values))
            if self.rng.random() < 0.4:
                digests = b"".join(map(UnitDigest(bytes(32)).of, map(content, values.values())))
                self.digests[self.batch] = values
                self.send(f.Digests(self.batch, Runs.of_blocks(np.array(list(values))), digests, unit_bytes=512))
            else:
                self.batches[self.batch] = values
                self.send(f.Blocks(self.batch, table, (b"".join(map(content, values.values())),)))
        elif self.keeping and not self.digests:
            self.send_stream()
            if self.online:
                self.mode = "committing"
                self.send(f.Commit(self.resync, self.sequence))

    # --- steps and checks ---------------------------------------------------------------------------------
    def step(self) -> None:
        choices = [self.primary_step, self.primary_write, self.tick]
        choices += [self.journal_step] * 2 if self.journal_items else []
        choices += [self.applier_step] * 2 if self.applier_items else []
        self.rng.choice(choices)()
        if self.rng.random() < 0.02:
            self.full = not self.full
        if self.restart is not None:
            trusted = self.restart.trusted
            self.drop()
            self.boot(trusted)
        elif self.online and self.rng.random() < 0.01:
            self.drop()
            self.tell(e.Disconnected(self.connection, "link down"))

    def tick(self) -> None:
        self.now += 1.0
        self.tell(e.Tick())

    def crash(self) -> None:
        self.target.crash(self.rng)
        self.log.crash(self.rng)
        self.drop()
        self.boot()
        self.check()

    def check(self) -> None:
        """Recover a copy of the disks to the end, with nobody connected, and look at the image."""
        copy = World.__new__(World)
        copy.__dict__.update(self.__dict__)
        copy.target, copy.log = FakeDisk(512), FakeDisk(64)
        copy.target.medium, copy.log.medium = dict(self.target.medium), dict(self.log.medium)
        copy.rng = random.Random(1)
        copy.rng.random = lambda: 0.5
        copy.boot()
        copy.drain()
        keeper = copy.brain.keeper
        if not copy.record.consistent:
            return
        image = [int.from_bytes(copy.target.read(s * 512, 8), "little") for s in range(SECTORS)]
        assert image == self.history[keeper.sequence], f"the image is not the primary at {keeper.sequence}"
        assert keeper.sequence >= self.acknowledged, "an acknowledged update is lost"
        if keeper.stage_from is not None:
            assert copy.brain.replica_state is ReplicaState.OUTDATED

    def drain(self) -> None:
        for _ in range(10_000):
            if self.applier_items:
                self.applier_step()
            elif self.journal_items:
                self.journal_step()
            elif self.brain.drained:
                return
            else:
                self.tick()
        raise AssertionError("the replica never came to rest")


class Crash(Exception):
    """The machine stops in the middle of something."""


def play(seed: int, steps: int) -> World:
    world = World(seed)
    for _ in range(steps):
        try:
            world.step()
            if world.rng.random() < 0.01:
                raise Crash
        except Crash:
            world.crash()
    return world


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_after_a_crash_at_any_moment_the_image_is_a_moment_of_the_primary_not_before_what_was_acknowledged(seed):
    play(seed, 400)


@pytest.mark.parametrize("seed", range(20))
def test_when_nothing_fails_any_more_the_replica_becomes_the_primary(seed):
    world = play(seed, 300)
    world.full = False
    world.rng.random = itertools.cycle((0.25, 0.5, 0.75)).__next__  # no more crashes, failures or lost links
    for _ in range(3000):
        if not world.online:
            world.connect()
        if world.mode == "normal" and not world.kept and not world.unacknowledged and world.brain.drained:
            break
        for step in (world.applier_step if world.applier_items else None,
                     world.journal_step if world.journal_items else None, world.primary_step, world.tick):  # fmt: skip
            if step is not None and (step == world.tick or world.online):
                step()
        if world.restart is not None:
            world.drop()
            world.boot(world.restart.trusted)
    assert world.brain.replica_state is ReplicaState.UP_TO_DATE
    image = [int.from_bytes(world.target.read(s * 512, 8), "little") for s in range(SECTORS)]
    assert image == world.history[world.sequence]

"""A simulated machine and network around the real brains: everything that happens comes from one seed.

Blocks hold numbers instead of bytes. The kernel front end has the real one's semantics: bits at submission
and at completion, two bitmaps that flip, one ordered ring that can overflow, payload that may be switched.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary import events as ev
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import Begin, Commit, Ping
from pydbt.core.tracking.capture_record import RECORD, RecordFlag, RecordKind
from pydbt.core.units import Geometry

SECTORS = 8


@dataclass(frozen=True)
class Faults:
    """Probabilities of one step, and sizes; all zero is a perfect world."""

    overlap: float = 0.0
    unstable: float = 0.0
    failed: float = 0.0
    unseen: float = 0.0  # a completion that the kernel never shows
    cut: float = 0.0
    freeze: float = 0.0
    ring_records: int = 10_000
    read_error: float = 0.0
    delay: float = 0.01


class Kernel:
    """The capture front end and the disk behind it."""

    def __init__(self, blocks: int, faults: Faults, rng: random.Random) -> None:
        self.rng, self.faults, self.blocks = rng, faults, blocks
        self.disk = [0] * blocks
        self.maps = [np.zeros(blocks, bool), np.zeros(blocks, bool)]
        self.active = 0
        self.payload_on = False
        self.ring: list[tuple] = []
        self.produced = self.consumed = self.lost = 0
        self.payload: dict[int, int] = {}
        self.flying: dict[int, tuple[int, int]] = {}
        self.next_id = 1
        self.history: dict[int, int] = {}

    def _emit(self, kind: int, block: int, flags: int, data: int, value: int) -> None:
        if self.produced - self.consumed >= self.faults.ring_records:
            self.lost += 1
            return
        self.ring.append((kind, block, flags, data, value))
        self.produced += 1

    def submit(self, block: int) -> int | None:
        """A write of one block; None when it would overlap one in flight and the world doesn't do that."""
        busy = any(other == block for other, _ in self.flying.values())
        if busy and self.rng.random() >= self.faults.overlap:
            return None
        identifier = self.next_id
        self.next_id += 1
        self.maps[self.active][block] = True
        self.flying[identifier] = (block, identifier)
        flags, data = 0, 0
        if self.payload_on:
            data = identifier
        self._emit(RecordKind.SUBMIT, block, flags, data, identifier)
        return identifier

    def complete(self, identifier: int) -> None:
        block, value = self.flying.pop(identifier)
        flags = 0
        if self.rng.random() < self.faults.failed:
            flags |= RecordFlag.ERROR
            if self.rng.random() < 0.5:
                self.disk[block] = value
        elif self.rng.random() < self.faults.unstable:
            flags |= RecordFlag.UNSTABLE
            self.disk[block] = value if self.rng.random() < 0.5 else -value
        else:
            self.disk[block] = value
        if self.rng.random() < self.faults.unseen:
            return
        self.maps[self.active][block] = True
        self._emit(RecordKind.COMPLETE, block, flags, 0, 0)

    def drain(self, limit: int = 1000) -> np.ndarray:
        taken, self.ring = self.ring[:limit], self.ring[limit:]
        self.consumed += len(taken)
        records = np.zeros(len(taken), dtype=RECORD)
        for row, (kind, block, flags, data, value) in zip(records, taken, strict=True):
            row["kind"], row["sector"], row["sectors"], row["op"] = kind, block * SECTORS, SECTORS, 1
            row["flags"], row["data"], row["pieces"], row["ordinal"] = flags, data, int(data != 0), value
        return records

    def words(self) -> np.ndarray:
        bits = np.packbits(self.maps[1 - self.active], bitorder="little")
        return np.frombuffer(bits.tobytes() + bytes(-len(bits) % 8), dtype="<u8")

    def dirty(self) -> set[int]:
        return set(np.flatnonzero(self.maps[0] | self.maps[1]).tolist())


@dataclass
class ModelSecondary:
    """Applies what arrives in order; everything is durable at once. ``content`` is what it would boot from."""

    content: list[int]
    state: str = "inconsistent"
    sequence: int = 0
    epoch: int = 0
    resync: int = 0
    expected: int | None = None
    committed: int = 0
    batch: int = 0
    fresh: bool = True


@dataclass(order=True)
class Timed:
    when: float
    order: int
    action: object = field(compare=False)


class Cluster:
    """One primary brain, one model secondary, a link that delays and is cut."""

    def __init__(self, seed: int, faults: Faults, blocks: int = 64, digests: bool = True) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.now = 0.0
        self.kernel = Kernel(blocks, faults, self.rng)
        self.geometry = Geometry(blocks * 4096, 4096)
        self.brain = Primary(PrimaryConfig(self.geometry, epoch=7, log_slots=64, digests=digests), 0.0)
        self.secondary = ModelSecondary([0] * blocks)
        self.readings: dict[int, dict[int, int]] = {}
        self.heap: list[Timed] = []
        self.order = 0
        self.up = False
        self.connection = 0
        self.to_secondary_at = self.to_primary_at = 0.0
        self.frozen_until = 0.0
        self.persisted: set[int] = set()
        self.left_out_on_disk: set[int] = set()
        self.answered: set[int] = set()
        self.in_vain: set[int] = set()  # waits that cannot be answered well
        self.captured: dict[int, tuple[int, int]] = {}
        self.odd: set[int] = set()
        self.compares = True  # the secondary told a key for digests
        self.corrupted: set[int] = set()  # on the secondary, behind everybody's back: nobody can know
        self.dropped: set[int] = set()
        self.verified: list[ev.VerifyEnded] = []
        self.log: list[str] = []
        self.modes: set[Mode] = set()
        for block in range(blocks // 2):
            self.kernel.disk[block] = -1000 - block

    # --- time ---------------------------------------------------------------------------------------------
    def at(self, delay: float, action) -> None:
        self.at_time(self.now + delay, action)

    def at_time(self, when: float, action) -> None:
        self.order += 1
        heapq.heappush(self.heap, Timed(when, self.order, action))

    def step(self, seconds: float) -> None:
        """Run everything due within the next ``seconds``, then look at the ring as the loop does."""
        until = self.now + seconds
        while self.heap and self.heap[0].when <= until:
            item = heapq.heappop(self.heap)
            self.now = max(self.now, item.when)
            item.action()
        self.now = until
        self.pump()

    def pump(self) -> None:
        records = self.kernel.drain()
        self.feed(ev.Captured(records, self.kernel.consumed, self.kernel.lost))
        if not self.kernel.flying:
            self.feed(ev.DiskQuiet(self.kernel.produced))
        self.feed(ev.Tick())

    def feed(self, event) -> None:
        pending = [event]
        while pending:
            event = pending.pop(0)
            before = self.brain.state.sequence
            if isinstance(event, ev.Captured):
                self.note_captured(event.records, before)
            answers: list = []
            for effect in self.brain.handle(event, self.now):
                self.carry_out(effect, answers)
            self.modes.add(self.brain.mode)
            pending = answers + pending
            self.check(quiet=not pending)

    def note_captured(self, records: np.ndarray, sequence: int) -> None:
        for row in records:
            if row["kind"] == RecordKind.SUBMIT:
                sequence += 1
                self.captured[sequence] = (int(row["sector"]) // SECTORS, int(row["ordinal"]))

    # --- effects ------------------------------------------------------------------------------------------
    def carry_out(self, effect, answers: list) -> None:
        kernel = self.kernel
        match effect:
            case ev.WriteDown(number=number):
                answers.append(ev.WrittenDown(number))
            case ev.Log(level=level, message=message):
                self.log.append(f"{self.now:.3f} {level} {message}")
            case ev.SetPayload(on=on):
                kernel.payload_on = on
                if on:
                    self.catch_up(answers)
                    answers.append(ev.PayloadArmed(kernel.consumed))
            case ev.TakeQuiet(flip=flip):
                if flip:
                    assert not kernel.maps[1 - kernel.active].any(), "flipped onto a map that still held bits"
                    kernel.active = 1 - kernel.active
                self.catch_up(answers)
                answers.append(ev.QuietTaken(kernel.words(), kernel.consumed, flip))
            case ev.ZeroQuiet():
                kernel.maps[1 - kernel.active][:] = False
            case ev.Persist(zero_quiet=zero, number=number):
                self.persisted = set(self.brain.unsynchronized_map().extents().blocks().tolist())
                self.keep_left_out()
                if zero:
                    kernel.maps[1 - kernel.active][:] = False
                answers.append(ev.Persisted(zeroed=zero, number=number))
            case ev.KeepLeftOut():
                self.keep_left_out()
                answers.append(ev.LeftOutKept())
            case ev.ScanUsed():
                half = Runs(np.array([0]), np.array([kernel.blocks // 2]))
                answers.append(ev.UsedBlocks(half, "half of the blocks are in use"))
            case ev.ReadBlocks(reading=reading, runs=runs):
                self.at(self.rng.random() * 0.02, lambda: self.read(reading, runs))
            case ev.DropReading(reading=reading):
                self.readings.pop(reading, None)
                self.dropped.add(reading)
            case ev.Connect():
                self.connection += 1
                number = self.connection
                self.at(self.rng.random() * self.faults.delay, lambda: self.connected(number))
            case ev.CloseConnection():
                self.cut()
            case ev.AnswerWait(token=token, lacks=lacks):
                (self.in_vain if lacks else self.answered).add(token)
            case ev.VerifyEnded():
                self.verified.append(effect)
            case ev.SendStream() | ev.SendFrame() | ev.SendDigests() | ev.SendBlocks() | ev.SendSettled():
                self.transmit(self.message(effect))

    def keep_left_out(self) -> None:
        self.left_out_on_disk = set(self.brain.state.left_out.blocks.extents().blocks().tolist())

    def catch_up(self, answers: list) -> None:
        while self.kernel.ring:
            answers.append(ev.Captured(self.kernel.drain(), self.kernel.consumed, self.kernel.lost))

    def read(self, reading: int, runs: Runs) -> None:
        if reading in self.dropped:
            return
        if self.rng.random() < self.faults.read_error:
            self.feed(ev.BlocksRead(reading, self.kernel.produced, 0, error="simulated read error"))
            return
        blocks = runs.blocks().tolist()
        self.readings[reading] = {block: self.kernel.disk[block] for block in blocks}
        self.feed(ev.BlocksRead(reading, self.kernel.produced, len(blocks) * 4096))

    def message(self, effect) -> tuple:
        match effect:
            case ev.SendFrame(frame=frame):
                return ("frame", frame)
            case ev.SendStream(records=records, last_sequences=last, first_sequence=first):
                assert (records["data"] != 0).all(), "a write was streamed without its data"
                rows = [(int(r["sector"]) // SECTORS, int(r["data"])) for r in records]
                return ("stream", first, int(last[-1]), rows)
            case ev.SendDigests(reading=reading, batch=batch, unit_bytes=4096):
                return ("digests", batch, dict(self.readings[reading]))
            case ev.SendBlocks(reading=reading, batch=batch, wanted=wanted):
                content = self.readings.pop(reading)
                if wanted is not None:
                    keep = set(wanted.blocks().tolist())
                    content = {block: value for block, value in content.items() if block in keep}
                return ("blocks", batch, content)
            case ev.SendSettled(reading=reading, sequence=sequence, runs=runs):
                content = self.readings.pop(reading)
                return ("stream", sequence, sequence, [(b, content[b]) for b in runs.blocks().tolist()])
        raise AssertionError(effect)

    # --- network and secondary ----------------------------------------------------------------------------
    def connected(self, number: int) -> None:
        if number != self.connection:
            return
        if self.frozen_until > self.now:
            self.feed(ev.Disconnected("no answer"))
            return
        self.up = True
        self.to_secondary_at = self.to_primary_at = self.now
        s = self.secondary
        s.batch = s.committed = 0
        self.feed(ev.Connected("replica", s.state, s.epoch, s.sequence, False, s.fresh, compares=self.compares))

    def cut(self) -> None:
        self.up = False
        self.connection += 1

    def lose(self) -> None:
        """The network drops everything; both sides notice."""
        if self.up:
            self.cut()
            self.feed(ev.Disconnected("simulated cut"))

    def transmit(self, message: tuple) -> None:
        number = self.connection
        self.to_secondary_at = max(self.to_secondary_at, self.now) + self.rng.random() * self.faults.delay
        self.at_time(self.to_secondary_at, lambda: self.arrive(number, message))

    def arrive(self, number: int, message: tuple) -> None:
        if number != self.connection:
            return
        if self.frozen_until > self.now:
            self.at_time(self.frozen_until, lambda: self.arrive(number, message))
            return
        answer = self.secondary_takes(message)
        if answer is not None:
            self.to_primary_at = max(self.to_primary_at, self.now) + self.rng.random() * self.faults.delay
            self.at_time(self.to_primary_at, lambda: self.answer(number, answer))

    def answer(self, number: int, frame) -> None:
        if number == self.connection:
            self.feed(ev.Received(frame))

    def secondary_takes(self, message: tuple):
        from pydbt.core.blocks.runs import Runs
        from pydbt.core.protocol.frames import Ack, Pong, Want

        s = self.secondary
        match message:
            case ("frame", Begin() as begin):
                s.resync, s.expected, s.fresh = begin.resync, None, False
                if begin.epoch != s.epoch:
                    s.epoch, s.sequence = begin.epoch, 0
                s.state = "inconsistent"
                return None
            case ("frame", Commit(resync=resync, sequence=sequence)):
                assert resync == s.resync
                s.state, s.sequence, s.committed = "consistent", sequence, resync
                self.check_prefix()
            case ("frame", Ping(token=token)):
                return Pong(token=token)
            case ("frame", _):
                return None
            case ("stream", first, last, rows):
                assert s.expected in (None, first), f"stream jumps from {s.expected} to {first}"
                for block, value in rows:
                    s.content[block] = value
                s.expected, s.sequence = last + 1, last
                if s.state == "consistent":
                    self.check_prefix()
            case ("blocks", number, content):
                assert s.state == "inconsistent"
                for block, value in content.items():
                    s.content[block] = value
                s.batch = number
            case ("digests", number, content):
                differing = np.array(sorted(b for b, v in content.items() if s.content[b] != v), dtype=np.int64)
                return Want(number, Runs.of_blocks(differing))
        states = {"inconsistent": 0, "consistent": 2}
        return Ack(sequence=s.sequence, batch=s.batch, resync_committed=s.committed, replica_state=states[s.state])

    # --- checkers -----------------------------------------------------------------------------------------
    def check(self, quiet: bool) -> None:
        """differs ⊆ out of sync, at every step; and the part only this process knows is covered for a crash."""
        brain, kernel = self.brain, self.kernel
        verification = brain.verifier.progress()
        if verification is not None:
            assert verification.done_bytes <= verification.total_bytes, verification
        if not brain.state.replica.scanned:
            return
        mine = set(brain.unsynchronized_map().extents().blocks().tolist())
        mine |= set(brain.state.tracker.dirty.extents().blocks().tolist())
        flying = {block for block, _ in kernel.flying.values()}
        differs = {b for b in range(kernel.blocks) if kernel.disk[b] != self.secondary.content[b]} - self.corrupted
        unshown = set(brain.state.in_flight.extents().blocks().tolist())
        missing = differs - mine - kernel.dirty() - flying - unshown
        assert not missing, f"blocks {missing} differ and nobody knows, at {self.now:.3f} in {brain.mode}"
        crash = differs - kernel.dirty() - self.persisted - flying - unshown
        assert not crash or not self.was_normal, f"blocks {crash} would be lost by a crash, in {brain.mode}"
        if quiet and brain.mode is Mode.NORMAL and not mine and not kernel.ring and not flying and not unshown:
            assert not differs, f"normal, nothing under way, and {differs} differ"

    @property
    def was_normal(self) -> bool:
        """Once in sync, a crash of the controller may cost nothing (before, the blocks in use are scanned anew)."""
        return Mode.NORMAL in self.modes

    def check_prefix(self) -> None:
        """A replica that calls itself consistent is the captured history up to its sequence number."""
        s = self.secondary
        last: dict[int, int] = {}
        for sequence in range(1, s.sequence + 1):
            if sequence in self.captured:
                block, value = self.captured[sequence]
                last[block] = value
        for block, value in last.items():
            right = abs(s.content[block]) == value or block in self.odd
            assert right, f"block {block} at {s.sequence}: {s.content[block]} != {value}"

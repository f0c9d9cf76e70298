"""The kernel of the primary: its disk, writes in flight, and the capture programs with their bitmaps and rings.

Bits at submission and at completion, two bitmaps that flip, one ordered ring with limited room, payload in a ring of
its own. Writes go on while the controller does something else: every call of it lets some happen (`breathe`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from pydbt.core.tracking.capture_record import RECORD, Operation, RecordFlag, RecordKind
from pydbt.core.units import Geometry
from tests.simulation.cluster.disk import SECTOR, Lossy, Machine

RECORD_BYTES = 64


@dataclass(slots=True)
class Write:
    """A write request. ``order`` counts submissions from 1; content of both kinds is one tag a sector."""

    order: int
    sector: int
    sectors: int
    op: int
    tag: bytes  # 8 bytes that each of its sectors repeats; zeros for the ops that zero
    landing: bytes  # what reaches the disk; another tag where the page changed under way
    ended: bool = False
    failed: bool = False
    ended_at_order: int | None = None  # how many writes had been submitted when it ended
    ended_as: int | None = None  # counts the writes that have ended, in the order in which they did

    def content(self, landed: bool = False) -> bytes:
        return (self.landing if landed else self.tag) * (SECTOR // 8 * self.sectors)


class Era:
    """What may be on a disk between two losses of power: where it began, and every write since."""

    def __init__(self, base: bytes, sectors: int) -> None:
        self.base = base
        self.by_sector: list[list[Write]] = [[] for _ in range(sectors)]
        self.by_order: dict[int, Write] = {}

    def add(self, write: Write) -> None:
        self.by_order[write.order] = write
        for sector in range(write.sector, write.sector + write.sectors):
            self.by_sector[sector].append(write)

    def legal(self, sector: int, least: int, most: int, ended: int | None = None) -> set[bytes]:
        """Tags that this sector may have once ``least`` writes are in it, and none after ``most``.

        ``ended``: only those among the first ``ended`` that completed have to be in it. Two writes in flight at once may
        end either way; one that failed may have been written or not.
        """
        writes = self.by_sector[sector]
        must = [w.order for w in writes if w.order <= least and not w.failed]
        if ended is not None:
            must = [w.order for w in writes if w.order in must and w.ended_as is not None and w.ended_as <= ended]
        newest = max(must, default=0)
        tags: set[bytes] = set() if newest else {self.base[sector * SECTOR : sector * SECTOR + 8]}
        for w in writes:
            if w.order > most:
                break
            if w.order >= newest or w.ended_at_order is None or w.ended_at_order >= newest:
                tags.add(w.tag)
                tags.add(w.landing)
        return tags


@dataclass
class Odds:
    """Probabilities of what a write meets."""

    overlap: float = 0.0
    failed: float = 0.0
    unstable: float = 0.0
    unseen: float = 0.0
    zeroes: float = 0.05
    slow: float = 0.05  # stays in flight for seconds
    breath: float = 0.1  # something is written while the controller is at work


class Kernel:
    """State that outlives every controller, until the power fails."""

    def __init__(self, geometry: Geometry, odds: Odds, rng: random.Random, ring_records: int, data_bytes: int) -> None:
        self.geometry, self.odds, self.rng = geometry, odds, rng
        self.disk = Lossy(geometry.size_bytes)
        self.ring_records, self.data_bytes = ring_records, data_bytes
        self.boots, self.attaches = 1, 0
        self.submitted = self.completed = 0
        self.era = Era(bytes(geometry.size_bytes), geometry.size_sectors)
        self.ever_written = np.zeros(geometry.size_sectors, bool)
        self.written_whole = np.zeros(geometry.block_count, bool)  # by one write
        self.write_sectors = 0
        self.schedule: Callable[[float, Callable[[], None]], None] = lambda delay, action: None
        self.advance: Callable[[float], None] = lambda seconds: None
        self._boot()

    def _boot(self) -> None:
        self.attached = False
        self.flying: dict[int, Write] = {}
        self.unshown: set[int] = set()
        self._reset_capture()

    def _reset_capture(self) -> None:
        blocks = self.geometry.block_count
        self.maps = [np.zeros(blocks, bool), np.zeros(blocks, bool)]
        self.active = 0
        self.stale: int | None = None
        self.payload_on = False
        self.ring: list[tuple[int, Write, int, int] | None] = []  # None: a place whose record was lost
        self.produced = self.consumed = 0
        self.lost = self.seen_sectors = self.ended_sectors = 0
        self.data: dict[int, bytes] = {}
        self.data_used = 0

    def attach(self) -> None:
        self._reset_capture()
        self.attaches += 1
        self.attached = True

    def power_loss(self) -> None:
        """Everything is gone but what reached the medium, and some of what was in the disk's cache."""
        for write in self.flying.values():
            done = self.rng.randint(0, write.sectors)
            self.disk.write(write.sector * SECTOR, write.content(landed=True)[: done * SECTOR])
        self.disk.crash(self.rng)
        self.boots += 1
        self.era = Era(bytes(self.disk.current), self.geometry.size_sectors)
        self._boot()

    # --- writes -------------------------------------------------------------------------------------------
    def dirty(self) -> np.ndarray:
        return self.maps[0] | self.maps[1]

    def blocks_in_flight(self) -> np.ndarray:
        mask = np.zeros(self.geometry.block_count, bool)
        for write in self.flying.values():
            self._mark(mask, write)
        return mask

    def _whole_blocks(self, sector: int, sectors: int) -> slice:
        per_block, end = self.geometry.block_sectors, sector + sectors
        is_end = end == self.geometry.size_sectors
        return slice(-(-sector // per_block), self.geometry.block_count if is_end else end // per_block)

    def _mark(self, mask: np.ndarray, write: Write) -> None:
        first, last = self._blocks(write.sector, write.sectors)
        mask[first : last + 1] = True

    def _blocks(self, sector: int, sectors: int) -> tuple[int, int]:
        unit = self.geometry.block_sectors
        return sector // unit, (sector + sectors - 1) // unit

    def _set_bits(self, write: Write) -> None:
        which = self.active
        if self.stale is not None and self.rng.random() < 0.5:
            which = self.stale
        self._mark(self.maps[which], write)

    def submit(self, sector: int, sectors: int) -> None:
        """A write; it is not made where it would overlap one in flight and this world has none of that."""
        busy = any(w.sector < sector + sectors and sector < w.sector + w.sectors for w in self.flying.values())
        if busy and self.rng.random() >= self.odds.overlap:
            return
        self.submitted += 1
        zero = self.rng.random() < self.odds.zeroes
        op = self.rng.choice((Operation.WRITE_ZEROES, Operation.DISCARD)) if zero else Operation.WRITE
        tag = bytes(8) if zero else self.submitted.to_bytes(8, "little")
        write = Write(self.submitted, sector, sectors, op, tag, tag)
        if not zero and self.rng.random() < self.odds.unstable:
            write.landing = (self.submitted | 1 << 60).to_bytes(8, "little")
        self.era.add(write)
        self.ever_written[sector : sector + sectors] = True
        if op is not Operation.DISCARD:
            self.written_whole[self._whole_blocks(sector, sectors)] = True
        self.flying[write.order] = write
        if self.attached:
            self._set_bits(write)
            self.seen_sectors += sectors
            self._emit_submit(write)
        seconds = self.rng.random() * 0.02
        if self.rng.random() < self.odds.slow:
            seconds = self.rng.random() * 3
        self.schedule(seconds * self.rng.random(), lambda: self._land(write))
        self.schedule(seconds, lambda: self._complete(write))

    def _emit_submit(self, write: Write) -> None:
        if self._lose():
            return
        flags = identifier = 0
        if self.payload_on and write.op == Operation.WRITE:
            size = write.sectors * SECTOR
            if self.data_used + size > self.data_bytes:
                flags = int(RecordFlag.NO_PAYLOAD)
            else:
                identifier = write.order
                self.data[identifier] = write.content()
                self.data_used += size
        self._emit((RecordKind.SUBMIT, write, flags, identifier))

    def _lose(self) -> bool:
        """Without room for it a record still takes a place: the ring goes on with a hole, and may end with one."""
        full = len(self.ring) >= self.ring_records
        if full:
            self.lost += 1
            self._emit(None)
        return full

    def _emit(self, record: tuple[int, Write, int, int] | None) -> None:
        self.ring.append(record)
        self.produced += RECORD_BYTES

    def take(self, limit: int) -> list[tuple[int, Write, int, int]]:
        """Records up to the next hole. At a hole the places are passed over first, as pydbt.kernel.ring does."""
        skipped = next((place for place, record in enumerate(self.ring) if record is not None), len(self.ring))
        end = next((p for p in range(skipped, len(self.ring)) if self.ring[p] is None), len(self.ring))
        end = min(end, skipped + limit)
        taken = [record for record in self.ring[skipped:end] if record is not None]
        self.ring = self.ring[end:]
        self.consumed += end * RECORD_BYTES
        return taken

    def _land(self, write: Write) -> None:
        """A part of it is on the disk before it is over."""
        if self.flying.get(write.order) is write:
            part = self.rng.randint(0, write.sectors) * SECTOR
            self.disk.write(write.sector * SECTOR, write.content(landed=True)[:part])

    def _complete(self, write: Write) -> None:
        if self.flying.get(write.order) is not write:
            return
        del self.flying[write.order]
        self.completed += 1
        write.ended, write.ended_at_order, write.ended_as = True, self.submitted, self.completed
        self.write_sectors += write.sectors  # the kernel counts a request when it is over
        flags = 0
        write.failed = self.rng.random() < self.odds.failed
        if write.failed:
            flags |= RecordFlag.ERROR
        if not write.failed or self.rng.random() < 0.5:
            self.disk.write(write.sector * SECTOR, write.content(landed=True))
        if write.landing != write.tag:
            flags |= RecordFlag.UNSTABLE
        if not self.attached:
            return
        if self.rng.random() < self.odds.unseen:
            self.unshown.add(write.order)
            return
        self._set_bits(write)
        self.ended_sectors += write.sectors
        if not self._lose():
            self._emit((RecordKind.COMPLETE, write, int(flags), 0))

    def random_write(self) -> None:
        total = self.geometry.size_sectors
        unit = self.geometry.block_sectors
        rng = self.rng
        sectors = rng.choice((1, unit, unit, unit, 2 * unit, 3))
        sector = rng.randrange(total) if rng.random() < 0.3 else rng.randrange(self.geometry.block_count) * unit
        # Half of the writes go to a few places, so that one comes upon another.
        if rng.random() < 0.5:
            sector %= max(unit * 4, 1)
        self.submit(sector, min(sectors, total - sector))


class Capture:
    """What one life of the controller holds of the kernel: the face of pydbt.kernel.capture.Capture."""

    payload_available, payload_reason = True, ""
    memory_watched = shows_short_writes = True
    # A mutant of the programs' grace period sets it: writers with the old index go on after the flip.
    grace = True

    def __init__(self, kernel: Kernel, machine: Machine, volume: object, options: object) -> None:
        self._kernel, self._machine, self.volume, self.options = kernel, machine, volume, options

    def _touch(self) -> None:
        """The controller is at work, and the world goes on meanwhile."""
        self._machine.touch()
        kernel = self._kernel
        if kernel.rng.random() < kernel.odds.breath:
            kernel.random_write()
            kernel.advance(kernel.rng.random() * 0.003)
        self._machine.touch()

    def drain(self, limit: int = 65536) -> np.ndarray:
        if self._machine.dead:
            self._machine.touch()
        kernel = self._kernel
        taken = kernel.take(limit)
        if not taken:
            return np.empty(0, RECORD)
        rows = [
            (w.sector, data, 0, 0, w.sectors, int(data != 0), kind, w.op, flags, 0, w.order)
            for kind, w, flags, data in taken
        ]
        for kind, write, _, _ in taken:
            if kind == RecordKind.COMPLETE:
                kernel.unshown.discard(write.order)
        return np.array(rows, RECORD)

    def producer_position(self) -> int:
        return self._kernel.produced

    def consumer_position(self) -> int:
        return self._kernel.consumed

    def watch_memory(self, on: bool) -> None:
        """No program of this world changes memory that is being written."""

    def lost_count(self) -> int:
        return self._kernel.lost

    def counters(self) -> SimpleNamespace:
        lost = self._kernel.lost
        return SimpleNamespace(
            lost=lost, lost_records=lost, lost_completions=0, no_payload=0, unknown_ops=0, passthrough=0,
            recursion_misses=0, unmarked_misses=0, submit_misses=0, mark_misses=0, marked_sectors=None,
            submitted_sectors=self._kernel.seen_sectors, completed_sectors=self._kernel.ended_sectors,
        )  # fmt: skip

    def attach_name(self) -> str:
        return f"attach {self._kernel.attaches}"

    def payload(self, records: np.ndarray) -> list[bytes]:
        assert all(r["data"] or r["op"] != Operation.WRITE for r in records), "a write was streamed without its data"
        return [self._kernel.data[int(i)] for i in records["data"].tolist() if i]

    def release(self, records: np.ndarray) -> None:
        for identifier in records["data"].tolist():
            if identifier:
                self._kernel.data_used -= len(self._kernel.data.pop(identifier))

    def release_orphans(self) -> int:
        kernel = self._kernel
        waiting = {record[3] for record in kernel.ring if record is not None and record[3]}
        orphans = [identifier for identifier in kernel.data if identifier not in waiting]
        for identifier in orphans:
            kernel.data_used -= len(kernel.data.pop(identifier))
        return len(orphans)

    def set_payload(self, on: bool) -> None:
        self._touch()
        self._kernel.payload_on = on
        self._touch()

    def flip(self) -> None:
        self._touch()
        kernel = self._kernel
        kernel.stale, kernel.active = kernel.active, 1 - kernel.active
        self._touch()
        if self.grace:
            kernel.stale = None

    def quiet_words(self) -> np.ndarray:
        kernel = self._kernel
        bits = np.packbits(kernel.maps[1 - kernel.active], bitorder="little").tobytes()
        words = np.frombuffer(bits + bytes(-len(bits) % 8), "<u8")
        self._touch()
        return words

    def zero_quiet(self) -> None:
        self._touch()
        self._kernel.maps[1 - self._kernel.active][:] = False

    def dirty_counts(self, *, with_quiet: bool = True) -> tuple[int, int]:
        kernel = self._kernel
        return int(kernel.maps[kernel.active].sum()), int(kernel.maps[1 - kernel.active].sum()) * with_quiet

    def data_size_bytes(self) -> int:
        return self._kernel.data_bytes

    def data_used_bytes(self) -> int:
        return self._kernel.data_used

    def close(self) -> None:
        pass

    def detach(self) -> None:
        self._machine.touch()
        self._kernel.attached = False


@dataclass
class Device:
    """The source as pydbt.device.sysfs.BlockDevice shows it."""

    kernel: Kernel
    path: str = "/dev/sim"
    disk_major: int = 7
    disk_minor: int = 0
    start_sector: int = 0
    logical_block_bytes: int = 512
    bio_based: bool = False
    size_sectors: int = field(init=False)
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.size_sectors, self.size_bytes = self.kernel.geometry.size_sectors, self.kernel.geometry.size_bytes

    def in_flight_writes(self) -> int:
        return len(self.kernel.flying)

    def counters(self) -> SimpleNamespace:
        return SimpleNamespace(write_sectors=self.kernel.write_sectors, discard_sectors=0)

    def disk_sequence(self) -> int:
        return 1

    def counts_io(self) -> bool:
        return True

    def mapper_name(self) -> str:
        """It is none of device-mapper's."""
        return ""

    def identity(self) -> dict[str, str]:
        return {"serial": "sim"}

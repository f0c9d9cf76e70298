"""Content with a cache over it: what was not synced survives a crash piece by piece, or does not."""

from __future__ import annotations

import random

SECTOR = 512
# How much of what was not synced survives: nothing, all of it, or any part.
SURVIVAL = (0.0, 0.1, 0.5, 0.9, 1.0)


class Killed(BaseException):
    """The process on a machine has ended. Not an Exception: nothing in it may take notice."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.name)
        self.machine = machine


class Machine:
    """One process that can die at any of its touches of the world, and the disks that outlive it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fuse: int | None = None
        self.dead = False
        self.no_room = False
        self.trouble = False

    def touch(self) -> None:
        """Called at everything that leaves a trace outside of the process; here it may end. Raises Killed."""
        if self.dead:
            raise Killed(self)
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.die()

    def die(self) -> None:
        self.fuse, self.dead = None, True
        raise Killed(self)

    def live(self) -> None:
        self.fuse, self.dead = None, False


class Lossy:
    """Bytes of any length. Writes are visible at once, and durable after ``sync``."""

    __slots__ = ("current", "durable", "unsynced")

    def __init__(self, size: int = 0) -> None:
        self.current = bytearray(size)
        self.durable = bytearray(size)
        self.unsynced: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: bytes | memoryview) -> None:
        data = bytes(data)
        end = offset + len(data)
        if end > len(self.current):
            self.current.extend(bytes(end - len(self.current)))
        self.current[offset:end] = data
        self.unsynced.append((offset, data))

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.current[offset : offset + length])

    def sync(self) -> None:
        if self.unsynced:
            self._keep(self.unsynced)

    def _keep(self, pieces: list[tuple[int, bytes]]) -> None:
        for offset, data in pieces:
            end = offset + len(data)
            if end > len(self.durable):
                self.durable.extend(bytes(end - len(self.durable)))
            self.durable[offset:end] = data
        self.unsynced = []

    def crash(self, rng: random.Random) -> None:
        """Keep any of the sectors that were not synced, the newest or an older content of each."""
        share = rng.choice(SURVIVAL)
        kept = []
        for offset, data in self.unsynced:
            begin = 0
            while begin < len(data):
                size = min(SECTOR - (offset + begin) % SECTOR, len(data) - begin)
                if rng.random() < share:
                    kept.append((offset + begin, data[begin : begin + size]))
                begin += size
        length = len(self.current)
        self._keep(kept)
        if len(self.durable) < length:
            self.durable.extend(bytes(length - len(self.durable)))
        self.current = bytearray(self.durable)

    def fail_sync(self, rng: random.Random) -> None:
        """A sync failed: its pages count as clean now, and are on the medium or not. Readers may see either."""
        visible = self.current
        self.crash(rng)
        if rng.random() < 0.5:
            self.current = visible

    def drop_cache(self) -> None:
        """Readers see what is on the medium, but for what is still to be written."""
        if not self.unsynced:
            self.durable.extend(bytes(len(self.current) - len(self.durable)))
            self.current = bytearray(self.durable)

    def copy(self) -> Lossy:
        other = Lossy.__new__(Lossy)
        other.current, other.durable = bytearray(self.current), bytearray(self.durable)
        other.unsynced = list(self.unsynced)
        return other

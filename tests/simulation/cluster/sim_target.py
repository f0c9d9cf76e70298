"""The disk of a secondary: what it takes, what it loses, and the blocks that it cannot write."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from pydbt.core.blocks.apply_plan import ZEROS, PlannedWrites
from pydbt.core.errors import DeviceError, MediumError
from pydbt.core.secondary.bad_blocks import BAD_BLOCK_BYTES
from tests.simulation.cluster.disk import SECTOR, Lossy, Machine


class SimTarget:
    """As pydbt.device.target.Target."""

    is_block_device = True
    sector_bytes = SECTOR
    identity = "block-device:sim"

    def __init__(
        self, content: Lossy, machine: Machine, rng: random.Random, flaws: Flaws | None = None, careful: bool = False
    ) -> None:
        self.content, self.machine, self.rng = content, machine, rng
        self.names: dict[str, str] = {}
        self.flaws, self.is_careful = flaws or Flaws(), careful
        self.size_bytes = len(content.current)
        self.failed_at: int | None = None
        self.kept_tried = -1
        self.is_gone = False

    def write_runs(self, runs: PlannedWrites, buffer: memoryview) -> None:
        for sector, count, source in zip(
            runs.sectors.tolist(), runs.lengths_sectors.tolist(), runs.sources.tolist(), strict=True
        ):
            data = bytes(count * SECTOR) if source == ZEROS else buffer[source : source + count * SECTOR]
            if self.is_careful:
                self.write_through(sector * SECTOR, data)
            else:
                self.machine.touch()
                self.content.write(sector * SECTOR, data)

    def write_through(self, offset: int, data: bytes | memoryview) -> None:
        self.machine.touch()
        if self.flaws.refuse(offset, len(data), self.content):
            raise MediumError(f"TARGET cannot be written at byte {offset}: input/output error")
        self.content.write(offset, data)
        self.content.sync()
        self.flaws.written(offset, len(data), self.content)

    def sync(self) -> None:
        self.machine.touch()
        refused = [self.flaws.refuse(offset, len(data), self.content) for offset, data in self.content.unsynced]
        if self.machine.trouble or any(refused):
            # What did not reach the disk is not read any more: Target drops it.
            self.content.unsynced = [
                piece for piece, bad in zip(self.content.unsynced, refused, strict=True) if not bad
            ]
            self.content.crash(self.rng)
            raise DeviceError("TARGET cannot be synced: input/output error")
        for offset, data in self.content.unsynced:
            self.flaws.written(offset, len(data), self.content)
        self.content.sync()
        self.machine.touch()

    def read_into(self, offset: int, view: memoryview) -> None:
        if self.flaws.torn & blocks_of(offset, len(view)):
            raise MediumError(f"TARGET cannot be read at byte {offset}: input/output error")
        view[:] = self.content.read(offset, len(view))

    def start_writeback(self) -> None:
        pass

    def forget(self, offset: int, length: int) -> None:
        pass

    def stay_careful(self) -> None:
        assert self.is_careful

    def try_again(self) -> None:
        pass


def blocks_of(offset: int, length: int) -> set[int]:
    """The numbers of the blocks of a disk that a range touches."""
    return set(range(offset // BAD_BLOCK_BYTES, -(-(offset + length) // BAD_BLOCK_BYTES)))


def covers(number: int, offset: int, length: int, content: Lossy) -> bool:
    """Whether a range has all of a block."""
    begin = number * BAD_BLOCK_BYTES
    return offset <= begin and offset + length >= min(begin + BAD_BLOCK_BYTES, len(content.current))


@dataclass
class Flaws:
    """Blocks of a disk that cannot be written. With ``tears`` a write that fails leaves a block that cannot be read either."""

    bad: set[int] = field(default_factory=set)
    torn: set[int] = field(default_factory=set)
    tears: bool = False

    def refuse(self, offset: int, length: int, content: Lossy) -> bool:
        """Whether a write cannot be done; it may have been done in part."""
        hit = self.bad & blocks_of(offset, length)
        # To write a part of a block that cannot be read, a disk would have to read the rest of it.
        parts = {
            number for number in self.torn & blocks_of(offset, length) if not covers(number, offset, length, content)
        }
        if self.tears:
            for number in hit - self.torn:
                self.torn.add(number)
                begin = number * BAD_BLOCK_BYTES
                garbage = b"\xee" * (min(begin + BAD_BLOCK_BYTES, len(content.current)) - begin)
                content.current[begin : begin + len(garbage)] = content.durable[begin : begin + len(garbage)] = garbage
        return bool(hit | parts)

    def written(self, offset: int, length: int, content: Lossy) -> None:
        """A block that is written as a whole can be read again."""
        self.torn = {number for number in self.torn if not covers(number, offset, length, content)}

    def copy(self) -> Flaws:
        return Flaws(set(self.bad), set(self.torn), self.tears)

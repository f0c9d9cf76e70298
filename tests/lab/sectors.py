"""Self-describing sectors: each says where it belongs, who wrote it and when, so that no wrong one looks right.

A sector holds its number, its writer, the writer's own sequence number, the first sector and length of the
write it was part of, and a checksum over all of it. One writer waits for the completion of each write before
the next: its writes are a chain, and a replica that holds number n + 1 must hold n, unless something
newer covers it.
"""

from __future__ import annotations

import random
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydbt.core.units import MIB, SECTOR_BYTES
from tests.lab.raw import DirectWriter

_HEAD = struct.Struct("<8sQIQQI")  # magic, sector, writer, sequence, first sector, sectors
_MAGIC = b"SELFDESC"


def content(first: int, sectors: int, writer: int, sequence: int) -> bytes:
    """The data of one write."""
    filling = random.Random(writer << 40 | sequence).randbytes(SECTOR_BYTES - _HEAD.size - 4)
    whole = bytearray()
    for sector in range(first, first + sectors):
        body = _HEAD.pack(_MAGIC, sector, writer, sequence, first, sectors) + filling
        whole += body + struct.pack("<I", zlib.crc32(body))
    return bytes(whole)


@dataclass(frozen=True, slots=True)
class Write:
    first: int
    sectors: int
    discard: bool = False


class Writer:
    """Writes to its own sectors of a raw device with O_DIRECT, one write at a time, and remembers all of them.

    ``interleaved`` writers share 4 KiB blocks and not sectors, where the device's sectors are small enough.
    """

    def __init__(self, device: Path, number: int, first: int, sectors: int, seed: int, grain: int) -> None:
        self.number = number
        self.history: list[Write] = []  # history[n - 1] is write n
        self._first, self._sectors, self._grain = first, sectors, grain
        self._random = random.Random(seed * 1000 + number)
        self._writer = DirectWriter(device)
        self.completed = 0
        self.lock = threading.Lock()

    def __call__(self) -> None:
        grains = self._sectors // self._grain
        length = min(self._random.choice((1, 1, 1, 2, 3, 8, 8, 8, 40, 200)), grains, MIB // SECTOR_BYTES // self._grain)
        at = self._random.randrange(grains - length + 1)
        write = Write(self._first + at * self._grain, length * self._grain)
        with self.lock:
            self.history.append(write)
            sequence = len(self.history)
        data = content(write.first, write.sectors, self.number, sequence)
        self._writer.put(write.first * SECTOR_BYTES, data)
        self.completed = sequence

    def close(self) -> None:
        self._writer.close()

    def faults(self, image: Path, at_least: int, exactly: bool = False) -> list[str]:
        """What is wrong with this writer's part of an image, in words; empty when it is a prefix of the history.

        ``at_least``: a write known to be durable on the replica. ``exactly``: everything written is in it.
        """
        with image.open("rb") as file:
            file.seek(self._first * SECTOR_BYTES)
            raw = file.read(self._sectors * SECTOR_BYTES)
        found, sequences = self._decode(raw)
        reached = int(sequences.max(initial=0))
        if reached < at_least:
            found.append(f"writer {self.number}: reaches write {reached}, and {at_least} was acknowledged")
        if exactly:
            reached = len(self.history)
        return found + self._against(sequences, reached)

    def _decode(self, raw: bytes) -> tuple[list[str], NDArray[np.int64]]:
        found: list[str] = []
        sequences = np.zeros(self._sectors, np.int64)
        for index in range(self._sectors):
            sector = raw[index * SECTOR_BYTES : (index + 1) * SECTOR_BYTES]
            if not any(sector[:16]) and not any(sector):
                continue
            magic, number, writer, sequence, _, _ = _HEAD.unpack_from(sector)
            here = self._first + index
            if magic != _MAGIC or struct.unpack("<I", sector[-4:])[0] != zlib.crc32(sector[:-4]):
                found.append(f"sector {here}: torn or foreign")
            elif number != here:
                found.append(f"sector {here}: misplaced, it belongs to {number} (writer {writer}, write {sequence})")
            elif writer != self.number or not 1 <= sequence <= len(self.history):
                found.append(f"sector {here}: of write {sequence} of writer {writer}, which never was")
            else:
                sequences[index] = sequence
        return found, sequences

    def _against(self, sequences: NDArray[np.int64], reached: int) -> list[str]:
        """The image must be that after write ``reached``; of that last one any part may be missing."""
        expected = np.zeros(self._sectors, np.int64)
        before_last = expected
        for sequence, write in enumerate(self.history[:reached], start=1):
            if sequence == reached:
                before_last = expected.copy()
            low = write.first - self._first
            expected[low : low + write.sectors] = sequence
        wrong = np.flatnonzero((sequences != expected) & (sequences != before_last))
        return [
            f"sector {self._first + i}: stale, it holds write {sequences[i]} of writer {self.number}, "
            f"and should hold {expected[i]} at write {reached}"
            for i in wrong[:10].tolist()
        ]


def writers(device: Path, count: int, sectors: int, seed: int, grain: int = 1) -> list[Writer]:
    """Writers that share a device evenly; the parts do not begin on 4 KiB boundaries when ``grain`` is small."""
    part = sectors // count // grain * grain
    shift = 3 * grain
    return [
        Writer(device, number, number * part + (shift if number else 0), part - 2 * shift, seed, grain)
        for number in range(count)
    ]


def check(image: Path, everybody: list[Writer], at_least: list[int], exactly: bool = False) -> None:
    """AssertionError that names every stale, misplaced or torn sector."""
    found = [words for writer, n in zip(everybody, at_least, strict=True) for words in writer.faults(image, n, exactly)]
    assert not found, f"{len(found)} faults: " + "; ".join(found[:12])

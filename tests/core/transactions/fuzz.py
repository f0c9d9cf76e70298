"""Real logs of ext4 and XFS, changed at random: ``python -m tests.core.transactions.fuzz SECONDS [IMAGE...]``

An image is one of a file system that was written to; without one, those that are recorded. Its log comes as captured writes, in
order and with changes, some of which have right checksums; and it is read from the image, with such changes. Nothing may raise;
the quick way has to tell what the other one tells; time and memory have bounds.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import cast

from pydbt.core.tracking.capture_record import Operation
from pydbt.core.transactions.crc import crc32c
from pydbt.core.transactions.followed_log import EndedTransaction, FollowedLog
from pydbt.core.transactions.jbd2_blocks import (
    COMMIT_SUM_OFFSET,
    JBD2_MAGIC,
    JournalSuperblock,
    NotUnderstood,
    read_journal_superblock,
)
from pydbt.core.transactions.likely_changes import MAX_LIKELY_RUNS, likely_changes
from pydbt.core.transactions.log_place import LogPlace, find_log
from pydbt.core.transactions.on_disk import read_log, read_newest
from pydbt.core.transactions.xfs_log import XfsLog
from pydbt.core.transactions.xfs_volume import read_xfs_superblock
from pydbt.core.units import MIB, Geometry
from tests.core.transactions.captured import Written
from tests.core.transactions.plain_xfs import PlainXfsLog
from tests.core.transactions.recorded import SAMPLES, Recorded

_MAGIC = JBD2_MAGIC.to_bytes(4, "big")
_BATCHES = 8
_LOG_BYTES = 2 * MIB
_MAX_S_PER_MIB = 5.0
"""Of processor time, with both ways: far above what is needed, and far below what would be noticed as a stop."""


class Log:
    """The log on an image: its place, and what it consists of as far as that is not zero."""

    def __init__(self, path: Path) -> None:
        self._path, self.size_bytes = path, path.stat().st_size
        self.place: LogPlace = find_log(self.read, self.size_bytes)
        self.begin = self.place.extents[0][0]
        content = self.read(self.begin, min(self.place.extents[0][1], _LOG_BYTES))
        self.layout: JournalSuperblock | None = None
        self.unit = 512
        if self.place.file_system == "ext4":
            self.layout = read_journal_superblock(self.place.head)
            self.unit = self.layout.block_bytes
        self.content = content.rstrip(b"\0") + bytes(4096)
        self.units = len(self.content) // self.unit

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        with self._path.open("rb") as image:
            image.seek(offset_bytes)
            return image.read(length_bytes)

    def summed(self, block: bytearray) -> bytearray:
        """A control block of jbd2 with the checksum that belongs to it: of a descriptor, or of a commit."""
        if self.layout is not None and len(block) == self.unit and block[:4] == _MAGIC:
            place = COMMIT_SUM_OFFSET if block[7] == 2 else self.unit - 4
            block[place : place + 4] = bytes(4)
            block[place : place + 4] = crc32c(self.layout.seed, block).to_bytes(4, "big")
        return block


def batches(log: Log, chance: random.Random) -> list[Written]:
    """A part of the log as it was written, perhaps changed, in batches."""
    first, damage = chance.randrange(log.units), chance.choice((0.0, 0.01, 0.1, 0.5))
    whole_blocks = log.layout is not None and chance.random() < 0.7
    made = [Written(whole=True)]
    position, end = first, min(log.units, first + chance.choice((50, 300, 1500)))
    while position < end:
        count = 1 if whole_blocks else chance.choice((1, 1, 3, 8, 64))
        place = position
        data = bytearray(log.content[place * log.unit : (place + count) * log.unit])
        position += count
        if not data:
            break
        offset = log.begin + place * log.unit
        if chance.random() < damage:
            offset, data = _changed(log, chance, offset, data)
        if chance.random() < 0.5 and data[:4] == _MAGIC:
            made[-1].complete(log.begin, log.unit)
        if chance.random() < damage / 8:
            made[-1].write(
                offset, None, op=chance.choice((Operation.DISCARD, Operation.WRITE)), sectors=len(data) // 512 or 1
            )
        elif data:
            for _ in range(1 + (chance.random() < damage / 4)):
                made[-1].write(max(0, offset), bytes(data))
        if chance.random() < damage / 8:
            position = max(first, position + chance.randrange(-20, 20))
        if chance.random() < _BATCHES / 1500:
            made.append(Written(whole=True))
    return made


def _changed(log: Log, chance: random.Random, offset: int, data: bytearray) -> tuple[int, bytearray]:
    kind = chance.randrange(8)
    at = chance.randrange(min(len(data), chance.choice((16, 64, 512, 1 << 20))))
    if kind == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        data[at : at + 4] = chance.randbytes(min(4, len(data) - at))
    elif kind == 2:
        data[at : at + 4] = chance.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x0a"))[: len(data) - at]
    elif kind == 3:
        offset += 512 * chance.randrange(-9, 10)
    elif kind == 4:
        del data[512 * chance.randrange(len(data) // 512) :]
    elif kind == 5:
        other = chance.randrange(log.units) * log.unit
        data[: log.unit] = log.content[other : other + log.unit].ljust(log.unit, b"\0")
        del data[len(data) // 512 * 512 :]
    elif kind == 6:
        data[:] = bytes(len(data))
    else:
        data[:] = chance.randbytes(len(data))
    return offset, log.summed(data) if chance.random() < 0.5 else data


def one_round(log: Log, seed: int) -> tuple[int, float]:
    """Both ways told the same; how many transactions ended, and the processor time per MiB of a batch at most."""
    chance = random.Random(seed)
    quick, slow = FollowedLog(log.place), FollowedLog(log.place)
    if log.place.file_system == "xfs":
        slow._parser = cast(XfsLog, PlainXfsLog(read_xfs_superblock(log.place.head), follows_stream=True))
    traced = seed % 50 == 0
    ended, slowest = 0, 0.0
    made = batches(log, chance)
    if traced:
        tracemalloc.start()
    try:
        for batch in made:
            size = max(1.0, sum(map(len, batch.data.values())) / MIB)
            told = []
            for way, whole in ((quick, True), (slow, False)):
                batch.whole = whole
                records = batch.records()
                began = time.thread_time()
                found = way.captured(records, batch.payload)
                slowest = max(slowest, (time.thread_time() - began) / size)
                told.append([_outcome(one) for one in found])
            assert told[0] == told[1], seed
            assert quick.problem == slow.problem, seed
            ended += len(told[0])
            del found, told
            if traced:
                assert tracemalloc.get_traced_memory()[0] < 2 * 4 * MIB, seed
    finally:
        tracemalloc.stop()
    assert slowest < _MAX_S_PER_MIB, (seed, slowest)
    return ended, slowest


class Changed:
    """The volume with some units of its log, or of its beginning, changed. ``read`` gives its bytes."""

    def __init__(self, log: Log, chance: random.Random) -> None:
        self._log, self._changes = log, list[tuple[int, bytes]]()
        for _ in range(chance.choice((0, 1, 5, 50))):
            place = chance.randrange(log.units) * log.unit
            offset, content = log.begin + place, bytearray(log.content[place : place + log.unit])
            if chance.random() < 0.1:
                offset = chance.randrange(16) * log.unit
                content = bytearray(log.read(offset, log.unit))
            offset, content = _changed(log, chance, offset, content)
            if 0 <= offset <= log.size_bytes - len(content):
                self._changes.append((offset, bytes(content)))

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        assert offset_bytes >= 0 and 0 <= length_bytes <= self._log.size_bytes - offset_bytes, "outside of the volume"
        content, end = bytearray(self._log.read(offset_bytes, length_bytes)), offset_bytes + length_bytes
        for offset, change in self._changes:
            first, last = max(offset, offset_bytes), min(offset + len(change), end)
            if first < last:
                content[first - offset_bytes : last - offset_bytes] = change[first - offset : last - offset]
        return bytes(content)


def one_look(log: Log, seed: int) -> None:
    """What reads a log from the disk raises nothing but that there is none, and names no place outside of the volume."""
    changed, geometry = Changed(log, random.Random(seed)), Geometry(log.size_bytes, 4096)
    with contextlib.suppress(NotUnderstood):
        read_log(changed.read, log.size_bytes)
    with contextlib.suppress(NotUnderstood):
        read_newest(changed.read, log.size_bytes)
    with contextlib.suppress(NotUnderstood):
        likely = likely_changes(changed.read, geometry)
        assert len(likely.firsts) <= MAX_LIKELY_RUNS, seed
        assert (likely.firsts >= 0).all() and (likely.ends() <= geometry.block_count).all(), seed


def _outcome(one: EndedTransaction) -> tuple[object, ...]:
    told = one.transaction
    return one.index, one.ordinal, one.runs, *told[:7], told.reason, told.named.tolist(), told.revoked.tolist()


def main(seconds: float, images: list[Path]) -> None:
    """Changes for this long, of processor time."""
    if images:
        play(seconds, [Log(path) for path in images])
        return
    with tempfile.TemporaryDirectory() as folder:
        for sample in SAMPLES.glob("*.sectors"):
            Recorded(sample.stem).write_image(Path(folder) / sample.stem)
        play(seconds, [Log(path) for path in Path(folder).iterdir()])


def play(seconds: float, logs: list[Log]) -> None:
    """The same, with these logs."""
    began, seed, ended, slowest = time.process_time(), time.time_ns() % 1_000_000_000, 0, 0.0
    first = seed
    while time.process_time() - began < seconds:
        for log in logs:
            one_look(log, seed)
            more, slow = one_round(log, seed)
            ended, slowest = ended + more, max(slowest, slow)
        seed += 1
    print(
        f"seeds {first} to {seed - 1}: {ended} transactions ended, at most {slowest * 1e3:.0f} ms of processor time per MiB"
    )


if __name__ == "__main__":
    main(float(sys.argv[1]), [Path(path) for path in sys.argv[2:]])

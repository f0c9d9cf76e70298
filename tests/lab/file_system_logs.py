"""Logs of file systems, built block by block for tests: an implementation of its own of formats and checksums."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

MAGIC = 0xC03B3998
REVOKES, WIDE, ASYNC, V2, V3, FAST = 1, 2, 4, 8, 16, 32
UUID = bytes(range(16))
TIME_S, TIME_NS = 1_795_968_429, 326_057_733


def _table() -> list[int]:
    found = []
    for index in range(256):
        value = index
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


_TABLE = _table()


def slow_crc32c(value: int, data: bytes) -> int:
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 255]
    return value


def slow_crc32_be(value: int, data: bytes) -> int:
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


@dataclass
class Jbd2Builder:
    """A journal, written block by block. ``writes`` are (offset, data) in the order of the kernel."""

    block_bytes: int = 1024
    block_count: int = 64
    incompat: int = REVOKES | WIDE | V3
    whole_sums: bool = False
    sequence: int = 7
    start: int = 1
    fast_blocks: int = 0
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    at: int = 0

    def __post_init__(self) -> None:
        self.at, self.first = self.start, self.sequence
        self.last = self.block_count - self.fast_blocks
        self.seed = slow_crc32c(0xFFFFFFFF, UUID)
        self._sum = 0xFFFFFFFF

    @property
    def sums(self) -> bool:
        return bool(self.incompat & (V2 | V3))

    def superblock(self, start: int | None = None, sequence: int | None = None, uuid: bytes = UUID) -> bytes:
        head = struct.pack(
            ">12I16s", MAGIC, 4, 0, self.block_bytes, self.block_count, 1,
            self.first if sequence is None else sequence, self.start if start is None else start, 0,
            1 if self.whole_sums else 0, self.incompat, 0, uuid,
        )  # fmt: skip
        block = bytearray(head.ljust(1024, b"\0"))
        if self.sums:
            block[80] = 4
        struct.pack_into(">I", block, 84, self.fast_blocks)
        struct.pack_into(">I", block, 252, slow_crc32c(0xFFFFFFFF, bytes(block)) if self.sums else 0)
        return bytes(block.ljust(self.block_bytes, b"\0"))

    def put(self, block: bytes) -> int:
        where = self.at
        self.writes.append((where * self.block_bytes, block))
        self.at = where + 1 if where + 1 < self.last else 1
        return where

    def _tag(self, number: int, content: bytes, flags: int) -> bytes:
        total = slow_crc32c(slow_crc32c(self.seed, struct.pack(">I", self.sequence)), content) if self.sums else 0
        low, high = number & 0xFFFFFFFF, number >> 32
        if self.incompat & V3:
            tag = struct.pack(">IIII", low, flags, high, total)
        else:
            tag = struct.pack(">IHH", low, total & 0xFFFF, flags)
            tag += struct.pack(">I", high) if self.incompat & WIDE else b""
            tag += bytes(2) if self.incompat & V2 else b""
        return tag + (b"" if flags & 2 else UUID)

    def descriptor(self, blocks: dict[int, bytes], spoil: bool = False) -> None:
        content = bytearray(struct.pack(">III", MAGIC, 1, self.sequence))
        for index, (number, data) in enumerate(blocks.items()):
            flags = (2 if index else 0) | (8 if index == len(blocks) - 1 else 0)
            content += self._tag(number, data, flags)
        block = bytearray(content.ljust(self.block_bytes, b"\0"))
        if self.sums:
            struct.pack_into(">I", block, self.block_bytes - 4, slow_crc32c(self.seed, bytes(block)) ^ spoil)
        self._whole(bytes(block))
        self.put(bytes(block))
        for data in blocks.values():
            self._whole(data)
            self.put(data)

    def _whole(self, data: bytes) -> None:
        if self.whole_sums:
            self._sum = slow_crc32_be(self._sum, data)

    def revoke(self, numbers: list[int]) -> None:
        entries = b"".join(struct.pack(">Q" if self.incompat & WIDE else ">I", number) for number in numbers)
        block = bytearray(struct.pack(">IIII", MAGIC, 5, self.sequence, 16 + len(entries)) + entries)
        block = bytearray(bytes(block).ljust(self.block_bytes, b"\0"))
        if self.sums:
            struct.pack_into(">I", block, self.block_bytes - 4, slow_crc32c(self.seed, bytes(block)))
        self.put(bytes(block))

    def commit(self, spoil: bool = False) -> None:
        block = bytearray(struct.pack(">III", MAGIC, 2, self.sequence).ljust(self.block_bytes, b"\0"))
        struct.pack_into(">QI", block, 48, TIME_S + self.sequence, TIME_NS)
        if self.whole_sums:
            struct.pack_into(">BBxxI", block, 12, 1, 4, self._sum ^ spoil)
        if self.sums:
            struct.pack_into(">I", block, 16, slow_crc32c(self.seed, bytes(block)) ^ spoil)
        self.put(bytes(block))
        self._sum = 0xFFFFFFFF
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF

    def transaction(self, *numbers: int, fill: int = 0x55) -> None:
        self.descriptor({number: bytes([fill, number & 255]) * (self.block_bytes // 2) for number in numbers})
        self.commit()


def fast_commit(number: int, tags: list[tuple[int, bytes]], block_bytes: int, head: bool, spoil: int = 0) -> bytes:
    """The blocks of one fast commit."""
    rows = [(9, struct.pack("<II", 0, number))] if head else []
    content, total, out = b"", 0, b""
    for kind, value in [*rows, *tags]:
        row = struct.pack("<HH", kind, len(value)) + value
        if len(content) + len(row) + 16 > block_bytes:
            pad = block_bytes - len(content) - 4
            filled = struct.pack("<HH", 7, pad) + bytes(pad)
            total, out, content = slow_crc32c(total, filled), out + content + filled, b""
        total, content = slow_crc32c(total, row), content + row
    tail = struct.pack("<HHI", 8, block_bytes - len(content) - 12 + 8, number)
    content += tail + struct.pack("<I", slow_crc32c(total, tail) ^ spoil)
    return out + content.ljust(block_bytes, b"\0")


def with_xfs_sum(block: bytearray) -> bytes:
    """A superblock of XFS, which takes the checksum of its first sector."""
    block[224:228] = bytes(4)
    struct.pack_into("<I", block, 224, slow_crc32c(0xFFFFFFFF, bytes(block[:512])) ^ 0xFFFFFFFF)
    return bytes(block)


@dataclass
class XfsBuilder:
    """An XFS log in a volume of 4 KiB blocks, written record by record."""

    log_sectors: int = 8192
    size_bytes: int = 32768
    cycle: int = 3
    sector: int = 0
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    tail: int = 3 << 32
    order: str = "<"

    def superblock(self) -> bytes:
        block = bytearray(4096)
        struct.pack_into(">4sIQ", block, 0, b"XFSB", 4096, 65536)
        struct.pack_into(">16sQ", block, 32, UUID, 16)
        struct.pack_into(">IIIIH", block, 84, 32768, 2, 0, self.log_sectors // 8, 0xB4A5)
        struct.pack_into(">H", block, 102, 512)
        block[124] = 15
        return with_xfs_sum(block)

    def record(
        self, operations: list[tuple[int, int, bytes]], spoil: str = "", mixed: bool = False
    ) -> tuple[int, bytes]:
        """One record, and its bytes as one: (first sector, content). ``write`` splits it at the end of the log."""
        data = b"".join(struct.pack(">IIBBH", tid, len(body), 0x69, flags, 0) + body for tid, flags, body in operations)
        length = -(-len(data) // 512) * 512
        heads = -(-self.size_bytes // 32768)
        payload = bytearray(data.ljust(length, b"\0"))
        kept = [payload[at : at + 4] for at in range(0, length, 512)]
        lsn = self.cycle << 32 | self.sector
        for index in range(len(kept)):
            beyond = self.sector + heads + index >= self.log_sectors
            payload[index * 512 : index * 512 + 4] = struct.pack(">I", self.cycle + beyond - (mixed and index == 1))
        header = bytearray(512)
        struct.pack_into(
            ">IIIIQQ4sII", header, 0, 0xFEEDBABE, self.cycle, 2, length, lsn, self.tail, bytes(4), 0, len(operations)
        )
        for index, word in enumerate(kept[:64]):
            header[44 + 4 * index : 48 + 4 * index] = word
        struct.pack_into(">I16sI", header, 300, 1 if self.order == "<" else 2, UUID, self.size_bytes)
        more = bytearray()
        for one in range(1, heads):
            part = bytearray(512)
            struct.pack_into(">I", part, 0, self.cycle + (self.sector + one >= self.log_sectors))
            for index, word in enumerate(kept[64 * one : 64 * one + 64]):
                part[4 + 4 * index : 8 + 4 * index] = word
            more += part
        total = slow_crc32c(0xFFFFFFFF, bytes(header[:328]))
        for one in range(1, -(-length // 32768)):
            total = slow_crc32c(total, bytes(more[(one - 1) * 512 :][:260]))
        total = slow_crc32c(total, bytes(payload)) ^ 0xFFFFFFFF
        struct.pack_into("<I", header, 32, total ^ (spoil == "sum"))
        first = self.sector
        content = bytes(header) + bytes(more) + bytes(payload)
        wraps, self.sector = divmod(first + len(content) // 512, self.log_sectors)
        self.cycle += wraps
        return first, content

    def write(self, record: tuple[int, bytes]) -> None:
        first, content = record
        inside = (self.log_sectors - first) * 512
        self.writes.append((first * 512, content[:inside]))
        if content[inside:]:
            self.writes.append((0, content[inside:]))

    def header_of(self, items: int) -> bytes:
        return struct.pack(f"{self.order}4I", 0x5452414E, 40, 0, items)

    def buffer(self, sector: int, count: int, flags: int = 0, regions: int = 2) -> list[bytes]:
        """A buffer item: its format, and one region of data."""
        return [struct.pack(f"{self.order}HHHHqI4x", 0x123C, regions, flags, count, sector, 1), b"D" * 128]

    def inode(self, sector: int, count: int) -> list[bytes]:
        return [struct.pack(f"{self.order}HHIHHIQ16xqii", 0x123B, 2, 1, 0, 0, 0, 131, sector, count, 0), b"C" * 176]

    def checkpoint(self, tid: int, *items: list[bytes]) -> list[tuple[int, int, bytes]]:
        """All operations of one checkpoint."""
        regions = [self.header_of(len(items)), *(region for item in items for region in item)]
        return [(tid, 1, b""), *((tid, 0, region) for region in regions), (tid, 2, b"")]


def run_of(number: int, block_bytes: int) -> list[int]:
    return [number * block_bytes, block_bytes]

"""A made-up recording of ``controller trace --record`` (docs/reference/format.md), for the page that plays it again."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import zstandard

RECORD = np.dtype(
    [(name, "<u8") for name in ("time_ns", "sector", "queue_ns", "device_ns", "total_ns", "inode")]
    + [(name, "<u4") for name in ("bytes", "process", "thread", "generation", "file_system")]
    + [("flags", "<u2"), ("operation", "u1"), ("unused", "u1"), ("name", "S16")]
)
SIZE_BYTES = 1 << 30


def block(kind: bytes, content: bytes) -> bytes:
    packed = zstandard.ZstdCompressor().compress(content)
    return struct.pack("<4sIII", kind, len(content), len(packed), zlib.crc32(packed)) + packed


def columns_of(records: np.ndarray) -> bytes:
    return b"".join(np.ascontiguousarray(records[name]).tobytes() for name in RECORD.names or ())


def made_up(names: Sequence[str] = (), seconds: int = 90, per_second: int = 40) -> bytes:
    """``names`` are those of files; the first one is that of a process as well."""
    chance = random.Random(1)
    files = names or ("/srv/base/16384/2619",)
    records = np.zeros(seconds * per_second, RECORD)
    for index, record in enumerate(records):
        device_ns = int(2 ** chance.gauss(18, 1.2))
        record["time_ns"] = index * 1_000_000_000 // per_second
        record["sector"], record["bytes"] = (
            chance.randrange(SIZE_BYTES // 512 - 64) // 8 * 8,
            4096 << chance.randrange(4),
        )
        record["queue_ns"], record["device_ns"], record["total_ns"] = 9000, device_ns, device_ns + 9000
        record["inode"], record["file_system"] = 1 + index % len(files), 254 << 20 | 3
        record["operation"], record["flags"] = int(chance.random() < 0.8), 2 * int(chance.random() < 0.3)
        record["process"], record["name"] = 900, (names[0] if names else "postgres").encode(errors="replace")[:15]
    begin = {
        "version": 1,
        "device": "/dev/vdb",
        "size_bytes": SIZE_BYTES,
        "clock_offset_ns": 1_790_000_000 * 10**9,
        "filters": {},
    }
    rows = [[254, 3, inode, 0, name] for inode, name in enumerate(files, 1)]
    return b"".join(
        (
            b"PYDBTIO\n", block(b"BEGN", json.dumps(begin).encode()), block(b"FILE", json.dumps(rows).encode()),
            block(b"RECS", columns_of(records)), block(b"END ", json.dumps({"lost": 2, "full": False}).encode()),
        )
    )  # fmt: skip

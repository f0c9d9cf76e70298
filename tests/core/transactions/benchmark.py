"""The cost of following a journal: thread CPU time per transaction and per MiB of the log, write by write and in batches."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial

import crc32c as library

from pydbt.core.transactions.followed_log import FollowedLog
from pydbt.core.transactions.jbd2_log import Jbd2Log
from pydbt.core.transactions.log_place import LogPlace
from pydbt.core.transactions.xfs_log import XfsLog
from pydbt.core.transactions.xfs_volume import read_xfs_superblock
from tests.core.transactions.captured import Written
from tests.core.transactions.plain_xfs import PlainXfsLog
from tests.lab.file_system_logs import REVOKES, V3, WIDE, Jbd2Builder, XfsBuilder

_TRANSACTIONS = 600
_RUNS = 7
_BEGIN = 1 << 20
_HEADER = struct.Struct(">IIIIQQ4sII")
Writes = list[tuple[int, bytes]]


def main() -> None:
    for words, incompat in (("checksums of version 3", REVOKES | WIDE | V3), ("no checksums", REVOKES | WIDE)):
        built = Jbd2Builder(block_bytes=4096, block_count=8192, incompat=incompat)
        for number in range(_TRANSACTIONS):
            built.transaction(*range(number, number + 6))
        head, writes = built.superblock(), built.writes
        report(f"jbd2, {words}, write by write", writes, partial(jbd2, head, writes))
    records = XfsBuilder(log_sectors=65536)
    for tid in range(_TRANSACTIONS):
        records.write(records.record(records.checkpoint(tid, *[records.buffer(8 * tid + one, 8) for one in range(6)])))
    block, made = records.superblock(), records.writes
    volume = read_xfs_superblock(block)
    place = LogPlace("xfs", ((_BEGIN, records.log_sectors * 512),), (), block)
    followed = FollowedLog(place)
    report("XFS, a plain reading", made, lambda: one_by_one(PlainXfsLog(volume), made))
    report("XFS, write by write", made, lambda: one_by_one(XfsLog(volume), made))
    report("XFS, batches of 10 records", made, lambda: in_batches(followed, made, 10))
    report("XFS, batches of 100 records", made, lambda: in_batches(followed, made, 100))
    report("XFS, one batch", made, lambda: in_batches(followed, made, _TRANSACTIONS))
    report("XFS, header, checksum and one tuple of each record: the least", made, lambda: least(made))


def jbd2(head: bytes, writes: Writes) -> Callable[[], int]:
    return one_by_one(Jbd2Log(head), writes)


def one_by_one(log: Jbd2Log | XfsLog | PlainXfsLog, writes: Writes) -> Callable[[], int]:
    return lambda: sum(len(log.written(offset, data)) for offset, data in writes)


def in_batches(log: FollowedLog, writes: Writes, size: int) -> Callable[[], int]:
    log.lost("the same log once more")
    batches = []
    for first in range(0, len(writes), size):
        written = Written(whole=True)
        for offset, data in writes[first : first + size]:
            written.write(_BEGIN + offset, data)
        batches.append((written.records(), written))
    return lambda: sum(len(log.captured(records, written.payload)) for records, written in batches)


def least(writes: Writes) -> Callable[[], int]:
    views = [memoryview(data) for _, data in writes]

    def read() -> int:
        found = []
        for view in views:
            head = _HEADER.unpack_from(view)
            total = library.crc32c(view[512:], library.crc32c(view[:328]))
            found.append((f"{head[1]}:{head[4] & 0xFFFFFFFF}", head[4], total))
        return len(found)

    return read


def report(words: str, writes: Writes, prepare: Callable[[], Callable[[], int]]) -> None:
    spent = []
    for _ in range(_RUNS):
        read = prepare()
        began = time.thread_time()
        ended = read()
        spent.append(time.thread_time() - began)
        assert ended == _TRANSACTIONS
    best, size = min(spent), sum(len(data) for _, data in writes)
    print(
        f"{words}: {best / _TRANSACTIONS * 1e6:.1f} µs per transaction, {best / size * (1 << 20) * 1e3:.2f} ms per MiB of the log"
    )


if __name__ == "__main__":
    main()

"""The cost of following a journal: thread CPU time per transaction and per MiB of the stream."""

from __future__ import annotations

import time

from pydbt.core.transactions.jbd2_log import Jbd2Log
from pydbt.core.transactions.xfs_log import XfsLog
from pydbt.core.transactions.xfs_volume import read_xfs_superblock
from tests.lab.file_system_logs import REVOKES, V3, WIDE, Jbd2Builder, XfsBuilder

_TRANSACTIONS = 300


def main() -> None:
    for words, incompat in (("checksums of version 3", REVOKES | WIDE | V3), ("no checksums", REVOKES | WIDE)):
        built = Jbd2Builder(block_bytes=4096, block_count=8192, incompat=incompat)
        for number in range(_TRANSACTIONS):
            built.transaction(*range(number, number + 6))
        log = Jbd2Log(built.superblock())
        report(f"jbd2, {words}", log, built.writes)
    records = XfsBuilder(log_sectors=65536)
    for tid in range(_TRANSACTIONS):
        records.write(records.record(records.checkpoint(tid, *[records.buffer(8 * tid + one, 8) for one in range(6)])))
    report("XFS", XfsLog(read_xfs_superblock(records.superblock())), records.writes)


def report(words: str, log: Jbd2Log | XfsLog, writes: list[tuple[int, bytes]]) -> None:
    began = time.thread_time()
    ended = sum(len(log.written(offset, data)) for offset, data in writes)
    spent = time.thread_time() - began
    assert ended == _TRANSACTIONS
    size = sum(len(data) for _, data in writes)
    print(
        f"{words}: {spent / ended * 1e6:.0f} µs per transaction, {spent / size * (1 << 20) * 1e3:.1f} ms per MiB of the log"
    )


if __name__ == "__main__":
    main()

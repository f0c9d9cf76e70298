"""Direct writes to a device, each to a place of its own, of many sizes and from all kinds of memory; a program of its own."""

from __future__ import annotations

import mmap
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

_KIB, _MIB = 1 << 10, 1 << 20
_HUGE_PAGES = 14  # MADV_HUGEPAGE


def main(path: str, threads: int, skips: list[int]) -> None:
    disk = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        end = os.lseek(disk, 0, os.SEEK_END)
        rng = random.Random(1)
        jobs, at = [], 0
        while True:
            size = rng.choice([4 * _KIB, 4 * _KIB, 4 * _KIB, 12 * _KIB, 64 * _KIB, 100 * _KIB, _MIB, 3 * _MIB])
            if at + size > end:
                break
            jobs.append((at, size, rng.choice(skips), rng.random() < 0.2))
            at += size
        rng.shuffle(jobs)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda job: write(disk, *job), jobs):
                pass
    finally:
        os.close(disk)


def write(disk: int, at: int, size: int, skip: int, huge: bool) -> None:
    """``skip``: where in its memory the data begins."""
    memory = mmap.mmap(-1, size + skip + 4 * _MIB * huge)
    if huge:
        memory.madvise(_HUGE_PAGES)
    memory[skip : skip + size] = os.urandom(size)
    with memoryview(memory) as whole, whole[skip : skip + size] as part:
        if huge and size >= 64 * _KIB:
            with part[: size // 2 // 512 * 512] as first, part[size // 2 // 512 * 512 :] as second:
                written = os.pwritev(disk, [first, second], at)
        else:
            written = os.pwrite(disk, part, at)
    assert written == size, (written, size)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(word) for word in sys.argv[3:]])

"""A program that writes its memory to a device, with O_DIRECT, and changes it meanwhile, as a guest that swaps makes its host do.

changing_memory.py DEVICE private|shared|file PIECES ROUNDS
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from pathlib import Path

PROGRAM = Path(__file__)
KINDS = ("private", "shared", "file")
_SIZE = 64 << 10
_PAGE = 4096
_PLACES = 200


def memory_of(kind: str) -> mmap.mmap:
    if kind == "file":
        descriptor = os.memfd_create("memory")
        os.ftruncate(descriptor, _SIZE)
        return mmap.mmap(descriptor, _SIZE)
    return mmap.mmap(-1, _SIZE, mmap.MAP_ANONYMOUS | (mmap.MAP_SHARED if kind == "shared" else mmap.MAP_PRIVATE))


def change(memory: mmap.mmap, done: threading.Event) -> None:
    number = 0
    while not done.is_set():
        number += 1
        place = 8 * (number % 500)
        for page in range(0, _SIZE, _PAGE):
            memory[page + place : page + place + 8] = number.to_bytes(8, "little")


def main(device: str, kind: str, pieces: int, rounds: int) -> None:
    """All of the memory in each round, in ``pieces`` vectors, to the places of the device in turn."""
    memory, done = memory_of(kind), threading.Event()
    memory.write(os.urandom(_SIZE))
    changer = threading.Thread(target=change, args=(memory, done))
    changer.start()
    try:
        disk = os.open(device, os.O_WRONLY | os.O_DIRECT)
        length = _SIZE // pieces
        for number in range(rounds):
            parts = [memoryview(memory)[at : at + length] for at in range(0, _SIZE, length)]
            os.pwritev(disk, parts, number % _PLACES * _SIZE)
            for part in parts:
                part.release()
    finally:
        done.set()
        changer.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))

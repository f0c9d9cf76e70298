"""In a machine: the digests of the blocks of a device, as its disk has them, past every cache; with Python alone.

usage: python3 -S -m tests.vm.guest_digests DEVICE FILE OFFSET:LENGTH...    in bytes; FILE gets 16 bytes for each block of 4 KiB
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys

BLOCK_BYTES = 4096
DIGEST_BYTES = 16
_PIECE_BYTES = 1 << 20


def digests(device: str, offset: int, length: int) -> bytes:
    """Of the blocks from an offset on; the last one may be short."""
    found = bytearray()
    memory = mmap.mmap(-1, _PIECE_BYTES)
    descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        for at in range(offset, offset + length, _PIECE_BYTES):
            wanted = min(_PIECE_BYTES, offset + length - at)
            with memoryview(memory) as view:
                if os.preadv(descriptor, [view[:wanted]], at) != wanted:
                    raise EOFError(f"{device} ends before byte {at + wanted}")
                for block in range(0, wanted, BLOCK_BYTES):
                    content = view[block : min(block + BLOCK_BYTES, wanted)]
                    found += hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
    finally:
        os.close(descriptor)
    return bytes(found)


def main(arguments: list[str]) -> None:
    device, file, *pieces = arguments
    with open(file, "wb") as output:
        for piece in pieces:
            offset, length = map(int, piece.split(":"))
            output.write(digests(device, offset, length))


if __name__ == "__main__":
    main(sys.argv[1:])

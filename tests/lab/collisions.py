"""Pairs of different blocks that have one xxh3_128 digest, as any user of a volume can make them.

A lane of the function multiplies the two halves of (data xor key) and adds the product to a sum, and the data to another sum.
Stripes are 64 bytes, and the key of a lane moves on by 8 bytes of the secret with each stripe.
"""

from __future__ import annotations

import struct

# The lower halves of the first two words of the public secret: the keys of the first lane in the stripes 0 and 1.
_PUBLIC_KEYS = (0x396CFEB8, 0x2C81017C)
# With a seed, both words that are the keys of the first lane in the stripes 0 and 6 move by the seed. These bits are the
# likeliest difference of their lower halves.
_LIKELY_DIFFERENCE = 0x45290A00


def colliding_blocks(block: bytes, difference: int = 0x1234567) -> tuple[bytes, bytes]:
    """Two blocks of 4096 bytes that differ and have the same digest under the public secret.

    Where the lower half of (data xor key) is zero, the product is zero whatever the upper half is: what is added to the data of
    one stripe and taken from that of another changes neither sum.
    """
    one = bytearray(block)
    for stripe, key in enumerate(_PUBLIC_KEYS):
        struct.pack_into("<I", one, stripe * 64, key)
    other = bytearray(one)
    for stripe, change in ((0, difference), (1, -difference)):
        at = stripe * 64 + 4
        struct.pack_into("<I", other, at, (struct.unpack_from("<I", one, at)[0] + change) & 0xFFFFFFFF)
    return bytes(one), bytes(other)


def sometimes_colliding_blocks(block: bytes) -> tuple[bytes, bytes]:
    """Two blocks of 4096 bytes that differ, and have the same digest under about one of a thousand seeds, whatever they are.

    The highest bits of two stripes change: the data's sum stays, and the products change by 2**31 times their lower halves, which
    cancel where these are the same and the signs differ.
    """
    one = bytearray(block)
    lower = struct.unpack_from("<I", one, 0)[0]
    struct.pack_into("<I", one, 6 * 64, lower ^ _LIKELY_DIFFERENCE)
    other = bytearray(one)
    for stripe in (0, 6):
        other[stripe * 64 + 7] ^= 0x80
    return bytes(one), bytes(other)

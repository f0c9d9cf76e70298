"""The checksum of state that is kept as text: a last line ``xxh3_128 <digest>``, by which a torn or edited text is recognized."""

from __future__ import annotations

import xxhash

_MARK = b"xxh3_128 "


def digest_of(text: bytes) -> bytes:
    """The xxh3_128 of a text as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(text).encode()


def with_checksum(text: bytes, gap: bytes = b"") -> bytes:
    """A text, and the line with its digest. A ``gap`` between the two is not digested."""
    return text + gap + _MARK + digest_of(text) + b"\n"


def checked(data: bytes, gap: bytes = b"") -> bytes:
    """The text to which ``with_checksum`` gave its line. ValueError when it is not whole."""
    text, mark, digest = data.rpartition(gap + _MARK)
    if not mark or digest != digest_of(text) + b"\n":
        raise ValueError("its checksum is missing or wrong")
    return text

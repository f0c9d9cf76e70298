"""Packed structures whose fields have the names of docs/reference/format.md, so that a test can compare both."""

from __future__ import annotations

import struct


class Layout:
    """A little-endian structure without gaps. ``codes`` are the struct module's, by field in their order.

    Every field is one value for ``pack``, and one of what ``unpack`` gives, except for padding (``x``).
    """

    __slots__ = ("codes", "pack", "size", "unpack", "unpack_from")

    def __init__(self, **codes: str) -> None:
        packed = struct.Struct("<" + "".join(codes.values()))
        self.codes = codes
        self.size = packed.size
        self.pack, self.unpack, self.unpack_from = packed.pack, packed.unpack, packed.unpack_from

"""Made-up kernel images: the header of a bzImage, and a compressed ELF file with types (Documentation/arch/x86/boot.rst)."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable

import zstandard

_SETUP_SECTORS = 3
_HEADER_BYTES = (1 + _SETUP_SECTORS) * 512
_VERSION_AT = 0x600
_PAYLOAD_OFFSET = 64

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "lz4": lambda data: subprocess.run(["lz4", "-lc"], input=data, capture_output=True, check=True).stdout,
}


def kernel_image(types: bytes | None, names: str, packed_by: str = "zstd") -> bytes:
    """``names``: as init/version.c writes them. Without ``types`` the ELF file has no section for them."""
    packed = PACKERS[packed_by](elf({b".text": b"\x90" * 64} | ({b".BTF": types} if types is not None else {})))
    payload = packed if packed_by == "none" else packed + struct.pack("<I", 1 << 20)
    header = bytearray(_HEADER_BYTES)
    header[0x1F1] = _SETUP_SECTORS
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, 0x020F)
    struct.pack_into("<H", header, 0x20E, _VERSION_AT - 0x200)
    struct.pack_into("<II", header, 0x248, _PAYLOAD_OFFSET, len(payload))
    header[_VERSION_AT : _VERSION_AT + len(names) + 1] = names.encode() + b"\0"
    return bytes(header) + bytes(_PAYLOAD_OFFSET) + payload + bytes(512)


def elf(sections: dict[bytes, bytes]) -> bytes:
    """An ELF file of 64 bits with these sections, and no program (elf(5))."""
    names = b"\0" + b"".join(name + b"\0" for name in (*sections, b".shstrtab"))
    rows, content = [bytes(64)], bytearray(64)
    for name, data in (sections | {b".shstrtab": names}).items():
        rows.append(
            struct.pack(
                "<IIQQQQIIQQ", names.index(b"\0" + name + b"\0") + 1, 1, 0, 0, len(content), len(data), 0, 0, 1, 0
            )
        )
        content += data
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, len(content), 0, 64, 56, 0, 64, len(rows), len(rows) - 1)
    return head + bytes(content[64:]) + b"".join(rows)

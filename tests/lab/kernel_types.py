"""Makes small files of kernels' types for tests/test_kernel_layouts.py: of a BTF blob of 5 MB, the types that layouts ask for.

    .venv/bin/python -m tests.lab.kernel_types /sys/kernel/btf/vmlinux tests/kernel_types/6.18-my-distribution.btf.xz

The source is BTF, or a kernel image (vmlinuz, as packages hold it) that has it inside. Format: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import lzma
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "kernel_types"

# Structs that are kept with all their members. Any other struct that lies inside one of them keeps its name and its size.
WHOLE = [
    "address_space",
    "bio",
    "bio_vec",
    "block_device",
    "buffer_head",
    "bvec_iter",
    "file",
    "folio",
    "gendisk",
    "iomap_dio",
    "kiocb",
    "page",
    "request",
    "request_queue",
]
# Structs of hundreds of members, and those that layouts know of them.
PARTS = {
    "task_struct": ("group_leader", "start_boottime", "flags", "comm"),
    "inode": ("i_ino", "i_mode", "i_rdev", "i_sb", "i_generation", "dirtied_when", "i_data"),
    "super_block": ("s_dev",),
}
ENUMS = ("bh_state_bits", "bpf_func_id", "pageflags", "req_flag_bits", "req_op", "req_opf")
TRACEPOINTS = [
    "block_bio_complete",
    "block_bio_queue",
    "block_rq_complete",
    "block_rq_issue",
    "block_split",
    "writeback_dirty_folio",
    "writeback_dirty_page",
]

# Nothing is read of these: that they are there tells something of the kernel (pydbt/kernel/layout.py).
NAMES_ALONE = ("class_srcu_fast_notrace_t", "tracepoint_srcu_srcu_data")

HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MAGIC = b"\x9f\xeb\x01\x00" + struct.pack("<I", HEADER.size)
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD = 1, 2, 3, 4, 5, 6, 7
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC_PROTO = 8, 9, 10, 11, 13
_VAR, _DATASEC, _DECL_TAG, _TYPE_TAG, _ENUM64 = 14, 15, 17, 18, 19
TAIL_BYTES = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
MEMBER_BYTES = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}


class Smaller:
    """Copies chosen types of a BTF blob into a new one."""

    def __init__(self, blob: bytes) -> None:
        _, _, _, size, type_at, type_bytes, string_at, string_bytes = HEADER.unpack_from(blob)
        self._types = blob[size + type_at : size + type_at + type_bytes]
        self._strings = blob[size + string_at : size + string_at + string_bytes]
        self._places = [0]
        self._by_name: dict[tuple[str, int], int] = {}
        at = 0
        while at < len(self._types):
            name, info, _ = _TYPE.unpack_from(self._types, at)
            kind = info >> 24 & 0x1F
            if name and kind in (_STRUCT, _UNION, _ENUM, _ENUM64, _TYPEDEF, _VAR):
                self._by_name.setdefault((self._text(name), kind), len(self._places))
            self._places.append(at)
            at += 12 + TAIL_BYTES.get(kind, 0) + MEMBER_BYTES.get(kind, 0) * (info & 0xFFFF)
        self._kept: dict[int, int] = {}
        self._made: list[bytes] = []
        self._names = {"": 0}
        self._new_strings = b"\0"
        self._prototypes = self._tracepoint_prototypes()

    def blob(self) -> bytes:
        """The chosen types and nothing else. A kernel may lack any of them."""
        for name in (*WHOLE, *PARTS):
            self._keep_named(name, _STRUCT, _UNION)
        for name in ENUMS:
            self._keep_named(name, _ENUM, _ENUM64)
        for name in TRACEPOINTS:
            self._keep_named(f"btf_trace_{name}", _TYPEDEF)
        for name in NAMES_ALONE:
            self._keep_name(name, _TYPEDEF, _VAR)
        types = b"".join(self._made)
        header = HEADER.pack(0xEB9F, 1, 0, HEADER.size, 0, len(types), len(types), len(self._new_strings))
        return header + types + self._new_strings

    def _keep_named(self, name: str, *kinds: int) -> None:
        for kind in kinds:
            if number := self._by_name.get((name, kind)):
                self._keep(number)

    def _keep_name(self, name: str, *kinds: int) -> None:
        for kind in kinds:
            if (name, kind) in self._by_name:
                self._made.append(self._head(name, kind << 24, 0) + bytes(TAIL_BYTES.get(kind, 0)))

    def _keep(self, number: int) -> int:
        """The new number of a type. A type is entered before what it is made of, so that its number is known."""
        if not number:
            return 0
        if number not in self._kept:
            self._made.append(b"")
            self._kept[number] = len(self._made)
            self._made[self._kept[number] - 1] = self._copied(number)
        return self._kept[number]

    def _copied(self, number: int) -> bytes:
        at = self._places[number]
        name_at, info, value = _TYPE.unpack_from(self._types, at)
        name, kind, tail = self._text(name_at), info >> 24 & 0x1F, at + 12
        if kind in (_STRUCT, _UNION):
            return self._aggregate(name, info, value, tail)
        if kind == _PTR:
            return self._head("", info, self._pointee(value))
        if kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
            return self._head(name, info, self._keep(value))
        if kind == _ARRAY:
            element, _, count = struct.unpack_from("<III", self._types, tail)
            return self._head("", info, value) + struct.pack("<III", self._keep(element), 0, count)
        if kind in (_ENUM, _ENUM64):
            return self._enumeration(name, kind, info, value, tail)
        if kind == _FUNC_PROTO:
            pairs = [struct.unpack_from("<II", self._types, tail + 8 * place) for place in range(info & 0xFFFF)]
            tails = [struct.pack("<II", 0, self._keep(kept)) for _, kept in pairs]
            return self._head("", info, 0) + b"".join(tails)
        return self._head(name, info, value) + self._types[tail : tail + TAIL_BYTES.get(kind, 0)]

    def _aggregate(self, name: str, info: int, size: int, tail: int) -> bytes:
        wanted = PARTS.get(name)
        if name and name not in WHOLE and wanted is None:
            return self._head(name, info & ~0xFFFF, size)
        members = []
        for place in range(info & 0xFFFF):
            name_at, kept, bits = struct.unpack_from("<III", self._types, tail + 12 * place)
            member = self._text(name_at)
            if wanted is None or member in wanted or (not member and self._holds(kept, wanted)):
                members.append(struct.pack("<III", self._name(member), self._keep(kept), bits))
        return self._head(name, info & ~0xFFFF | len(members), size) + b"".join(members)

    def _holds(self, number: int, wanted: tuple[str, ...]) -> bool:
        """Whether a nameless struct or union has one of these members."""
        at = self._places[number]
        _, info, _ = _TYPE.unpack_from(self._types, at)
        if info >> 24 & 0x1F not in (_STRUCT, _UNION):
            return False
        for place in range(info & 0xFFFF):
            name_at, inner, _ = struct.unpack_from("<III", self._types, at + 12 + 12 * place)
            if self._text(name_at) in wanted or (not name_at and self._holds(inner, wanted)):
                return True
        return False

    def _enumeration(self, name: str, kind: int, info: int, size: int, tail: int) -> bytes:
        form = "<Ii" if kind == _ENUM else "<IQ"
        values = [
            struct.unpack_from(form, self._types, tail + struct.calcsize(form) * at) for at in range(info & 0xFFFF)
        ]
        return self._head(name, info, size) + b"".join(
            struct.pack(form, self._name(self._text(word)), value) for word, value in values
        )

    def _pointee(self, number: int) -> int:
        """A struct behind a pointer by its name alone, unless it is kept for itself; of anything else nothing."""
        while number:
            name_at, info, value = _TYPE.unpack_from(self._types, self._places[number])
            kind, name = info >> 24 & 0x1F, self._text(name_at)
            if kind == _FUNC_PROTO and number in self._prototypes:
                return self._keep(number)
            if kind in (_STRUCT, _UNION, _FWD):
                if name in WHOLE or name in PARTS:
                    return self._keep(number)
                self._made.append(self._head(name, _FWD << 24, 0))
                return len(self._made)
            if kind not in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG):
                return 0
            number = value
        return 0

    def _tracepoint_prototypes(self) -> set[int]:
        found = set()
        for name in TRACEPOINTS:
            if typedef := self._by_name.get((f"btf_trace_{name}", _TYPEDEF)):
                pointer = _TYPE.unpack_from(self._types, self._places[typedef])[2]
                found.add(_TYPE.unpack_from(self._types, self._places[pointer])[2])
        return found

    def _head(self, name: str, info: int, value: int) -> bytes:
        return _TYPE.pack(self._name(name), info, value)

    def _name(self, text: str) -> int:
        if text not in self._names:
            self._names[text] = len(self._new_strings)
            self._new_strings += text.encode() + b"\0"
        return self._names[text]

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()


def types_in(data: bytes) -> bytes:
    """The BTF in a file: the file itself, or in a kernel image. ValueError when there is none."""
    found = max((blob for unpacked in _unpacked(data) for blob in _blobs(unpacked)), key=len, default=b"")
    if not found:
        raise ValueError(
            "no BTF in it: it must be /sys/kernel/btf/vmlinux, or a kernel image with CONFIG_DEBUG_INFO_BTF"
        )
    return found


def _blobs(data: bytes) -> Iterator[bytes]:
    for match in re.finditer(re.escape(_MAGIC), data):
        _, _, _, size, _, _, strings, string_bytes = HEADER.unpack_from(data, match.start())
        yield data[match.start() : match.start() + size + strings + string_bytes]


def _unpacked(data: bytes) -> Iterator[bytes]:
    """The data itself, and what was compressed into it (Documentation/arch/x86/boot.rst: any of four kinds)."""
    yield data
    unpackers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b\x08": lambda packed: zlib.decompressobj(31).decompress(packed),
        b"\xfd7zXZ\0": lambda packed: lzma.LZMADecompressor().decompress(packed),
        b"\x28\xb5\x2f\xfd": lambda packed: _by_program(["zstd", "-dcq"], packed),
        b"\x02\x21\x4c\x18": lambda packed: _by_program(["lz4", "-dcq"], packed),
    }
    for magic, unpack in unpackers.items():
        for match in re.finditer(re.escape(magic), data[: len(data) // 2]):
            try:
                yield unpack(data[match.start() :])
            except (OSError, ValueError, lzma.LZMAError, zlib.error):
                continue


def _by_program(command: list[str], data: bytes) -> bytes:
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout


def small(blob: bytes) -> bytes:
    """What a file of tests/kernel_types holds, before it is compressed."""
    return Smaller(blob).blob()


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(lzma.compress(small(types_in(Path(sys.argv[1]).read_bytes())), preset=9))

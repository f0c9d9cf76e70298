"""The running kernel's own description of its types (BTF), read without a tool.

Format: Documentation/bpf/btf.rst. The layout of a struct, the value of an enumerator and the arguments of a tracepoint come
from here, and never from headers, which may belong to another kernel.
"""

from __future__ import annotations

import os
import struct
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydbt.core.errors import MachineError

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC_PROTO = 8, 9, 10, 11, 13
_VAR, _DATASEC, _DECL_TAG, _TYPE_TAG, _ENUM64 = 14, 15, 17, 18, 19
_STEPS_MAX = 100  # from one type to the one that it stands for; kernels have ten at most
_TRANSPARENT = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)

_FIXED_TAIL_BYTES = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_MEMBER_BYTES = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}


class Field(NamedTuple):
    """Where a member lies: bytes from the start of the outermost struct, and its size in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Type:
    name_offset: int
    kind: int
    kind_flag: bool
    members: int  # vlen
    size_or_type: int
    tail: int  # offset in the type section of the data that this kind adds


def require_btf(path: Path = VMLINUX_BTF) -> None:
    """MachineError when the kernel was built without BTF."""
    if not path.exists():
        raise MachineError(
            f"{path} is missing: pydbt needs a kernel built with CONFIG_DEBUG_INFO_BTF, "
            "as those of Debian 12, Ubuntu 24.04 and later"
        )


def _sections(blob: bytes) -> tuple[bytes, bytes]:
    """Types and strings. ValueError when it is no BTF."""
    if len(blob) < _HEADER.size:
        raise ValueError("BTF data is shorter than its header")
    magic, _version, _flags, header_size, type_start, type_size, string_start, string_size = _HEADER.unpack_from(blob)
    if magic != _MAGIC:
        raise ValueError(f"BTF magic is {magic:#x}, not {_MAGIC:#x}")
    types, strings = header_size + type_start, header_size + string_start
    return blob[types : types + type_size], blob[strings : strings + string_size]


class Btf:
    """All types of one BTF blob; lookups by name. ``release``: the kernel's, for messages; by default the running one's."""

    def __init__(self, blob: bytes, release: str = "") -> None:
        self.release = release or os.uname().release
        self._types, self._strings = _sections(blob)
        self._offsets, self._by_name = self._index()

    def with_module(self, blob: bytes) -> Btf:
        """These types and a module's own, whose numbers and strings begin where these end. ValueError."""
        both = copy(self)
        types, strings = _sections(blob)
        both._types, both._strings = self._types + types, self._strings + strings
        both._offsets, both._by_name = both._index()
        return both

    @classmethod
    def of_running_kernel(cls, path: Path = VMLINUX_BTF) -> Btf:
        """The BTF of the kernel itself. MachineError when it was built without BTF."""
        require_btf(path)
        return cls(path.read_bytes())

    def offset(self, struct_name: str, member: str) -> int:
        """Bytes from the start of ``struct_name`` to ``member``; see :meth:`field`."""
        return self.field(struct_name, member).offset

    def field(self, struct_name: str, member: str) -> Field:
        """Place and size of ``member``. A dot enters a named struct; anonymous structs are searched as well.

        KeyError names a struct or member that this kernel lacks.
        """
        current = self._find(struct_name, (_STRUCT, _UNION))
        offset = 0
        for part in member.split("."):
            found = self._member(current, part)
            if found is None:
                raise KeyError(f"struct {struct_name} has no member {member}")
            offset, current = offset + found[0], found[1]
        return Field(offset, self._size(current))

    def has(self, struct_name: str, member: str) -> bool:
        """Whether this kernel's struct has that member."""
        try:
            self.field(struct_name, member)
        except KeyError:
            return False
        return True

    def knows(self, name: str) -> bool:
        """Whether there is a type or a per-CPU variable of that name."""
        try:
            self._find(name, (_STRUCT, _UNION, _ENUM, _ENUM64, _TYPEDEF, _VAR))
        except KeyError:
            return False
        return True

    def size(self, struct_name: str) -> int:
        """Size of a struct in bytes."""
        return self._type(self._find(struct_name, (_STRUCT, _UNION))).size_or_type

    def enumerators(self, *names: str) -> dict[str, int]:
        """Names and values of the first of these enums that exists, because kernels rename them."""
        for name in names:
            try:
                found = self._type(self._find(name, (_ENUM, _ENUM64)))
            except KeyError:
                continue
            step, form = (8, "<Ii") if found.kind == _ENUM else (12, "<IQ")
            pairs = (struct.unpack_from(form, self._types, found.tail + i * step) for i in range(found.members))
            return {self._string(name_offset): value for name_offset, value in pairs}
        raise KeyError(f"no enum {' or '.join(names)}")

    def lone_enumerator(self, name: str) -> int | None:
        """The value of a name in an enum that has none itself; None when this kernel does not know the name."""
        offset = self._strings.find(b"\0" + name.encode() + b"\0") + 1
        if not offset:
            return None
        for number in range(1, len(self._offsets)):
            found = self._type(number)
            if found.kind == _ENUM and not found.name_offset:
                for index in range(found.members):
                    at, value = struct.unpack_from("<Ii", self._types, found.tail + index * 8)
                    if at == offset:
                        return int(value)
        return None

    def tracepoint_arguments(self, tracepoint: str) -> list[str]:
        """Names of a raw tracepoint's arguments, in order.

        A pointer to a struct is named after the struct, anything else ``argument<n>``.
        """
        pointer = self._type(self._find(f"btf_trace_{tracepoint}", (_TYPEDEF,))).size_or_type
        prototype = self._type(self._type(pointer).size_or_type)
        if prototype.kind != _FUNC_PROTO:
            raise KeyError(f"tracepoint {tracepoint} has no prototype")
        names = []
        for index in range(1, prototype.members):  # the first is the tracepoint's own data
            _, type_id = struct.unpack_from("<II", self._types, prototype.tail + index * 8)
            names.append(self._pointee_name(type_id) or f"argument{index - 1}")
        return names

    def tracepoint_type(self, tracepoint: str) -> int:
        """The number of the tracepoint's type, for ``attach_btf_id`` of bpf(2)."""
        return self._find(f"btf_trace_{tracepoint}", (_TYPEDEF,))

    def _index(self) -> tuple[list[int], dict[int, list[int]]]:
        """Offset of every type by its number, and numbers by the offset of the type's name."""
        types, unpack, fixed, per_member = self._types, _TYPE.unpack_from, _FIXED_TAIL_BYTES, _MEMBER_BYTES
        offsets = [0]
        by_name: dict[int, list[int]] = {}
        position, end = 0, len(types)
        while position < end:
            name_offset, info, _ = unpack(types, position)
            if name_offset:
                by_name.setdefault(name_offset, []).append(len(offsets))
            offsets.append(position)
            kind = info >> 24 & 0x1F
            position += 12 + fixed.get(kind, 0) + per_member.get(kind, 0) * (info & 0xFFFF)
        return offsets, by_name

    def _type(self, number: int) -> _Type:
        position = self._offsets[number]
        name_offset, info, size_or_type = _TYPE.unpack_from(self._types, position)
        return _Type(name_offset, info >> 24 & 0x1F, bool(info >> 31), info & 0xFFFF, size_or_type, position + 12)

    def _string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _find(self, name: str, kinds: tuple[int, ...]) -> int:
        needle = b"\0" + name.encode() + b"\0"
        at = self._strings.find(needle)
        while at >= 0:
            for number in self._by_name.get(at + 1, ()):
                if self._type(number).kind in kinds:
                    return number
            at = self._strings.find(needle, at + 1)
        raise KeyError(f"this kernel has no type {name}")

    def _resolve(self, number: int) -> int:
        """ValueError for types that stand for each other: no kernel has such, but the file of one may be damaged."""
        for _ in range(_STEPS_MAX):
            if not number or self._type(number).kind not in _TRANSPARENT:
                return number
            number = self._type(number).size_or_type
        raise ValueError("its types stand for each other without an end")

    def _member(self, number: int, name: str) -> tuple[int, int] | None:
        """Offset and type of a member, through anonymous structs and unions."""
        outer = self._type(self._resolve(number))
        if outer.kind not in (_STRUCT, _UNION):
            return None
        for index in range(outer.members):
            name_offset, type_id, bits = struct.unpack_from("<III", self._types, outer.tail + index * 12)
            if outer.kind_flag:
                bits &= 0xFFFFFF  # the rest is a bit field's width
            if name_offset:
                if self._string(name_offset) == name:
                    return bits // 8, type_id
            elif found := self._member(type_id, name):
                return bits // 8 + found[0], found[1]
        return None

    def _size(self, number: int) -> int:
        found = self._type(self._resolve(number))
        if found.kind == _PTR:
            return 8
        if found.kind == _ARRAY:
            element: int
            count: int
            element, _, count = struct.unpack_from("<III", self._types, found.tail)
            return self._size(element) * count
        return found.size_or_type

    def _pointee_name(self, number: int) -> str:
        pointer = self._type(self._resolve(number))
        if pointer.kind != _PTR or not pointer.size_or_type:
            return ""
        return self._string(self._type(self._resolve(pointer.size_or_type)).name_offset)

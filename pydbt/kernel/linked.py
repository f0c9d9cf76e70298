"""Puts the functions that bpf_loop() calls behind the program that names them.

bcc compiles each function to code of its own and knows no calls between them. In a program the place of such a function is a
number (``STEPS_*`` in bpf/capture.bpf.c), loaded into a register as 64 bits. Here it becomes a reference to the function's code,
which follows the program's (``BPF_PSEUDO_FUNC``, include/uapi/linux/bpf.h). The kernel wants to know of each function that it is
one: from type information (BTF, Documentation/bpf/btf.rst) that is made here too.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from pydbt.kernel.code import INSTRUCTION_BYTES, set_wide_load, wide_loads

_PSEUDO_FUNC = 4

_BTF_MAGIC, _BTF_VERSION = 0xEB9F, 1
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_KIND_INT, _KIND_FUNC, _KIND_FUNC_PROTO = 1, 12, 13
_INT_SIGNED, _INT_BITS = 1 << 24, 32
_STATIC, _GLOBAL = 0, 1
_NUMBER_OF_INT, _NUMBER_OF_PROTOTYPE, _FIRST_FUNCTION = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Linked:
    """A program with its functions. ``functions``: the first instruction and the name of each, the program's own first."""

    code: bytes
    functions: tuple[tuple[int, str], ...]

    def function_information(self) -> bytes:
        """``struct bpf_func_info`` of each; its types are those of ``types``."""
        pairs = ((first, _FIRST_FUNCTION + at) for at, (first, _) in enumerate(self.functions))
        return b"".join(struct.pack("<II", *pair) for pair in pairs)

    def types(self) -> bytes:
        """BTF that says: each of these is a function that returns an int."""
        strings = bytearray(b"\0")

        def name(text: str) -> int:
            at = len(strings)
            strings.extend(text.encode() + b"\0")
            return at

        types = _TYPE.pack(name("int"), _KIND_INT << 24, 4) + struct.pack("<I", _INT_SIGNED | _INT_BITS)
        types += _TYPE.pack(0, _KIND_FUNC_PROTO << 24, _NUMBER_OF_INT)
        for at, (_, function) in enumerate(self.functions):
            linkage = _STATIC if at else _GLOBAL
            types += _TYPE.pack(name(function), _KIND_FUNC << 24 | linkage, _NUMBER_OF_PROTOTYPE)
        header = _HEADER.pack(_BTF_MAGIC, _BTF_VERSION, 0, _HEADER.size, 0, len(types), len(types), len(strings))
        return header + types + bytes(strings)


def numbers_in(code: bytes, numbers: Mapping[int, str]) -> list[tuple[int, str]]:
    """Where a program loads one of these numbers: the instruction's index and the function's name."""
    return [(at, numbers[bits]) for at, source, bits in wide_loads(code) if not source and bits in numbers]


def link(name: str, code: bytes, numbers: Mapping[int, str], functions: Mapping[str, bytes]) -> Linked:
    """The program ``name`` with the functions that it loads by their numbers. KeyError when one of them is not there."""
    linked, places = bytearray(code), {name: 0}
    for at, function in numbers_in(code, numbers):
        if function not in places:
            places[function] = len(linked) // INSTRUCTION_BYTES
            linked += functions[function]
        # the distance alone, in the lower half (32 bits, signed)
        set_wide_load(linked, at, _PSEUDO_FUNC, (places[function] - at - 1) & 0xFFFF_FFFF)
    return Linked(bytes(linked), tuple((first, function) for function, first in places.items()))

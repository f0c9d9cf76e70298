"""The programs' code as the compiler made it, before anything of one volume or one machine is in it.

Two kinds of places in the code are filled when it is loaded. Where a program uses a map, there is the map's number in
``Code.maps``; the kernel wants a descriptor. Where it uses something of the volume, its first sector for example, there is a
number that stands for it (``VALUE_*`` in bpf/capture.bpf.c). Both are loads of 64 bits into a register, and the verifier takes
what is loaded for a constant.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass

INSTRUCTION_BYTES = 8
# opcode; destination (4 bits) and source (4 bits) registers; offset; immediate
INSTRUCTION = struct.Struct("<BBhi")
_LOAD_64_BITS = 0x18  # BPF_LD | BPF_IMM | BPF_DW, which takes two instructions
_NUMBER, _PSEUDO_MAP_FD = 0, 1  # what the source register tells of the 64 bits


@dataclass(frozen=True, slots=True)
class MapShape:
    """Kind and sizes of a map (union bpf_attr, include/uapi/linux/bpf.h). The loader decides ``max_entries`` of some."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Code:
    """Functions by their names, and the maps that they use, by number."""

    functions: Mapping[str, bytes]
    maps: tuple[MapShape, ...]

    def to_json(self) -> str:
        functions = {name: base64.b64encode(code).decode() for name, code in self.functions.items()}
        return json.dumps({"functions": functions, "maps": [astuple(shape) for shape in self.maps]})

    @classmethod
    def from_json(cls, text: str) -> Code:
        """ValueError, TypeError or KeyError unless ``to_json`` made it."""
        fields = json.loads(text)
        functions = {name: base64.b64decode(code, validate=True) for name, code in fields["functions"].items()}
        return cls(functions, tuple(MapShape(*shape) for shape in fields["maps"]))


def wide_loads(code: bytes) -> Iterator[tuple[int, int, int]]:
    """Each load of 64 bits: the instruction's index, its source register, and the bits."""
    at, end = 0, len(code) // INSTRUCTION_BYTES
    while at < end:
        opcode, registers, _, low = INSTRUCTION.unpack_from(code, at * INSTRUCTION_BYTES)
        if opcode != _LOAD_64_BITS:
            at += 1
            continue
        high = INSTRUCTION.unpack_from(code, (at + 1) * INSTRUCTION_BYTES)[3]
        yield at, registers >> 4, (high & 0xFFFF_FFFF) << 32 | low & 0xFFFF_FFFF
        at += 2


def set_wide_load(code: bytearray, at: int, source: int, bits: int) -> None:
    """Change what the load at this instruction loads, and what that means; its register stays."""
    opcode, registers, offset, _ = INSTRUCTION.unpack_from(code, at * INSTRUCTION_BYTES)
    low, high = struct.unpack("<ii", struct.pack("<Q", bits))
    INSTRUCTION.pack_into(code, at * INSTRUCTION_BYTES, opcode, registers & 0xF | source << 4, offset, low)
    INSTRUCTION.pack_into(code, (at + 1) * INSTRUCTION_BYTES, 0, 0, 0, high)


def maps_in(code: bytes) -> set[int]:
    """The maps that a function uses: descriptors as the compiler left them, numbers in ``Code``."""
    return {bits for _, source, bits in wide_loads(code) if source == _PSEUDO_MAP_FD}


def with_maps(code: bytes, places: Mapping[int, int]) -> bytes:
    """The code with each map replaced by another descriptor or number. KeyError for one that is not told."""
    filled = bytearray(code)
    for at, source, bits in wide_loads(code):
        if source == _PSEUDO_MAP_FD:
            set_wide_load(filled, at, source, places[bits])
    return bytes(filled)


def with_values(code: bytes, values: Mapping[int, int]) -> bytes:
    """The code with values in the place of the numbers that stand for them."""
    filled = bytearray(code)
    for at, source, bits in wide_loads(code):
        if source == _NUMBER and bits in values:
            set_wide_load(filled, at, source, values[bits])
    return bytes(filled)

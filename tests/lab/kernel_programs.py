"""The eBPF programs that the kernel has, as ``bpftool prog`` shows them (bpf(2))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

from pydbt.kernel import syscalls
from pydbt.posix import libc

_BPF = 321  # on x86-64
_GET_NEXT_ID, _GET_FD_BY_ID, _INFO_BY_FD = 11, 13, 15
_ATTRIBUTE_BYTES = 16


# A kernel's verifier gives up after a million; by half of that the next kernels may grow.
WALKED_AT_MOST = 500_000
_PROGRAM_INFO_BYTES, _WALKED_AT = 256, 216  # verified_insns of struct bpf_prog_info, since v5.16


def program_names() -> dict[int, str]:
    """By their numbers. One that ends meanwhile is left out."""
    return {number: name for number, name, _ in _programs()}


def walked_instructions() -> dict[str, int]:
    """How many instructions the verifier has walked for each program of ours; the most, where several have one name."""
    walked: dict[str, int] = {}
    for _, name, instructions in _programs():
        if name.startswith("pydbt_"):
            walked[name] = max(instructions, walked.get(name, 0))
    return walked


def _programs() -> Iterator[tuple[int, str, int]]:
    number = 0
    while True:
        attribute = _attribute(number)
        try:
            libc.syscall(_BPF, _GET_NEXT_ID, attribute, _ATTRIBUTE_BYTES)
        except FileNotFoundError:
            return
        (number,) = struct.unpack_from("<I", attribute.raw, 4)
        try:
            descriptor = libc.syscall(_BPF, _GET_FD_BY_ID, _attribute(number), _ATTRIBUTE_BYTES)
        except FileNotFoundError:
            continue
        try:
            yield number, syscalls.program_info(descriptor).name, _walked(descriptor)
        finally:
            os.close(descriptor)


def _walked(descriptor: int) -> int:
    info = ctypes.create_string_buffer(_PROGRAM_INFO_BYTES)
    words = struct.pack("<IIQ", descriptor, len(info), ctypes.addressof(info))
    libc.syscall(_BPF, _INFO_BY_FD, ctypes.create_string_buffer(words, _ATTRIBUTE_BYTES), _ATTRIBUTE_BYTES)
    return int(struct.unpack_from("<I", info.raw, _WALKED_AT)[0])


def _attribute(number: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("<I", number).ljust(_ATTRIBUTE_BYTES, b"\0"), _ATTRIBUTE_BYTES)

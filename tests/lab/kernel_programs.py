"""The eBPF programs that the kernel has, as ``bpftool prog`` shows them (bpf(2))."""

from __future__ import annotations

import ctypes
import os
import struct

from pydbt.kernel import syscalls
from pydbt.posix import libc

_BPF = 321  # on x86-64
_GET_NEXT_ID, _GET_FD_BY_ID = 11, 13
_ATTRIBUTE_BYTES = 16


def program_names() -> dict[int, str]:
    """By their numbers. One that ends meanwhile is left out."""
    found: dict[int, str] = {}
    number = 0
    while True:
        attribute = _attribute(number)
        try:
            libc.syscall(_BPF, _GET_NEXT_ID, attribute, _ATTRIBUTE_BYTES)
        except FileNotFoundError:
            return found
        (number,) = struct.unpack_from("<I", attribute.raw, 4)
        try:
            descriptor = libc.syscall(_BPF, _GET_FD_BY_ID, _attribute(number), _ATTRIBUTE_BYTES)
        except FileNotFoundError:
            continue
        found[number] = syscalls.program_info(descriptor).name
        os.close(descriptor)


def _attribute(number: int) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(struct.pack("<I", number).ljust(_ATTRIBUTE_BYTES, b"\0"), _ATTRIBUTE_BYTES)

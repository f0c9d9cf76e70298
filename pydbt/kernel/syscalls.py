"""bpf(2) and membarrier(2): pins, maps, programs, and the grace period.

Layouts: include/uapi/linux/bpf.h and include/uapi/linux/membarrier.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import struct
from dataclasses import dataclass
from pathlib import Path

from pydbt.core.errors import MachineError
from pydbt.kernel.code import INSTRUCTION_BYTES
from pydbt.posix import libc

# bpf, membarrier. Only where stores stay in order: see submit_record() in bpf/capture.bpf.c.
_NUMBERS = {"x86_64": (321, 324)}

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_LOOKUP_BATCH = 0, 1, 2, 3, 24
_BATCH_COUNT_OFFSET = 32  # in union bpf_attr: of the entries that there is room for, and then of those that came
_PROG_LOAD, _OBJ_PIN, _OBJ_GET, _PROG_TEST_RUN, _INFO_BY_FD, _RAW_TRACEPOINT_OPEN, _BTF_LOAD = 5, 6, 7, 10, 15, 17, 18
_ENABLE_STATS, _STATS_RUN_TIME = 32, 0

MAP_TYPE_ARRAY = 2
_MAP_TYPE_ARRAY_OF_MAPS = 13

_ATTRIBUTE_BYTES = 144
# type, instructions: count and address; licence; log: level, size, address; name; attach type; types: file descriptor;
# functions: size of one, address, count; type of the tracepoint
_PROGRAM = struct.Struct("<IIQQIIQ8x16s4xIIIQI4x8x4xI")
_FUNCTION_BYTES = 8
_PROG_TYPE_RAW_TRACEPOINT, _PROG_TYPE_TRACING, _TRACE_RAW_TP = 17, 26, 23
_LICENCE = b"GPL"
_VERIFIER_LOG_BYTES = 1 << 24
_PROGRAM_INFO_BYTES = 256
_NAME_BYTES = 16

_MEMBARRIER_QUERY, _MEMBARRIER_GLOBAL = 0, 1


class ProgramRefused(Exception):
    """The verifier refuses a program; ``verifier_log`` is its output."""

    def __init__(self, error: OSError, verifier_log: str) -> None:
        super().__init__(str(error))
        self.verifier_log = verifier_log


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """The part of struct bpf_prog_info that is used here."""

    identifier: int
    name: str
    run_time_ns: int  # 0 unless kernel.bpf_stats_enabled
    run_count: int
    recursion_misses: int


@dataclass(frozen=True, slots=True)
class MapInfo:
    """The part of struct bpf_map_info that is used here."""

    kind: int
    identifier: int
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int
    name: str


def die_with(parent: int) -> None:
    """End this process when its parent ends, or at once when it has ended already (prctl(2), PR_SET_PDEATHSIG)."""
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def obj_pin(fd: int, path: Path) -> None:
    """Give a program, map or link a name in bpffs, which keeps it alive."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(_OBJ_PIN, struct.pack("<QI", ctypes.addressof(name), fd))


def obj_get(path: Path) -> int:
    """Open the object that is pinned at ``path``: a new file descriptor."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(_OBJ_GET, struct.pack("<Q", ctypes.addressof(name)))


def map_create(
    kind: int, key_bytes: int, value_bytes: int, max_entries: int, name: str, inner_fd: int = 0, flags: int = 0
) -> int:
    """A new map: its file descriptor."""
    attribute = struct.pack("<IIIIII", kind, key_bytes, value_bytes, max_entries, flags, inner_fd)
    return _bpf(_MAP_CREATE, attribute + struct.pack("<I16s", 0, name.encode()[: _NAME_BYTES - 1]))


def load_types(types: bytes) -> int:
    """Give BTF to the kernel: its file descriptor."""
    buffer = ctypes.create_string_buffer(types, len(types))
    return _bpf(_BTF_LOAD, struct.pack("<QQI", ctypes.addressof(buffer), 0, len(types)))


def load_program(
    instructions: bytes, name: str, tracepoint_type: int, types_fd: int = 0, functions: bytes = b""
) -> int:
    """Load a raw tracepoint program: its file descriptor.

    ``tracepoint_type`` is the BTF number of the tracepoint's ``btf_trace_*``, for a program that reads its arguments' members by
    their types; 0 for one that is run by hand. A program of several functions tells them (``struct bpf_func_info``), by types
    of ``load_types``. ProgramRefused has the verifier's reasons.
    """
    kind, attach = (_PROG_TYPE_TRACING, _TRACE_RAW_TP) if tracepoint_type else (_PROG_TYPE_RAW_TRACEPOINT, 0)
    code = ctypes.create_string_buffer(instructions, len(instructions))
    told = ctypes.create_string_buffer(functions, len(functions)) if functions else None
    licence = ctypes.create_string_buffer(_LICENCE)

    def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
        attribute = _PROGRAM.pack(
            *(kind, len(instructions) // INSTRUCTION_BYTES),
            *(ctypes.addressof(code), ctypes.addressof(licence)),
            *((1, len(log), ctypes.addressof(log)) if log else (0, 0, 0)),
            *(name.encode()[: _NAME_BYTES - 1], attach, types_fd),
            *((_FUNCTION_BYTES, ctypes.addressof(told), len(functions) // _FUNCTION_BYTES) if told else (0, 0, 0)),
            tracepoint_type,
        )
        return _bpf(_PROG_LOAD, attribute)

    try:
        return load(None)
    except OSError:
        log = ctypes.create_string_buffer(_VERIFIER_LOG_BYTES)
        try:
            return load(log)
        except OSError as error:
            raise ProgramRefused(error, log.value.decode(errors="replace")) from None


def open_raw_tracepoint(program_fd: int) -> int:
    """Attach a typed program to the tracepoint that it was loaded for: the link's file descriptor."""
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program_fd))


def map_lookup(fd: int, key: int, size_bytes: int) -> bytes:
    """The value at a u32 key. ``size_bytes`` is that of the values of all CPUs when the map is per CPU."""
    value = ctypes.create_string_buffer(size_bytes)
    number = ctypes.c_uint32(key)
    _bpf(_MAP_LOOKUP, struct.pack("<IIQQQ", fd, 0, ctypes.addressof(number), ctypes.addressof(value), 0))
    return value.raw


def map_update(fd: int, key: int, value: bytes) -> None:
    """Set the value at a u32 key."""
    number = ctypes.c_uint32(key)
    buffer = ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, ctypes.addressof(number), ctypes.addressof(buffer), 0))


def hash_update(fd: int, key: bytes, value: bytes) -> None:
    """Set the value at a key of any size."""
    keys, values = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, struct.pack("<IIQQQ", fd, 0, ctypes.addressof(keys), ctypes.addressof(values), 0))


def hash_delete(fd: int, key: bytes) -> None:
    """Take an entry out of a hash. FileNotFoundError when there is none."""
    keys = ctypes.create_string_buffer(key, len(key))
    _bpf(_MAP_DELETE, struct.pack("<IIQ", fd, 0, ctypes.addressof(keys)))


def hash_entries(fd: int, key_bytes: int, value_bytes: int, most: int) -> list[tuple[bytes, bytes]]:
    """Every entry of a hash of at most this many, in one call (BPF_MAP_LOOKUP_BATCH, v5.6)."""
    keys, values = ctypes.create_string_buffer(key_bytes * most), ctypes.create_string_buffer(value_bytes * most)
    batch = ctypes.create_string_buffer(8)
    attribute = ctypes.create_string_buffer(
        struct.pack(
            *("<QQQQIIQQ", 0, ctypes.addressof(batch), ctypes.addressof(keys), ctypes.addressof(values)),
            *(most, fd, 0, 0),
        ),
        _ATTRIBUTE_BYTES,
    )
    number, _ = _numbers()
    with contextlib.suppress(FileNotFoundError):  # that was all of it
        libc.syscall(number, _MAP_LOOKUP_BATCH, attribute, _ATTRIBUTE_BYTES)
    (count,) = struct.unpack_from("<I", attribute, _BATCH_COUNT_OFFSET)
    all_keys, all_values = (
        bytes(memoryview(keys)[: count * key_bytes]),
        bytes(memoryview(values)[: count * value_bytes]),
    )
    return [
        (all_keys[at * key_bytes : (at + 1) * key_bytes], all_values[at * value_bytes : (at + 1) * value_bytes])
        for at in range(count)
    ]


def run_program(fd: int, *arguments: int) -> None:
    """Run a raw tracepoint program once, by hand, with these as its arguments."""
    context = (ctypes.c_uint64 * 12)(*arguments)
    attribute = struct.pack(
        "<IIIIQQIIIIQQII", fd, 0, 0, 0, 0, 0, 0, 0, ctypes.sizeof(context), 0, ctypes.addressof(context), 0, 0, 0
    )
    _bpf(_PROG_TEST_RUN, attribute)


def program_info(fd: int) -> ProgramInfo:
    """The kernel's counts of a program."""
    raw = _info(fd)
    run_time_ns, run_count, misses = struct.unpack_from("<QQQ", raw, 192)
    (identifier,) = struct.unpack_from("<I", raw, 4)
    return ProgramInfo(identifier, _name(raw[64:80]), run_time_ns, run_count, misses)


def enable_run_time() -> int:
    """The kernel counts the run time of programs until this file descriptor is closed (BPF_ENABLE_STATS, v5.8)."""
    return _bpf(_ENABLE_STATS, struct.pack("<I", _STATS_RUN_TIME))


def map_info(fd: int) -> MapInfo:
    """Kind and sizes of a map."""
    raw = _info(fd)
    kind, identifier, key_bytes, value_bytes, max_entries, flags = struct.unpack_from("<6I", raw)
    return MapInfo(kind, identifier, key_bytes, value_bytes, max_entries, flags, _name(raw[24:40]))


def wait_for_programs() -> None:
    """Return when every program that ran at the time of the call has ended (an RCU grace period).

    membarrier(MEMBARRIER_CMD_GLOBAL) waits for one (kernel/sched/membarrier.c). Kernels with nohz_full CPUs refuse it. There,
    replacing an element of a map of maps waits as long (maybe_wait_bpf_programs() in kernel/bpf/syscall.c).
    """
    _, membarrier = _numbers()
    try:
        libc.syscall(membarrier, _MEMBARRIER_GLOBAL, 0, 0)
    except OSError:
        wait_by_map_of_maps()


def wait_by_map_of_maps() -> None:
    """Wait for the same grace period by a map of maps: slower, and possible on every kernel."""
    inner = map_create(MAP_TYPE_ARRAY, 4, 8, 1, "pydbt_inner")
    try:
        outer = map_create(_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, "pydbt_outer", inner)
        try:
            map_update(outer, 0, struct.pack("<I", inner))
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def _info(fd: int) -> bytes:
    buffer = ctypes.create_string_buffer(_PROGRAM_INFO_BYTES)
    _bpf(_INFO_BY_FD, struct.pack("<IIQ", fd, len(buffer), ctypes.addressof(buffer)))
    return buffer.raw


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode()


def _numbers() -> tuple[int, int]:
    machine = platform.machine()
    try:
        return _NUMBERS[machine]
    except KeyError:
        raise MachineError(
            f"pydbt captures writes on x86-64 only: on {machine} it could read records before they are complete"
        ) from None


def _bpf(command: int, attribute: bytes) -> int:
    buffer = ctypes.create_string_buffer(attribute, _ATTRIBUTE_BYTES)
    number, _ = _numbers()
    try:
        return libc.syscall(number, command, buffer, _ATTRIBUTE_BYTES)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        raise MachineError("the kernel refused bpf(2): run as root; a container also needs CAP_BPF") from None

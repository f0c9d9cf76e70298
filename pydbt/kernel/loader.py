"""Compile, prove, attach and pin, in a child process.

bcc contains a compiler of about 150 MiB, whose memory is free again when the child ends. The child reads one JSON request
from stdin and writes one JSON answer to stdout::

    {"volume": {...}, "options": {...}, "pin_dir": "...", "kept": "...", "parent": 123}
      ->   {} or {"error": "...", "kind": "MachineError"}

The compiler and the verifier write their reasons to stderr, and LLVM may end the process at any time; the parent reads both
streams. Only pinned objects outlive the child. pydbt/kernel/capture.py runs it as ``python -m pydbt.kernel.loader``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pydbt.core import errors
from pydbt.core.errors import BusyError, MachineError, PydbtError
from pydbt.core.units import SECTOR_BYTES
from pydbt.kernel import addresses, layout, pins, syscalls
from pydbt.kernel.addresses import DirectMap, Unproven
from pydbt.kernel.btf import Btf
from pydbt.kernel.code_cache import code_for
from pydbt.kernel.compiled import compile_programs, source_text
from pydbt.kernel.headers import find_headers
from pydbt.kernel.limits import lockdown_words, shortage
from pydbt.kernel.loaded import Loaded, VerifierRefused, attach
from pydbt.kernel.record import CONFIG, PROBE, RING_HEADER_BYTES
from pydbt.kernel.spec import LOOP_MAJOR, CaptureOptions, VolumeSpec
from pydbt.posix.boot import boot_id

_READ_TRACEPOINT = "block_bio_queue"
_APART_S = 0.02
# fs/buffer.c: submit_bh() gave the first to all its bios; since v7.2 each caller of bh_submit() names one.
_ENDS_OF_BUFFERS = (
    "end_bio_bh_io_sync",
    "bh_end_write",
    "bh_end_async_write",
    "journal_end_buffer_io_sync",
    "ext4_end_buffer_io_sync",
)


Build = Callable[[layout.Macros], Loaded]
"""The programs of these macros, for the one volume."""


def attach_programs(volume: VolumeSpec, options: CaptureOptions, pin_dir: Path, kept: Path) -> None:
    """Compile, prove, attach and pin the programs. After a failure nothing stays pinned.

    ``kept``: the folder where compiled code is kept for the next time.
    """
    pins.require_bpffs(pin_dir)
    if pins.read_meta(pin_dir):
        raise BusyError(f"capture programs are pinned at {pin_dir} already: reopen them, or detach them first")
    pins.remove_pins(pin_dir)  # the remains of an attach that did not finish
    btf = Btf.of_running_kernel()
    marks_apart = layout.can_be_preempted(btf)
    programs = pins.programs(marks_apart)
    loop = layout.loop_command(btf) if volume.disk_major == LOOP_MAJOR else None
    values, sizes = layout.volume_values(volume, options, loop), layout.map_sizes(volume, options)
    text = source_text()

    def build(macros: layout.Macros) -> Loaded:
        code = code_for(text, macros, lambda: compile_programs(macros, find_headers()), kept)
        return Loaded(btf, code, values, sizes)

    program, config, data_base, reason, watched = _build(btf, build, volume, options, programs)
    pins.make_pin_dir(pin_dir)
    try:
        _pin(program, config, programs, pin_dir)
        if marks_apart:
            _set_apart(program)
        shows_short_writes = volume.disk_major != LOOP_MAJOR or loop is not None
        meta = pins.Meta(
            pins.PROGRAM_VERSION,
            volume,
            options,
            not reason,
            reason,
            data_base,
            boot_id(),
            marks_apart,
            watched,
            shows_short_writes,
        )
        pins.write_meta(pin_dir, meta)
    except BaseException:
        pins.remove_pins(pin_dir)
        raise


def _build(
    btf: Btf, build: Build, volume: VolumeSpec, options: CaptureOptions, programs: Mapping[str, str]
) -> tuple[Loaded, np.ndarray, int, str, bool]:
    """The programs, their configuration, the data ring's base, why there is no payload, and ``Meta.memory_watched``."""
    config = np.zeros((), CONFIG)
    config["records"] = 1
    reason = "it was not asked for"
    if options.with_payload:
        try:
            builds = layout.payload_builds(btf)
            program, watched = _build_within_budget(builds, build, programs)
            shown = addresses.symbols(("page_offset_base", *_ENDS_OF_BUFFERS))
            with _Probe(program) as probe:
                data_base = probe.ring_base()
                found = _direct_map(probe, volume, builds[0]["SIZE_page"], shown)
            config["payload"] = config["watch"] = 1
            config["page_offset_base"] = found.page_offset_base
            config["vmemmap_base"] = found.vmemmap_base
            config["buffer_end_io"] = [shown.get(name, 0) for name in _ENDS_OF_BUFFERS]
            return program, config, data_base, "", watched
        except KeyError as missing:
            reason = f"pydbt does not know the layout of this kernel's pages: {missing.args[0]}"
        except Unproven as unproven:
            reason = str(unproven)
        except VerifierRefused as refusal:
            reason = str(refusal)
    return build(layout.address_build(btf)), config, 0, reason, False


def _direct_map(probe: _Probe, volume: VolumeSpec, page_struct_bytes: int, shown: dict[str, int]) -> DirectMap:
    disk = addresses.disk_node(volume.disk_major, volume.disk_minor)
    offset_bytes = volume.start_sector * SECTOR_BYTES // mmap.PAGESIZE * mmap.PAGESIZE
    with probe.watching():
        return addresses.find_direct_map(probe, disk, offset_bytes, page_struct_bytes, shown)


def _build_within_budget(
    builds: Iterable[layout.Macros], build: Build, programs: Mapping[str, str]
) -> tuple[Loaded, bool]:
    """Programs whose loops this kernel's verifier accepts, with as many steps as possible, and whether they watch memory."""
    refusals = []
    for macros in builds:
        program = build(macros)
        try:
            program.load(programs)
        except VerifierRefused as refusal:
            refusals.append(refusal)
            program.close()
            continue
        return program, bool(macros["LOOP_HELPER"])
    raise refusals[0]


def _pin(program: Loaded, config: np.ndarray, programs: Mapping[str, str], pin_dir: Path) -> None:
    syscalls.map_update(program.map_fd("config"), 0, config.tobytes())
    names = (*pins.MAPS, pins.DATA_MAP) if config["payload"] else pins.MAPS
    for name in names:
        syscalls.obj_pin(program.map_fd(name), pin_dir / name)
    for name, tracepoint in programs.items():
        syscalls.obj_pin(program.typed(name, tracepoint), pin_dir / name)
    for name, tracepoint in programs.items():
        syscalls.obj_pin(attach(program.typed(name, tracepoint), tracepoint), pin_dir / f"link_{name}")


def _set_apart(program: Loaded) -> None:
    """Let the programs beside ``submit`` begin, once all are attached (bpf/preempted.bpf.h). Between the two steps every write
    ends that the first programs saw without the others, but for one whose task is held up for longer: that one counts as lost.
    """
    with mmap.mmap(program.map_fd("config"), mmap.PAGESIZE) as memory:
        config = np.frombuffer(memory, CONFIG, 1)
        for apart in (1, 2):
            config["apart"] = apart
            syscalls.wait_for_programs()
            time.sleep(_APART_S)
        del config


class _Probe:
    """The loader's own programs (bpf/probe.bpf.h) as addresses.KernelReader."""

    def __init__(self, program: Loaded) -> None:
        self._read_fd = program.untyped("read")
        self._ring_fd = program.untyped("ring_base")
        self._see_fd = program.typed("see_read", _READ_TRACEPOINT)
        self._memory = mmap.mmap(program.map_fd("probe"), mmap.PAGESIZE)
        self._value = np.frombuffer(self._memory, PROBE, 1)
        self.read(0)  # by which the programs know whose reads are ours

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *_: object) -> None:
        del self._value
        self._memory.close()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        link = attach(self._see_fd, _READ_TRACEPOINT)
        try:
            yield
        finally:
            os.close(link)

    def read(self, address: int) -> bytes | None:
        syscalls.run_program(self._read_fd, address & (1 << 64) - 1)
        return None if self._value["failed"][0] else self._value["bytes"][0].tobytes()

    def last_read_seen(self) -> tuple[int, int, int, int]:
        value = self._value[0]
        return int(value["reads"]), int(value["page"]), int(value["offset"]), int(value["task"])

    def ring_base(self) -> int:
        """Kernel address of the data ring's first byte: of the header before the first slot of a new ring."""
        syscalls.run_program(self._ring_fd)
        answer = int(self._value["answer"][0])
        if not answer:
            raise Unproven("the data ring has no room for a first slot")
        return answer - RING_HEADER_BYTES


def main() -> None:
    request = json.load(sys.stdin)
    syscalls.die_with(request["parent"])  # no controller would know of the programs that this one attaches
    try:
        volume, options = VolumeSpec(**request["volume"]), CaptureOptions(**request["options"])
        attach_programs(volume, options, Path(request["pin_dir"]), Path(request["kept"]))
        answer: dict[str, str] = {}
    except MachineError as error:
        answer = {"error": f"{error}{lockdown_words()}", "kind": MachineError.__name__}
    except PydbtError as error:
        answer = _told(error)
    except MemoryError:
        answer = _told(shortage())
    except OSError as error:
        words = f"attaching the capture programs failed: {error}{lockdown_words()}"
        answer = _told(shortage() if error.errno == errno.ENOMEM else MachineError(words))
    assert not answer or hasattr(errors, answer["kind"])
    json.dump(answer, sys.stdout)


def _told(error: PydbtError) -> dict[str, str]:
    return {"error": str(error), "kind": type(error).__name__}


if __name__ == "__main__":
    main()

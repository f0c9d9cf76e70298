"""Capture of one volume's writes: the interface of this room.

The programs run in the kernel with or without a controller. ``attach`` starts them, through a child process that compiles
them (pydbt/kernel/loader.py). ``reopen`` opens programs that run, ``close`` leaves them running, and ``detach`` ends them.
In between, the controller drains records, releases their data, and flips the bitmaps::

    records = capture.drain()
    for piece in capture.payload(records): ...
    capture.release(records)

Order: the ring's order is the order of submission. A bit is set before its record exists.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import numpy as np

from pydbt.core.errors import MachineError, PydbtError, StateError
from pydbt.kernel import code_cache, pins, syscalls
from pydbt.kernel.bell import Bell
from pydbt.kernel.bitmaps import Bitmaps
from pydbt.kernel.btf import require_btf
from pydbt.kernel.child import ask_child
from pydbt.kernel.compiled import source_text
from pydbt.kernel.counters import Counters, possible_cpus, read_counters, read_lost
from pydbt.kernel.headers import find_headers
from pydbt.kernel.record import CONFIG, RECORD_BYTES, Program
from pydbt.kernel.ring import DataRing, HeaderRing
from pydbt.kernel.spec import CaptureOptions, VolumeSpec, to_json
from pydbt.posix.boot import boot_id

__all__ = ["Capture", "CaptureOptions", "Counters", "VolumeSpec"]

# Compiling takes a second; on an emulated machine half a minute, and several minutes when others use its processors too.
_LOADER_TIMEOUT_S = 600
_DEFAULT_DRAIN = 65536  # records: 4 MiB


class Capture:
    """The running programs of one volume, opened. For one thread at a time."""

    def __init__(self, pin_dir: Path, meta: pins.Meta) -> None:
        self.pin_dir = pin_dir
        self._closed = False
        self.volume = meta.volume
        self.options = meta.options
        #: Whether records can carry data, and the reason if not.
        self.payload_available = meta.payload_available
        self.payload_reason = meta.payload_reason
        #: Whether a change of a program's memory during its direct write can be noticed (bpf/watched.bpf.h).
        self.memory_watched = meta.memory_watched
        #: False on a loop device of which it is not seen what its file took of a write.
        self.shows_short_writes = meta.shows_short_writes
        with contextlib.ExitStack() as stack:

            def opened(name: str) -> int:
                fd = syscalls.obj_get(pin_dir / name)
                stack.callback(os.close, fd)
                return fd

            self._config_memory = mmap.mmap(opened("config"), mmap.PAGESIZE)
            self._config = np.frombuffer(self._config_memory, CONFIG, 1)
            self._bitmaps = Bitmaps(opened("bits"), pins.MapLayout.of(meta.volume))
            self._headers = HeaderRing(opened("headers"), meta.options.header_ring_bytes, self._config)
            self._data: DataRing | None = None
            if meta.payload_available:
                self._data = DataRing(opened(pins.DATA_MAP), meta.options.data_ring_bytes, meta.data_base)
            self.bell = Bell(opened("bell"), self._config)
            self._state_fd = opened("state")
            self._state_bytes = syscalls.map_info(self._state_fd).value_bytes
            self._program_fds = {Program[name.upper()]: opened(name) for name in meta.programs}
            for name in meta.programs:
                opened(f"link_{name}")  # programs without links look alive and see no event
            self._cpus = possible_cpus()
            self._descriptors = stack.pop_all()

    @classmethod
    def attach(cls, volume: VolumeSpec, options: CaptureOptions, pin_dir: Path) -> Capture:
        """Compile, attach and pin. MachineError names the lack of the machine; BusyError: programs are pinned already."""
        if os.geteuid() != 0:
            raise MachineError("capturing writes needs root: run it with sudo")
        _run_loader(volume, options, pin_dir)
        capture = cls.reopen(pin_dir)
        if capture is None:
            raise MachineError(f"the capture programs vanished from {pin_dir} while they were attached")
        return capture

    @classmethod
    def reopen(cls, pin_dir: Path) -> Capture | None:
        """The programs that are pinned there, or None. StateError when they cannot be read (OtherVersion: another version's)."""
        if os.geteuid() != 0:
            raise MachineError("opening the capture programs needs root: run it with sudo")
        meta = pins.read_meta(pin_dir)
        if meta is None:
            return None
        try:
            return cls(pin_dir, meta)
        except FileNotFoundError as error:
            raise StateError(f"{pin_dir} is incomplete ({error}): detach the capture programs") from None

    @staticmethod
    def remove_pins(pin_dir: Path) -> None:
        """Detach and remove everything that is pinned there, also when it cannot be opened."""
        pins.remove_pins(pin_dir)

    def detach(self) -> None:
        """End capture: remove links, programs, maps and their directory."""
        self.close()
        pins.remove_pins(self.pin_dir)

    def close(self) -> None:
        """Close the files and mappings. The programs continue. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._bitmaps.close()
        self._headers.close()
        self.bell.close()
        del self._config
        self._config_memory.close()
        if self._data:
            self._data.close()
        self._descriptors.close()

    # -- the ordered log

    def drain(self, limit: int = _DEFAULT_DRAIN) -> np.ndarray:
        """Take up to ``limit`` records (dtype RING_RECORD) out of the ring, in its order.

        Stops before a record that a program is still filling in. The data of the records stays until ``release``.
        """
        return self._headers.drain(limit)

    def peek(self, limit: int = _DEFAULT_DRAIN) -> np.ndarray:
        """The records that ``drain`` would return; they stay in the ring."""
        return self._headers.peek(limit)

    def payload(self, records: np.ndarray) -> list[memoryview]:
        """The data of the records that carry some, piece by piece and in order, without a copy.

        A record carries data when it is a SUBMIT with ``pieces`` and without NO_PAYLOAD. The lengths of its pieces add up to
        ``sectors`` * 512 bytes. The views are valid until the record is released.
        """
        return self._data.payload(records) if self._data else []

    def release(self, records: np.ndarray) -> None:
        """Give the data of these records back to the kernel: once for each record, in any order."""
        if self._data:
            self._data.release(records)

    def release_orphans(self) -> int:
        """After ``reopen``: give back data whose records the last controller had drained. Returns the number of slots."""
        if not self._data:
            return 0
        end = self._data.producer_position()
        syscalls.wait_for_programs()  # every slot before `end` has its record finished now
        waiting = self._headers.peek(self._headers.size_bytes)
        return self._data.release_all_but(waiting, end)

    def producer_position(self) -> int:
        """Bytes of header ring ever used: records that are emitted after this call lie behind it."""
        return self._headers.producer_position() * RECORD_BYTES

    def consumer_position(self) -> int:
        """Bytes of header ring ever drained."""
        return self._headers.consumer_position() * RECORD_BYTES

    def data_used_bytes(self) -> int:
        """Bytes of the data ring that are not released; 0 without payload."""
        return self._data.used_bytes() if self._data else 0

    def data_size_bytes(self) -> int:
        return self._data.size_bytes if self._data else 0

    # -- the programs' configuration

    def set_payload(self, on: bool) -> None:
        """Copy data or not, from the first event after the return. StateError when data cannot be captured here."""
        if on and not self.payload_available:
            raise StateError(f"payload cannot be captured here: {self.payload_reason}")
        self._configure("payload", on)

    def watch_memory(self, on: bool) -> None:
        """Notice a change of a program's memory during its direct write or not, from the first event after the return."""
        self._configure("watch", on)

    def set_records(self, on: bool) -> None:
        """Emit records or only set bits, from the first event after the return."""
        self._configure("records", on)

    def _configure(self, name: str, on: bool) -> None:
        if bool(self._config[name][0]) != on:
            self._config[name] = int(on)
            syscalls.wait_for_programs()

    # -- the bitmaps

    def flip(self) -> None:
        """Swap the active and the quiet bitmap. After the return no program writes to the quiet one."""
        self._config["active"] ^= 1
        syscalls.wait_for_programs()

    def _quiet(self) -> int:
        return 1 - int(self._config["active"][0])

    def quiet_words(self) -> np.ndarray:
        """The quiet bitmap, one bit per block, least significant first (view or copy; dtype uint64)."""
        return self._bitmaps.words(self._quiet())

    def active_words(self) -> np.ndarray:
        """The active bitmap in the same form, while programs write to it."""
        return self._bitmaps.words(1 - self._quiet())

    def zero_quiet(self) -> None:
        """Clear the quiet bitmap. Call it when its bits are recorded elsewhere."""
        self._bitmaps.zero(self._quiet())

    def dirty_counts(self, *, with_quiet: bool = True) -> tuple[int, int]:
        """The number of blocks in the active and in the quiet bitmap; without the latter 0 of it."""
        quiet = self._quiet()
        return self._bitmaps.count(1 - quiet), self._bitmaps.count(quiet) if with_quiet else 0

    def written_counts(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many blocks each of the two bitmaps has in each range from one edge to the next. From any thread.

        It does not matter which of them is the active one, and when they are swapped. StateError once this is closed.
        """
        return self._bitmaps.counts(0, edges), self._bitmaps.counts(1, edges)

    # -- counters

    def attach_name(self) -> str:
        """A name for this attachment of the programs. Programs that are attached later count from 0 again."""
        return f"{boot_id()} {syscalls.program_info(self._program_fds[Program.REQUEST_COMPLETE]).identifier}"

    def counters(self) -> Counters:
        return read_counters(self._state_fd, self._state_bytes, self._cpus, self._program_fds)

    def lost_count(self) -> int:
        """``counters().lost``."""
        return read_lost(self._state_fd, self._state_bytes, self._cpus, self._program_fds)


def require_ready(pin_dir: Path) -> bool:
    """MachineError at once for what this machine lacks. False when the programs must be compiled for this kernel first."""
    pins.require_bpffs(pin_dir)
    require_btf()
    if code_cache.is_known(source_text(), code_cache.FOLDER):
        return True
    find_headers()
    return False


def _run_loader(volume: VolumeSpec, options: CaptureOptions, pin_dir: Path) -> None:
    request = {
        "volume": to_json(volume),
        "options": to_json(options),
        "pin_dir": str(pin_dir),
        "kept": str(code_cache.FOLDER),
        "parent": os.getpid(),
    }
    try:
        told = ask_child("pydbt.kernel.loader", request, _LOADER_TIMEOUT_S, "compiling the capture programs")
    except PydbtError:
        _remove_incomplete(pin_dir)
        raise
    except BaseException:  # Ctrl-C: no controller knows of the pins yet
        pins.remove_pins(pin_dir)
        raise
    told.result()


def _remove_incomplete(pin_dir: Path) -> None:
    if pins.read_meta(pin_dir) is None:
        pins.remove_pins(pin_dir)

"""The programs that see who writes (bpf/writers.bpf.c), attached: their tables, read about once per second."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from pydbt.core.errors import MachineError
from pydbt.core.seen.writers.reading import NO_ROOM, Amount, File, RowKey, Writer, WriterReading
from pydbt.core.seen.writers.sampling import ChunkSample
from pydbt.kernel import syscalls
from pydbt.kernel.btf import VMLINUX_BTF
from pydbt.kernel.counters import possible_cpus, submitted_bytes
from pydbt.kernel.spec import VolumeSpec
from pydbt.kernel.tracing.observed import Observed, RunTime
from pydbt.kernel.tracing.plan import Plan
from pydbt.kernel.tracing.writers_layout import DIRTYING, writers_macros, writers_values

_TYPED, _UNTYPED = {"TYPED_PAGES": 1}, {"TYPED_PAGES": 0}
PLAN = Plan("writers.bpf.c", writers_macros, (_TYPED, _UNTYPED))

MOUNTED = 1
"""Of a place: a file system is mounted from this block device, so that its pages are metadata (PLACE_MOUNTED)."""
_MAPS = ("wr_state", "wr_totals", "wr_places", "wr_rows", "wr_spare", "wr_tasks", "wr_sample")
# struct pydbt_row_key, pydbt_row, pydbt_no_room_key, pydbt_writer_key, pydbt_writer, pydbt_totals; the head of struct cpu_state.
_ROW_KEY, _ROW = struct.Struct("<QIIII"), struct.Struct("<QQ")
_NO_ROOM_KEY = struct.Struct("<II")
_TASK_KEY, _TASK = struct.Struct("<QQII"), struct.Struct("<II16s")
_TOTALS = struct.Struct("<6Q")
_PENDING = struct.Struct("<QIIIIQQ")
_SETTINGS = struct.Struct("<QQQ")
TABLE_ROWS = 8192
"""As many as the programs' table has."""
_TABLE_WRITERS = 2048
_SIZES = {"wr_rows": TABLE_ROWS, "wr_spare": _TABLE_WRITERS}
_CROWDED, _NEARLY_FULL = TABLE_ROWS // 2, TABLE_ROWS * 3 // 4
_DIRTIED, _SUBMITTED = 0, 1  # STATE_*
_BEGIN_NOW = 1  # BEGIN_NOW
_IDLE_LOOKS, _IDLE_LOOKS_NEARLY_FULL = 5, 2


class WriterPrograms:
    """For one thread at a time. ``problem``: what these programs cannot tell on this kernel, in a sentence; else empty."""

    def __init__(self, observed: Observed, capture_state_fd: int, problem: str) -> None:
        self._observed, self._capture_fd, self.problem = observed, capture_state_fd, problem
        self._cpus = possible_cpus()
        self._state_bytes = syscalls.map_info(observed.map_fd("wr_state")).value_bytes
        self._places: dict[int, int] = {}
        self._idle: dict[RowKey, tuple[Amount, int]] = {}
        self._seen: dict[RowKey, Amount] = {}
        self._captured_before: int | None = None
        self._sample = ChunkSample()

    @classmethod
    def attach(cls, volume: VolumeSpec, pin_dir: Path) -> WriterPrograms:
        """``pin_dir``: of the volume's capture, whose counters the rows are compared with.

        MachineError names what this machine lacks. They are detached by ``close``, or when this process ends.
        """
        values, problem = writers_values(volume)
        programs = {"wr_submitted": "block_bio_queue"}
        dirtying = dirtying_tracepoint()
        if not dirtying:
            problem = (
                "this kernel has no tracepoint for pages that become dirty: who wrote through the page cache is unknown"
            )
        wanted = ({"wr_dirtied": dirtying} if dirtying else {}) | programs
        with contextlib.ExitStack() as stack:
            capture_fd = syscalls.obj_get(pin_dir / "state")
            stack.callback(os.close, capture_fd)
            made = cls(stack.enter_context(_attach(values, wanted)), capture_fd, problem)
            stack.pop_all()  # last: what fails before it leaves nothing attached
        return made

    def close(self) -> None:
        """Detach. Idempotent."""
        self._observed.close()
        if self._capture_fd >= 0:
            os.close(self._capture_fd)
            self._capture_fd = -1

    def __enter__(self) -> WriterPrograms:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_places(self, places: Mapping[int, int]) -> None:
        """The device numbers (as in super_block.s_dev) of what lies on the volume, and what they are (``MOUNTED``).

        The programs count from the first call on: before it they would take files of the volume for others.
        """
        fd = self._observed.map_fd("wr_places")
        for device, flags in places.items():
            if self._places.get(device) != flags:
                syscalls.hash_update(fd, struct.pack("<I", device), struct.pack("<I", flags))
        for device in self._places.keys() - places.keys():
            syscalls.hash_delete(fd, struct.pack("<I", device))
        self._places = dict(places)
        if self._captured_before is None:
            self._set(_BEGIN_NOW)
            self._captured_before = 0
            seen = self.read()
            self._captured_before = seen.captured_bytes - sum(amount.written for amount in seen.rows.values())

    def sample(self, sample: ChunkSample) -> None:
        """Remember, and look up, the writers of one chunk of pages in this many alone."""
        begun, *_ = _SETTINGS.unpack(syscalls.map_lookup(self._observed.map_fd("wr_sample"), 0, _SETTINGS.size))
        self._sample = sample
        self._set(begun)

    def _set(self, begun: int) -> None:
        """``begun``: as the programs have it. Where they begin in this moment, they begin once more."""
        value = _SETTINGS.pack(begun, self._sample.remembered_every - 1, self._sample.looked_up_every - 1)
        syscalls.map_update(self._observed.map_fd("wr_sample"), 0, value)

    def run_time(self) -> RunTime:
        """The kernel's own count of what the programs cost."""
        return self._observed.run_time()

    def identifiers(self) -> list[int]:
        """The kernel's numbers of the programs."""
        return self._observed.identifiers()

    def read(self) -> WriterReading:
        """All tables as they are now. What was captured is read last, so that it is never less than the rows."""
        rows: dict[RowKey, Amount] = {}
        for raw_key, raw in syscalls.hash_entries(
            self._observed.map_fd("wr_rows"), _ROW_KEY.size, _ROW.size, TABLE_ROWS
        ):
            rows[_row_key(*_ROW_KEY.unpack(raw_key))] = Amount(*_ROW.unpack(raw))
        for raw_key, raw in syscalls.hash_entries(
            self._observed.map_fd("wr_spare"), _NO_ROOM_KEY.size, _ROW.size, _TABLE_WRITERS
        ):
            writer, kind = _NO_ROOM_KEY.unpack(raw_key)
            rows[RowKey(kind, writer, NO_ROOM)] = Amount(*_ROW.unpack(raw))
        looks, waiting = self._add_pending(rows)
        for key, seen in self._seen.items():  # what was on its way to its row was missed
            now = rows.get(key, seen)
            rows[key] = Amount(max(now.dirtied, seen.dirtied), max(now.written, seen.written))
        self._seen = rows
        _, without_file, lost_rows, lost_dirtied, lost_written, lost_writers = _TOTALS.unpack(
            syscalls.map_lookup(self._observed.map_fd("wr_totals"), 0, _TOTALS.size)
        )
        writers = self._read_writers()
        captured = submitted_bytes(self._capture_fd) - (self._captured_before or 0)
        lost = Amount(lost_dirtied, lost_written)
        no_room = without_file + lost_rows
        told = dict(rows)
        return WriterReading(
            told, writers, captured, lost, no_room, lost_writers, looks, self._make_room(rows, waiting)
        )

    def _read_writers(self) -> dict[int, Writer]:
        fd = self._observed.map_fd("wr_tasks")
        entries = syscalls.hash_entries(fd, _TASK_KEY.size, _TASK.size, TABLE_ROWS)
        return dict(_writer(_TASK_KEY.unpack(raw_key), _TASK.unpack(raw)) for raw_key, raw in entries)

    def _add_pending(self, rows: dict[RowKey, Amount]) -> tuple[int, set[RowKey]]:
        """What each CPU has not added to its row yet: dirtied in the first state, written in the second.

        How often it looked, and the rows of which something waits there.
        """
        looks, waiting = 0, set()
        stride = self._state_bytes + 7 & ~7
        for place in (_DIRTIED, _SUBMITTED):
            raw = syscalls.map_lookup(self._observed.map_fd("wr_state"), place, stride * self._cpus)
            for at in range(0, stride * self._cpus, stride):
                *key, pending, looked = _PENDING.unpack_from(raw, at)
                looks += looked
                if pending:
                    more = Amount(pending, 0) if place == _DIRTIED else Amount(0, pending)
                    waiting.add(_row_key(*key))
                    _add(rows, _row_key(*key), more)
        return looks, waiting

    def _make_room(self, rows: Mapping[RowKey, Amount], waiting: set[RowKey]) -> frozenset[RowKey]:
        """When the table is half full, take out rows that did not change for a while; their bytes were read.

        Not those of which something waits on a CPU: that would be read again, and counted twice.
        What is between the programs' table and this reading is in the next one: so the longer they are left alone the better.
        """
        if len(rows) < _CROWDED:
            self._idle = {}
            return frozenset()
        fd = self._observed.map_fd("wr_rows")
        idle, ended = {}, set()
        most = _IDLE_LOOKS if len(rows) < _NEARLY_FULL else _IDLE_LOOKS_NEARLY_FULL
        for key, amount in list(rows.items()):
            if key.file == NO_ROOM or key in waiting:
                continue
            before, looks = self._idle.get(key, (None, 0))
            looks = looks + 1 if before == amount else 0
            if looks < most:
                idle[key] = amount, looks
                continue
            file = key.file or File(0, 0, 0)
            raw = _ROW_KEY.pack(file.inode, file.device, file.generation, key.writer, key.kind)
            with contextlib.suppress(FileNotFoundError):
                syscalls.hash_delete(fd, raw)
            self._seen.pop(key, None)
            ended.add(key)
        self._idle = idle
        return frozenset(ended)


def _attach(values: Mapping[str, int], programs: Mapping[str, str]) -> Observed:
    """A verifier that does not follow pointers from a bio to its pages gets programs that ask for each: they cost more."""
    try:
        return Observed.attach(__name__, values=values, sizes=_SIZES, programs=programs, maps=_MAPS, macros=_TYPED)
    except MachineError:
        return Observed.attach(__name__, values=values, sizes=_SIZES, programs=programs, maps=_MAPS, macros=_UNTYPED)


def dirtying_tracepoint(types: Path = VMLINUX_BTF) -> str:
    """The tracepoint of a page that becomes dirty; empty where this kernel has none. Found without reading all types."""
    blob = types.read_bytes()
    return next((name for name, _ in DIRTYING if b"\0btf_trace_" + name.encode() + b"\0" in blob), "")


def _add(rows: dict[RowKey, Amount], key: RowKey, more: Amount) -> None:
    before = rows.get(key, Amount(0, 0))
    rows[key] = Amount(before.dirtied + more.dirtied, before.written + more.written)


def _row_key(inode: int, device: int, generation: int, writer: int, kind: int) -> RowKey:
    return RowKey(kind, writer, File(device, inode, generation) if device else None)


def _writer(key: tuple[int, int, int, int], value: tuple[int, int, bytes]) -> tuple[int, Writer]:
    started_ns, cgroup, process, user = key
    number, is_kernel, name = value
    return number, Writer(process, started_ns, cgroup, user, bool(is_kernel), name.split(b"\0", 1)[0])

"""Block I/O of one device: the programs of bpf/block_io.bpf.c, their figures, and their records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydbt.core.seen.io_figures import FIGURES, cell_shift
from pydbt.core.seen.io_names import OPERATIONS
from pydbt.core.seen.io_record import IO_RECORD
from pydbt.kernel import syscalls
from pydbt.kernel.btf import Btf
from pydbt.kernel.counters import possible_cpus
from pydbt.kernel.layout import Macros, compound, done_of_first_vector, has_compound_mask, kernel_macros
from pydbt.kernel.tracing.event_ring import IoRing
from pydbt.kernel.tracing.observed import Observed, RunTime
from pydbt.kernel.tracing.plan import Plan

_MODULE = __name__
_ABSENT = 0xFFFF
_MINOR_BITS = 20
_TASK_IS_KERNEL = 0x00200000  # PF_KTHREAD, include/linux/sched.h

_OF_REQUESTS = {
    "request_complete": "block_rq_complete",
    "request_issue": "block_rq_issue",
}
_OF_BIOS = {"whole_bio_complete": "block_bio_complete", "whole_bio_queue": "block_bio_queue"}
_FIGURES_ALONE, _WITH_EVENTS = {"EVENTS": 0}, {"EVENTS": 1}
_SUBMISSIONS = {"bio_split": "block_split", "bio_queue": "block_bio_queue"}

ALL_OPERATIONS = (1 << len(OPERATIONS)) - 1


@dataclass(frozen=True, slots=True)
class IoDevice:
    """The device to look at: a range of sectors of one disk, as of ``device.sysfs.BlockDevice``."""

    disk_major: int
    disk_minor: int
    start_sector: int
    size_sectors: int
    bio_based: bool


@dataclass(frozen=True, slots=True)
class EventOptions:
    """Records of single I/Os: the ring's size, and the filters that the programs apply. ``wanted``: a bit for each operation."""

    ring_bytes: int = 1 << 22
    wanted: int = ALL_OPERATIONS
    least_ns: int = 0


class BlockIo:
    """The attached programs of one device. For one thread at a time; ``close`` detaches them."""

    def __init__(self, observed: Observed, events: IoRing | None) -> None:
        self.observed = observed
        self.events = events
        self._cpus = possible_cpus()

    @classmethod
    def attach(cls, device: IoDevice, events: EventOptions | None = None) -> BlockIo:
        """Figures, and records too with ``events``. MachineError names what this machine lacks."""
        programs = _OF_BIOS if device.bio_based else _OF_REQUESTS | (_SUBMISSIONS if events else {})
        observed = Observed.attach(
            _MODULE,
            values=_values(device, events or EventOptions()),
            sizes={"events": events.ring_bytes} if events else {},
            programs=programs,
            maps=("figures", "control", "events") if events else ("figures", "control"),
            macros=_WITH_EVENTS if events else _FIGURES_ALONE,
        )
        ring = IoRing(observed.map_fd("events"), events.ring_bytes, IO_RECORD) if events else None
        return cls(observed, ring)

    def __enter__(self) -> BlockIo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach. Idempotent."""
        if self.events is not None:
            self.events.close()
            self.events = None
        self.observed.close()

    def figures(self) -> np.ndarray:
        """Counts since the programs were attached, one element of dtype FIGURES for each of OPERATIONS."""
        fd, size = self.observed.map_fd("figures"), FIGURES.itemsize
        found = np.zeros(len(OPERATIONS), FIGURES)
        for operation in range(len(OPERATIONS)):
            raw = syscalls.map_lookup(fd, operation, size * self._cpus)
            words = np.frombuffer(raw, "<u8").reshape(self._cpus, size // 8)
            found[operation] = words.sum(axis=0).view(FIGURES)[0]
        return found

    def take_time_of(self, every: int) -> None:
        """From now on of one I/O in ``every``, a power of two."""
        syscalls.map_update(self.observed.map_fd("control"), 0, (every - 1).to_bytes(8, "little"))

    def run_time(self) -> RunTime:
        return self.observed.run_time()


def _values(device: IoDevice, events: EventOptions) -> dict[str, int]:
    return {
        "DISK_NUMBER": device.disk_major << _MINOR_BITS | device.disk_minor,
        "DISK_MAJOR": device.disk_major,
        "DISK_MINOR": device.disk_minor,
        "START_SECTOR": device.start_sector,
        "END_SECTOR": device.start_sector + device.size_sectors,
        "CELL_SHIFT": cell_shift(device.size_sectors),
        "WANTED": events.wanted,
        "LEAST_NS": events.least_ns,
    }


def _macros(btf: Btf) -> Macros:
    operations = btf.enumerators("req_op", "req_opf")
    bits = btf.enumerators("req_flag_bits")
    inode = {name: btf.field("inode", name) for name in ("i_mode", "i_sb", "i_ino")}
    page = {"compound": compound(btf), "mapping": btf.field("page", "mapping")}
    first = min(field.offset for field in inode.values()) & ~7
    end = max(field.offset + field.size for field in inode.values())
    end_of_page = max(field.offset + field.size for field in page.values())
    return (
        kernel_macros(btf)
        | {
            "ARG_block_rq_issue_rq": btf.tracepoint_arguments("block_rq_issue").index("request"),
            "ARG_block_split_bio": btf.tracepoint_arguments("block_split").index("bio"),
            "OFF_request___data_len": btf.offset("request", "__data_len"),
            "OFF_request_start_time_ns": btf.offset("request", "start_time_ns"),
            "OFF_bio_bi_idx": btf.offset("bio", "bi_iter.bi_idx"),
            "OFF_bio_bi_bvec_done": btf.offset("bio", done_of_first_vector(btf)),
            "OFF_bio_bi_io_vec": btf.offset("bio", "bi_io_vec"),
            "OFF_bio_vec_bv_page": btf.offset("bio_vec", "bv_page"),
            "OFF_address_space_host": btf.offset("address_space", "host"),
            "OFF_inode_i_data": btf.offset("inode", "i_data"),
            "OFF_inode_i_generation": btf.offset("inode", "i_generation"),
            "OFF_super_block_s_dev": btf.offset("super_block", "s_dev"),
            "OFF_task_struct_flags": btf.offset("task_struct", "flags"),
            "TASK_IS_KERNEL": _TASK_IS_KERNEL,
            "COMPOUND_MASK": int(has_compound_mask(btf)),
            "OFF_inode_copy": first,
            "SIZE_inode_copy": end - first,
            "INODE_WORDS": (end - first + 7) // 8,
            "PAGE_WORDS": (end_of_page + 7) // 8,
        }
        | {f"OFF_inode_{name}": field.offset for name, field in inode.items()}
        | {f"OFF_page_{name}": field.offset for name, field in page.items()}
        | {f"OP_{name}": operations.get(f"REQ_OP_{name}", _ABSENT) for name in ("READ", "FLUSH", "DRV_IN", "SCSI_IN")}
        | {f"BIT_{name}": bits[f"__REQ_{name}"] for name in ("SYNC", "RAHEAD")}
    )


PLAN = Plan("block_io.bpf.c", _macros, (_FIGURES_ALONE, _WITH_EVENTS))

"""The running kernel as -D macros for the capture programs: offsets, arguments and numbers from BTF.

Names of the macros: bpf/capture.bpf.c. Differences between kernels, with their versions: bpf/kernel_fixes.h.
"""

from __future__ import annotations

import resource
from typing import NamedTuple

from pydbt.core.errors import MachineError
from pydbt.kernel.btf import VMLINUX_BTF, Btf, Field
from pydbt.kernel.record import RECORD_BYTES
from pydbt.kernel.spec import CaptureOptions, VolumeSpec

_ABSENT = 0xFFFF  # no operation has this number: they are eight bits
_OPERATIONS = (
    "WRITE",
    "DISCARD",
    "SECURE_ERASE",
    "WRITE_ZEROES",
    "ZONE_OPEN",
    "ZONE_CLOSE",
    "ZONE_FINISH",
    "DRV_OUT",
    "SCSI_OUT",
)
# Steps of the loops that copy a request's pieces and that check its pages. The verifier follows every step and gives up
# after a million instructions. The number of steps that it accepts differs between kernels, so these budgets are tried in
# turn. 640 steps copy 40 MiB of huge folios and more; 288 are enough for 256 pages, the most that a bio has.
STEP_BUDGETS = ((640, 512), (448, 384), (288, 288), (160, 160))
# Of the kernel's own loop the verifier follows one step. A request is copied without a break: 64 MiB of a program's memory, in
# pieces of 4 KiB, or as much as the ring of data has.
LOOP_STEPS = (16384, 16384)

_MINOR_BITS = 20  # include/linux/kdev_t.h
_LOOP_MODULE_BTF = VMLINUX_BTF.parent / "loop"

Macros = dict[str, int]


UNDERSTUDY = "UNDERSTUDY"
"""The value that is 1 in the second copy of the program ``submit``, where there is one, and 0 in every other program."""


def volume_values(volume: VolumeSpec, options: CaptureOptions, loop: LoopCommand | None = None) -> dict[str, int]:
    """What loaded programs know of the volume that they serve, and of its rings; named in bpf/capture.bpf.c.

    ``loop``: of a volume on a loop device, where that is known.
    """
    return {
        "LOOP_TAKEN": loop.taken if loop else 0,
        "LOOP_DIRECT": loop.direct if loop else 0,
        "DISK_NUMBER": volume.disk_major << _MINOR_BITS | volume.disk_minor,
        "DISK_MAJOR": volume.disk_major,
        "DISK_MINOR": volume.disk_minor,
        "VOLUME_START": volume.start_sector,
        "VOLUME_END": volume.start_sector + volume.size_sectors,
        "BLOCK_SHIFT_SECTORS": volume.block_sectors.bit_length() - 1,
        "LEVEL1_WORDS": volume.level1_words,
        "MAP_WORDS": volume.map_words,
        "HEADER_RECORDS": options.header_ring_bytes // RECORD_BYTES,
        "BIO_BASED": int(volume.bio_based),
        "HALF_OF_SUMS": _sums(volume) // 2,
        UNDERSTUDY: 0,
    }


class LoopCommand(NamedTuple):
    """Where the loop driver's own part of a request has what short_of_a_file() in bpf/capture.bpf.c asks for."""

    taken: int  # bytes from the start of the request
    direct: int


def loop_command(btf: Btf) -> LoopCommand | None:
    """By the kernel's types, or those of its module; None where nothing tells."""
    if not btf.knows("loop_cmd"):
        try:
            btf = btf.with_module(_LOOP_MODULE_BTF.read_bytes())
        except (OSError, ValueError):
            return None
    try:
        own_part = btf.size("request")  # blk_mq_rq_to_pdu()
        taken, direct = btf.field("loop_cmd", "ret"), btf.field("loop_cmd", "use_aio")
    except KeyError:
        return None
    return LoopCommand(own_part + taken.offset, own_part + direct.offset) if taken.size == 8 else None


def map_sizes(volume: VolumeSpec, options: CaptureOptions) -> dict[str, int]:
    """``max_entries`` of the maps whose size is the volume's. Of a ring buffer these are bytes."""
    return {
        "bits": 2 * volume.map_words,
        "headers": options.header_ring_bytes // RECORD_BYTES,
        "data": options.data_ring_bytes,
        "sums": _sums(volume),
    }


def _sums(volume: VolumeSpec) -> int:
    """How many pieces of 4 KiB can be watched while they are written, in two halves (bpf/watched.bpf.h).

    By their places on the disk, 128 MiB in a row do not meet. Without requests it is by chance, so there are four times as many.
    """
    return 1 << 18 if volume.bio_based else 1 << 16


def kernel_macros(btf: Btf) -> Macros:
    """The macros of every build. MachineError when pydbt does not know this kernel's block layer."""
    try:
        return _arguments(btf) | _operations(btf) | _request(btf) | _filter(btf) | _bio(btf, _BIO_ADDRESSES)
    except KeyError as missing:
        raise MachineError(
            f"pydbt needs Linux 5.15 or later, and does not know the block layer of {btf.release} ({missing.args[0]}): "
            "use a kernel of Debian 12, Ubuntu 24.04 or later"
        ) from None


def payload_builds(btf: Btf) -> list[Macros]:
    """The macros of each build of the capture programs with payload that a kernel may accept, the best first.

    KeyError names a member that this kernel lacks; MachineError as ``kernel_macros``.
    """
    macros = _capture_macros(btf) | payload_macros(btf) | {"PYDBT_PAYLOAD": 1}
    return [macros | steps for steps in step_macros(btf)]


def address_build(btf: Btf) -> Macros:
    """The macros of the capture programs that tell where was written, and not what. MachineError as ``kernel_macros``."""
    return _capture_macros(btf) | {"PYDBT_PAYLOAD": 0, "LOOP_HELPER": 0}


def _capture_macros(btf: Btf) -> Macros:
    return kernel_macros(btf) | {"MARK_APART": int(can_be_preempted(btf))}


def step_macros(btf: Btf) -> list[Macros]:
    """The macros of the loops' steps in each build that a kernel may accept, the best first."""
    unrolled = [{"COPY_STEPS": copy, "CHECK_STEPS": check, "LOOP_HELPER": 0} for copy, check in STEP_BUDGETS]
    if not _has_loop(btf):
        return unrolled
    return [{"COPY_STEPS": LOOP_STEPS[0], "CHECK_STEPS": LOOP_STEPS[1], "LOOP_HELPER": 1}, *unrolled]


def _has_loop(btf: Btf) -> bool:
    """Whether the kernel has the helper bpf_loop() (v5.17)."""
    try:
        return "BPF_FUNC_loop" in btf.enumerators("bpf_func_id")
    except KeyError:
        return False


def can_be_preempted(btf: Btf) -> bool:
    """Whether a task can be preempted inside a program of a tracepoint; see *Who may interrupt* in bpf/kernel_fixes.h.

    By the kernel's names of what guards the call then (a46023d5616e): the variable is older, and was gone for some versions.
    """
    return btf.knows("class_srcu_fast_notrace_t") and btf.knows("tracepoint_srcu_srcu_data")


def payload_macros(btf: Btf) -> Macros:
    """More macros for a build that copies payload. KeyError names a member that this kernel lacks."""
    page = {"flags": btf.field("page", "flags"), "compound": compound(btf), "mapping": btf.field("page", "mapping")}
    page_bits = btf.enumerators("pageflags")
    buffer_bits = btf.enumerators("bh_state_bits")
    page_bytes = resource.getpagesize()
    dma_buf = btf.lone_enumerator("BIO_DMABUF_MAP")
    flags = {} if dma_buf is None else {"bi_flags": "bi_flags"}
    macros = _bio(btf, _BIO_PAYLOAD | flags | {"bi_bvec_done": done_of_first_vector(btf)}) | {
        "SIZE_bio_vec": btf.size("bio_vec"),
        "OFF_bio_vec_bv_page": btf.offset("bio_vec", "bv_page"),
        "OFF_bio_vec_bv_len": btf.offset("bio_vec", "bv_len"),
        "OFF_bio_vec_bv_offset": btf.offset("bio_vec", "bv_offset"),
        "SIZE_page": btf.size("page"),
        "PAGE_COPY_WORDS": max(field.offset + field.size for field in page.values()) // 8,
        "PG_dirty": page_bits["PG_dirty"],
        "PG_locked": page_bits["PG_locked"],
        "PG_writeback": page_bits["PG_writeback"],
        "PG_head": page_bits["PG_head"],
        "OFF_folio_pages": _pages_of_a_folio(btf),
        "OFF_buffer_head_b_state": btf.offset("buffer_head", "b_state"),
        "BIT_BH_Dirty": buffer_bits["BH_Dirty"],
        "KERNEL_PAGE_SHIFT": page_bytes.bit_length() - 1,
        "COMPOUND_MASK": int(has_compound_mask(btf)),
    }
    if dma_buf is not None:
        macros["BIT_BIO_DMABUF_MAP"] = dma_buf
    return macros | {f"OFF_page_{name}": field.offset for name, field in page.items()}


def has_compound_mask(btf: Btf) -> bool:
    """Whether a tail page may hold a mask in the place of its head's address; head_of() in bpf/kernel_fixes.h."""
    return btf.has("page", "compound_info")


def compound(btf: Btf) -> Field:
    """The member of struct page that tells a tail page from others, and where its head is."""
    return btf.field("page", "compound_info" if has_compound_mask(btf) else "compound_head")


def done_of_first_vector(btf: Btf) -> str:
    """The member of struct bio with the bytes of its first vector that are done: renamed in v7.3."""
    return "bi_iter.bi_offset" if btf.has("bvec_iter", "bi_offset") else "bi_iter.bi_bvec_done"


def _pages_of_a_folio(btf: Btf) -> int:
    """Where, from a folio's first struct page, the number of its pages is. Before v6.1 only the second struct page tells it."""
    for name in ("_nr_pages", "_folio_nr_pages"):
        if btf.has("folio", name):
            return btf.offset("folio", name)
    return btf.size("page") + btf.offset("page", "compound_nr")


def _arguments(btf: Btf) -> Macros:
    macros = {}
    for tracepoint, struct_name, macro in (
        ("block_bio_queue", "bio", "bio"),
        ("block_bio_complete", "bio", "bio"),
        ("block_rq_complete", "request", "rq"),
    ):
        names = btf.tracepoint_arguments(tracepoint)
        if struct_name not in names:
            raise KeyError(f"tracepoint {tracepoint} passes no struct {struct_name}")
        macros[f"ARG_{tracepoint}_{macro}"] = names.index(struct_name)
    after_request = macros["ARG_block_rq_complete_rq"] + 1
    if len(btf.tracepoint_arguments("block_rq_complete")) != after_request + 2:
        raise KeyError("tracepoint block_rq_complete does not pass (request, error, bytes)")
    return macros | {
        "ARG_block_rq_complete_error": after_request,
        "ARG_block_rq_complete_nr_bytes": after_request + 1,
    }


def _operations(btf: Btf) -> Macros:
    operations = btf.enumerators("req_op", "req_opf")
    bits = btf.enumerators("req_flag_bits")
    if "REQ_OP_WRITE" not in operations:
        raise KeyError("enum req_op has no REQ_OP_WRITE")
    macros = {f"OP_{name}": operations.get(f"REQ_OP_{name}", _ABSENT) for name in _OPERATIONS}
    macros |= {f"BIT_{name}": bits[f"__REQ_{name}"] for name in ("FUA", "PREFLUSH", "META")}
    return macros | {"OP_MASK": (1 << bits["__REQ_FAILFAST_DEV"]) - 1}  # the first flag follows the operation


def _request(btf: Btf) -> Macros:
    names = ("q", "cmd_flags", "__sector", "bio", "part")
    return _offsets(btf, "request", *names) | _offsets(btf, "request_queue", "disk")


def _filter(btf: Btf) -> Macros:
    return (
        _offsets(btf, "block_device", "bd_disk", "bd_dev")
        | _offsets(btf, "gendisk", "major", "first_minor")
        | _offsets(btf, "bio", "bi_status")
    )


_BIO_ADDRESSES = {
    "bi_bdev": "bi_bdev",
    "bi_opf": "bi_opf",
    "bi_sector": "bi_iter.bi_sector",
    "bi_size": "bi_iter.bi_size",
}
_BIO_PAYLOAD = _BIO_ADDRESSES | {
    "bi_idx": "bi_iter.bi_idx",
    "bi_next": "bi_next",
    "bi_end_io": "bi_end_io",
    "bi_private": "bi_private",
    "bi_vcnt": "bi_vcnt",
    "bi_io_vec": "bi_io_vec",
}


def _bio(btf: Btf, members: dict[str, str]) -> Macros:
    return _copied("bio", {name: btf.field("bio", member) for name, member in members.items()})


def _offsets(btf: Btf, struct_name: str, *members: str) -> Macros:
    return {f"OFF_{struct_name}_{name}": btf.offset(struct_name, name) for name in members}


def _copied(struct_name: str, fields: dict[str, Field]) -> Macros:
    """Offsets of the members, and the part of the struct that holds them all, from an 8-byte boundary."""
    start = min(field.offset for field in fields.values()) & ~7
    end = max(field.offset + field.size for field in fields.values())
    macros = {f"OFF_{struct_name}_{name}": field.offset for name, field in fields.items()}
    return macros | {f"OFF_{struct_name}_copy": start, f"SIZE_{struct_name}_copy": end - start}

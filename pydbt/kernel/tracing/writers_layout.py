"""The running kernel as -D macros for the programs that attribute writes (bpf/writers.bpf.c), and what they need of it."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from pathlib import Path

from pydbt.kernel.addresses import address_in
from pydbt.kernel.btf import Btf
from pydbt.kernel.layout import Macros, compound, done_of_first_vector, has_compound_mask
from pydbt.kernel.spec import VolumeSpec

_MINOR_BITS = 20  # include/linux/kdev_t.h
_KALLSYMS = Path("/proc/kallsyms")
_SUBMISSION = "block_bio_queue"
# v5.17, 203a31516616 ("mm/writeback: Add __folio_mark_dirty()"): of pages until then.
DIRTYING = (("writeback_dirty_folio", "folio"), ("writeback_dirty_page", "page"))

#: Functions of the kernel whose addresses tell what a bio is for, by the value that takes them in bpf/writers.bpf.c.
END_FUNCTIONS = {
    "END_OF_DIRECT": "iomap_dio_bio_end_io",
    "END_OF_BUFFER": "end_bio_bh_io_sync",
    "END_OF_JBD2": "journal_end_buffer_io_sync",
    "END_OF_FAST_COMMIT": "ext4_end_buffer_io_sync",
    "END_OF_XFS_LOG": "xlog_bio_end_io",
}


def writers_macros(btf: Btf) -> Macros:
    """KeyError names what this kernel lacks without which nothing can be told; without the dirtying of pages, less is told."""
    macros = _submission(btf) | _page(btf) | _inode(btf) | _task(btf) | _loop(btf) | _direct(btf)
    try:
        return macros | _dirtying(btf)
    except KeyError:
        return macros | {"NO_DIRTYING": 1}


def writers_values(volume: VolumeSpec, kallsyms: Path = _KALLSYMS) -> tuple[dict[str, int], str]:
    """What the loaded programs know of the volume and of the kernel's functions; and what these cannot tell, in a sentence.

    A function that the kernel does not show has the address 0, also one of a module that is loaded later: what ext4 or XFS writes
    to its journal counts as metadata then.
    """
    shown = _functions(END_FUNCTIONS.values(), kallsyms)
    values = {value: shown[function] for value, function in END_FUNCTIONS.items()}
    values |= {
        "DISK_NUMBER": volume.disk_major << _MINOR_BITS | volume.disk_minor,
        "DISK_MAJOR": volume.disk_major,
        "DISK_MINOR": volume.disk_minor,
        "VOLUME_START": volume.start_sector,
        "VOLUME_END": volume.start_sector + volume.size_sectors,
    }
    if any(shown.values()):
        return values, ""
    return values, (
        "this kernel shows no addresses of its functions: the file of a direct write is unknown, and the journal counts as "
        "metadata"
    )


def _functions(names: Iterable[str], kallsyms: Path) -> dict[str, int]:
    """Addresses of functions of the kernel and of its modules; 0 for one that is not shown."""
    try:
        text = kallsyms.read_bytes()
    except OSError:
        return dict.fromkeys(names, 0)
    return {name: _address(text, name.encode()) for name in names}


def _address(text: bytes, name: bytes) -> int:
    for before in (b" t ", b" T "):
        for after in (b"\n", b"\t"):  # a module's name follows
            at = text.find(before + name + after)
            if at >= 0:
                return address_in(text[text.rfind(b"\n", 0, at) + 1 : at])
    return 0


def _submission(btf: Btf) -> Macros:
    names = btf.tracepoint_arguments(_SUBMISSION)
    operations, bits = btf.enumerators("req_op", "req_opf"), btf.enumerators("req_flag_bits")
    bio = {
        "bi_bdev": "bi_bdev",
        "bi_opf": "bi_opf",
        "bi_sector": "bi_iter.bi_sector",
        "bi_size": "bi_iter.bi_size",
        "bi_idx": "bi_iter.bi_idx",
        "bi_bvec_done": done_of_first_vector(btf),
        "bi_end_io": "bi_end_io",
        "bi_private": "bi_private",
        "bi_vcnt": "bi_vcnt",
        "bi_io_vec": "bi_io_vec",
    }
    if "bio" not in names:
        raise KeyError(f"tracepoint {_SUBMISSION} passes no struct bio")
    macros = {f"OFF_bio_{name}": btf.offset("bio", member) for name, member in bio.items()}
    macros |= {
        "ARG_block_bio_queue_bio": names.index("bio"),
        "OP_WRITE": operations["REQ_OP_WRITE"],
        "OP_MASK": (1 << bits["__REQ_FAILFAST_DEV"]) - 1,
        "BIT_META": bits["__REQ_META"],
        "SIZE_bio_vec": btf.size("bio_vec"),
    }
    if btf.has("buffer_head", "b_end_io"):  # until v7.2
        macros["OFF_buffer_head_b_end_io"] = btf.offset("buffer_head", "b_end_io")
    for struct_name, members in {
        "bio_vec": ("bv_page", "bv_len", "bv_offset"),
        "block_device": ("bd_dev", "bd_disk"),
        "gendisk": ("major", "first_minor"),
    }.items():
        macros |= {f"OFF_{struct_name}_{member}": btf.offset(struct_name, member) for member in members}
    return macros


def _index(btf: Btf) -> int:
    """Where a page's index in its file lies: in struct folio, which begins as struct page does."""
    return btf.offset("folio", "index") if btf.has("folio", "index") else btf.offset("page", "index")


def _page(btf: Btf) -> Macros:
    places = {"compound": compound(btf).offset, "mapping": btf.offset("page", "mapping"), "index": _index(btf)}
    return {f"OFF_page_{name}": offset for name, offset in places.items()} | {
        "SIZE_page": btf.size("page"),
        "COMPOUND_MASK": int(has_compound_mask(btf)),
        "PAGE_WORDS": max(places.values()) // 8 + 1,
        "KERNEL_PAGE_SHIFT": resource.getpagesize().bit_length() - 1,
        "OFF_address_space_host": btf.offset("address_space", "host"),
    }


def _inode(btf: Btf) -> Macros:
    members = ("i_ino", "i_mode", "i_rdev", "i_sb", "i_generation", "dirtied_when")
    return {f"OFF_inode_{member}": btf.offset("inode", member) for member in members} | {
        "OFF_super_block_s_dev": btf.offset("super_block", "s_dev")
    }


def _task(btf: Btf) -> Macros:
    members = ("group_leader", "start_boottime", "flags", "comm")
    return {f"OFF_task_struct_{member}": btf.offset("task_struct", member) for member in members}


def _direct(btf: Btf) -> Macros:
    """Where the file of a direct write is; without it (another iomap) the file is not known."""
    try:
        return {
            "OFF_iomap_dio_iocb": btf.offset("iomap_dio", "iocb"),
            "OFF_kiocb_ki_filp": btf.offset("kiocb", "ki_filp"),
            "OFF_file_f_inode": btf.offset("file", "f_inode"),
        }
    except KeyError:
        return {}


def _loop(btf: Btf) -> Macros:
    """Whether the kernel has the helper bpf_loop() (v5.17); without it the walk over a bio is short."""
    return {"LOOP_HELPER": int("BPF_FUNC_loop" in btf.enumerators("bpf_func_id"))}


def _dirtying(btf: Btf) -> Macros:
    """The macros of the tracepoint of a page that becomes dirty. KeyError names the lack."""
    for tracepoint, unit in DIRTYING:
        try:
            names = btf.tracepoint_arguments(tracepoint)
        except KeyError:
            continue
        for wanted in (unit, "address_space"):
            if wanted not in names:
                raise KeyError(f"tracepoint {tracepoint} passes no struct {wanted}")
        macros = {
            "ARG_dirty_page": names.index(unit),
            "ARG_dirty_mapping": names.index("address_space"),
            "OFF_dirty_index": _index(btf),
        }
        return macros | (_large_folios(btf) if unit == "folio" else {})
    raise KeyError("it has neither the tracepoint writeback_dirty_folio nor writeback_dirty_page")


def _large_folios(btf: Btf) -> Macros:
    name = next((one for one in ("_nr_pages", "_folio_nr_pages") if btf.has("folio", one)), "")
    if not name:
        return {}  # each folio counts as one page
    return {
        "OFF_folio_pages": btf.offset("folio", name),
        "OFF_page_flags": btf.offset("folio", "flags"),
        "PG_head": btf.enumerators("pageflags")["PG_head"],
    }

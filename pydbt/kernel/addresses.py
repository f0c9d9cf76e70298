"""The addresses of the kernel's direct map, with a proof that they are right. Runs in the loader only.

Payload is copied from ``page_offset_base + page frame number * page size``. The frame number is the index of the page's
``struct page`` in the array at ``vmemmap_base``. Both bases are variables (KASLR moves them), and /proc/kallsyms shows their
addresses only on kernels with CONFIG_KALLSYMS_ALL. So the loader proves every candidate with several pages: it reads a page
of the volume with O_DIRECT into its own memory, and a probe program records the struct page in the bio. /proc/self/pagemap
gives the frame of that memory. The loader writes random bytes there and must find them again through the direct map. Nothing
is written to any disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PROOF_PAGES = 5
_ATTEMPTS = 3  # compaction can move a page between two reads of its frame number
_SAMPLE_BYTES = 64
_GIB = 1 << 30
_FRAME_MASK = (1 << 55) - 1
_PRESENT = 1 << 63
# Where x86_64 puts the direct map without KASLR: Documentation/arch/x86/x86_64/mm.rst, four and five levels.
_DEFAULT_PAGE_OFFSETS = (0xFFFF888000000000, 0xFF11000000000000)
_RAM_MARGIN = 4  # physical addresses have holes: search this many times the size of the memory


class Unproven(Exception):
    """The direct map was not found, for the reason in the message. Capture then records addresses only."""


@dataclass(frozen=True, slots=True)
class DirectMap:
    """Proven addresses of physical page 0 and of its struct page."""

    page_offset_base: int
    vmemmap_base: int


class KernelReader(Protocol):
    """The reads of kernel memory that the loader's probe programs make (bpf/probe.bpf.h)."""

    def read(self, address: int) -> bytes | None: ...
    def last_read_seen(self) -> tuple[int, int, int, int]: ...  # reads, struct page, offset, task


def address_in(text: bytes) -> int:
    """The address of a line of ``/proc/kallsyms``; 0, as of one that is not shown, when there is none."""
    try:
        return int(text, 16)
    except ValueError:
        return 0


def symbols(names: tuple[str, ...], path: Path = Path("/proc/kallsyms")) -> dict[str, int]:
    """Addresses of these symbols, as far as the kernel shows them."""
    text = path.read_bytes()
    found = {}
    for name in names:
        for letter in (b"t", b"T", b"d", b"D", b"b", b"B", b"r", b"R"):
            at = text.find(b" " + letter + b" " + name.encode() + b"\n")
            if at >= 0 and (address := address_in(text[text.rfind(b"\n", 0, at) + 1 : at])):
                found[name] = address
                break
    return found


def find_direct_map(
    reader: KernelReader, disk: Path, offset_bytes: int, page_struct_bytes: int, shown: dict[str, int]
) -> DirectMap:
    """Find the bases with reads of ``disk`` at ``offset_bytes``, and prove them. Raises Unproven."""
    with contextlib.ExitStack() as stack:
        try:
            fd = os.open(disk, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, pagemap)
        except OSError as error:
            raise Unproven(f"{error.filename or disk} cannot be opened for the self-test: {error.strerror}") from None
        bases: DirectMap | None = None
        for _ in range(PROOF_PAGES):
            buffer = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            stack.callback(buffer.close)
            bases = _prove(reader, fd, pagemap, offset_bytes, page_struct_bytes, shown, buffer, bases)
        assert bases is not None
        return bases


def _prove(
    reader: KernelReader,
    fd: int,
    pagemap: int,
    offset_bytes: int,
    page_struct_bytes: int,
    shown: dict[str, int],
    buffer: mmap.mmap,
    bases: DirectMap | None,
) -> DirectMap:
    """Bases that are right for this buffer: the given ones, or for the first buffer those that are found."""
    reason = "the self-test's page kept moving"
    for _ in range(_ATTEMPTS):
        buffer.write_byte(1)  # allocates the page: it is no longer the shared page of zeroes
        buffer.seek(0)
        seen_before, *_ = reader.last_read_seen()
        try:
            os.preadv(fd, [buffer], offset_bytes)
        except OSError as error:
            raise Unproven(f"reading the disk for the self-test failed: {error.strerror}") from None
        seen, page, page_offset, task = reader.last_read_seen()
        if seen == seen_before:
            raise Unproven("the self-test's own read did not pass block_bio_queue")
        pattern = os.urandom(mmap.PAGESIZE)
        buffer[:] = pattern
        frame = _frame_of(buffer, pagemap)
        page += page_offset // mmap.PAGESIZE * page_struct_bytes
        vmemmap_base = page - frame * page_struct_bytes
        candidates = [bases.page_offset_base] if bases else _page_offset_candidates(reader, shown, task)
        for candidate in candidates:
            if _holds(reader, candidate + frame * mmap.PAGESIZE, pattern):
                found = DirectMap(candidate, vmemmap_base)
                if bases in (None, found):
                    return found
        if frame == _frame_of(buffer, pagemap):
            reason = "random bytes written to a page were not found through the direct map"
    raise Unproven(reason)


def _page_offset_candidates(reader: KernelReader, shown: dict[str, int], task: int) -> Iterator[int]:
    if (address := shown.get("page_offset_base")) and (raw := reader.read(address)):
        yield struct.unpack_from("<Q", raw)[0]
    yield from _DEFAULT_PAGE_OFFSETS
    # Tasks lie in the direct map, which KASLR aligns to 1 GiB.
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    for step in range(_RAM_MARGIN * (memory_bytes // _GIB + 1) + _RAM_MARGIN):
        yield (task & ~(_GIB - 1)) - step * _GIB


def _holds(reader: KernelReader, address: int, pattern: bytes) -> bool:
    def same(offset: int) -> bool:
        return reader.read(address + offset) == pattern[offset : offset + _SAMPLE_BYTES]

    return same(0) and same(len(pattern) // 2) and same(len(pattern) - _SAMPLE_BYTES)


def _frame_of(buffer: mmap.mmap, pagemap: int) -> int:
    view = ctypes.c_char.from_buffer(buffer)
    address = ctypes.addressof(view)
    del view
    entry = int.from_bytes(os.pread(pagemap, 8, address // mmap.PAGESIZE * 8), "little")
    frame = entry & _FRAME_MASK
    if not entry & _PRESENT or not frame:
        raise Unproven("/proc/self/pagemap does not show page frame numbers")
    return frame


def disk_node(major: int, minor: int, sysfs: Path = Path("/sys/dev/block")) -> Path:
    """The device file of a disk. Unproven when it has none."""
    try:
        uevent = (sysfs / f"{major}:{minor}" / "uevent").read_text()
    except OSError:
        raise Unproven(f"disk {major}:{minor} is not in /sys/dev/block") from None
    for line in uevent.splitlines():
        if line.startswith("DEVNAME="):
            return Path("/dev") / line.removeprefix("DEVNAME=")
    raise Unproven(f"disk {major}:{minor} has no device file")

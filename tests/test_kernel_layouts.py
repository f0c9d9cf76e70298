"""Each line of kernels, by its own types: the layouts that capture and the observing programs are compiled with.

The files in tests/kernel_types are small parts of kernels' BTF, made by tests/lab/kernel_types.py. This tells in a second
whether a kernel has all that the programs ask for. Whether its verifier takes them, only that kernel itself can tell.
"""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from pydbt.core.errors import MachineError
from pydbt.kernel import layout
from pydbt.kernel.btf import VMLINUX_BTF, Btf, Field
from pydbt.kernel.tracing import block_io, writers_layout
from tests.lab import kernel_types

KERNELS = sorted(path.name.removesuffix(".btf.xz") for path in kernel_types.FOLDER.glob("*.btf.xz"))
TOO_OLD = ("5.10",)
# The line, and the members of which newer kernels have others.
LINES = {
    "5.15": ("compound_head", "compound_nr", "bi_bvec_done"),
    "5.19": ("compound_head", "compound_nr", "bi_bvec_done"),
    "6.0": ("compound_head", "compound_nr", "bi_bvec_done"),
    "6.1": ("compound_head", "_folio_nr_pages", "bi_bvec_done"),
    "6.5": ("compound_head", "_folio_nr_pages", "bi_bvec_done"),
    "6.8": ("compound_head", "_folio_nr_pages", "bi_bvec_done"),
    "6.12": ("compound_head", "_folio_nr_pages", "bi_bvec_done"),
    "6.17": ("compound_head", "_nr_pages", "bi_bvec_done"),
    "7.0": ("compound_head", "_nr_pages", "bi_bvec_done"),
    "7.1": ("compound_info", "_nr_pages", "bi_bvec_done"),
    "7.2": ("compound_info", "_nr_pages", "bi_bvec_done"),
    "7.3": ("compound_info", "_nr_pages", "bi_offset"),
}


def types_of(kernel: str) -> Btf:
    return Btf(lzma.decompress((kernel_types.FOLDER / f"{kernel}.btf.xz").read_bytes()))


def line(kernel: str) -> str:
    return kernel.split("-")[0]


SUPPORTED = [kernel for kernel in KERNELS if line(kernel) not in TOO_OLD]


def test_each_line_has_a_kernel_and_each_kernel_a_line() -> None:
    assert {line(kernel) for kernel in KERNELS} == {*LINES, *TOO_OLD}


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if line(kernel) in TOO_OLD])
def test_a_kernel_that_is_too_old_is_refused_with_the_version_it_takes(kernel: str) -> None:
    with pytest.raises(MachineError, match=r"needs Linux 5\.15 or later"):
        layout.kernel_macros(types_of(kernel))


@pytest.mark.parametrize("kernel", SUPPORTED)
def test_a_kernel_has_what_capture_asks_for_with_payload_and_without(kernel: str) -> None:
    btf = types_of(kernel)
    addresses, payload = layout.kernel_macros(btf), layout.payload_macros(btf)
    assert all(isinstance(value, int) and value >= 0 for value in (addresses | payload).values())
    assert addresses["OP_WRITE"] == 1
    compound, pages, done = LINES[line(kernel)]
    assert payload["COMPOUND_MASK"] == int(compound == "compound_info")
    assert payload["OFF_page_compound"] == btf.offset("page", compound) == 8
    assert payload["OFF_bio_bi_bvec_done"] == btf.offset("bio", f"bi_iter.{done}")
    assert payload["OFF_folio_pages"] == (
        btf.offset("folio", pages) if btf.has("folio", pages) else 64 + btf.offset("page", pages)
    )
    assert payload["SIZE_page"] == 64


@pytest.mark.parametrize("kernel", SUPPORTED)
def test_a_kernel_has_what_the_observing_programs_ask_for(kernel: str) -> None:
    btf = types_of(kernel)
    assert block_io.PLAN.macros(btf)["SIZE_inode_copy"] > 0
    writers = writers_layout.writers_macros(btf)
    assert "NO_DIRTYING" not in writers
    assert "OFF_iomap_dio_iocb" in writers


@pytest.mark.parametrize("kernel", SUPPORTED)
def test_the_kernels_own_loop_is_used_from_5_17_on(kernel: str) -> None:
    has_loop = line(kernel) != "5.15"
    assert layout.step_macros(types_of(kernel))[0]["LOOP_HELPER"] == int(has_loop)


@pytest.mark.parametrize("kernel", SUPPORTED)
def test_writes_are_marked_twice_where_a_program_can_be_preempted(kernel: str) -> None:
    major = int(line(kernel).split(".")[0])
    assert layout.can_be_preempted(types_of(kernel)) == (major >= 7)


def test_a_small_file_answers_as_the_whole_does() -> None:
    blob = kernel_types.types_in(VMLINUX_BTF.read_bytes())
    whole, part = Btf(blob), Btf(kernel_types.small(blob))
    for ask in (
        layout.can_be_preempted,
        layout.kernel_macros,
        layout.payload_macros,
        layout.step_macros,
        block_io.PLAN.macros,
    ):
        assert ask(part) == ask(whole)
    assert writers_layout.writers_macros(part) == writers_layout.writers_macros(whole)


def test_a_kernel_that_knows_bios_of_dma_buffers_has_them_left_out() -> None:
    blob = kernel_types.types_in(lzma.decompress((kernel_types.FOLDER / f"{KERNELS[-1]}.btf.xz").read_bytes()))
    assert Btf(blob).lone_enumerator("BIO_DMABUF_MAP") is None
    coming = Btf(with_lone_enumerator(blob, b"BIO_DMABUF_MAP", 13))
    assert coming.lone_enumerator("BIO_DMABUF_MAP") == 13
    macros = layout.payload_macros(coming)
    assert macros["BIT_BIO_DMABUF_MAP"] == 13
    assert macros["OFF_bio_bi_flags"] == coming.offset("bio", "bi_flags")


def test_types_of_a_module_go_on_where_those_of_the_kernel_end() -> None:
    """As where the loop driver is a module: of structs that lie in both, and of numbers of types."""
    blob = (kernel_types.FOLDER / f"{KERNELS[-1]}.btf.xz").read_bytes()
    base = kernel_types.types_in(lzma.decompress(blob))
    btf = Btf(base)
    with pytest.raises(KeyError):
        btf.field("loop_cmd", "ret")
    both = btf.with_module(module_of_a_loop(base, btf.tracepoint_type("block_bio_queue")))
    assert both.field("loop_cmd", "ret") == Field(24, 8)
    assert layout.loop_command(both) == (btf.size("request") + 24, btf.size("request") + 16)
    assert both.field("bio", "bi_iter.bi_sector") == btf.field("bio", "bi_iter.bi_sector")
    with pytest.raises(ValueError):
        btf.with_module(b"no types")


def test_a_kernel_whose_loop_driver_is_not_known_shows_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_LOOP_MODULE_BTF", Path("/nonexistent"))
    assert layout.loop_command(types_of(KERNELS[-1])) is None


def module_of_a_loop(base: bytes, pointer: int) -> bytes:
    """The types of a module: a struct of a loop driver's commands. ``pointer``: the number of a type of the kernel."""
    header = kernel_types.HEADER
    string_bytes = header.unpack_from(base)[-1]
    names = [b"loop_cmd", b"use_aio", b"ret"]
    command, use_aio, ret = (string_bytes + sum(len(name) + 1 for name in names[:place]) for place in range(3))
    types = struct.pack("<9I", command, 4 << 24 | 2, 32, use_aio, pointer, 16 * 8, ret, pointer, 24 * 8)
    strings = b"".join(name + b"\0" for name in names)
    return header.pack(0xEB9F, 1, 0, header.size, 0, len(types), len(types), len(strings)) + types + strings


def with_lone_enumerator(blob: bytes, name: bytes, value: int) -> bytes:
    """A nameless enum with this one enumerator, added to a blob."""
    header = kernel_types.HEADER
    magic, version, flags, size, type_at, type_bytes, string_at, string_bytes = header.unpack_from(blob)
    types = blob[size + type_at : size + type_at + type_bytes]
    strings = blob[size + string_at : size + string_at + string_bytes]
    types += (0).to_bytes(4, "little") + (6 << 24 | 1).to_bytes(4, "little") + (4).to_bytes(4, "little")
    types += len(strings).to_bytes(4, "little") + value.to_bytes(4, "little")
    strings += name + b"\0"
    return header.pack(magic, version, flags, size, 0, len(types), len(types), len(strings)) + types + strings

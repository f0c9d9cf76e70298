"""The programs compiled for a kernel before it runs: all that a start on it asks for, and nothing that one could not use."""

from __future__ import annotations

import lzma
import os
import struct
from pathlib import Path

import pytest

from pydbt.core.errors import MachineError, StateError
from pydbt.kernel import code_cache, layout
from pydbt.kernel.btf import VMLINUX_BTF, Btf
from pydbt.kernel.code import Code
from pydbt.kernel.code_cache import Kernel
from pydbt.kernel.tracing.ahead import builds, compile_ahead
from tests.lab.kernel_image import kernel_image
from tests.lab.kernel_types import FOLDER, HEADER, MEMBER_BYTES, TAIL_BYTES
from tests.lab.rounds import short

NAMES = "6.1.0-44-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.164-1 (2026-03-09)"
KERNEL = Kernel("6.1.0-44-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.164-1 (2026-03-09)", "x86_64")
KERNELS = sorted(path.name.removesuffix(".btf.xz") for path in FOLDER.glob("*.btf.xz"))
USUAL, TOO_OLD = "6.1-debian-12", "5.10-debian-11"


def types_of(kernel: str) -> bytes:
    return lzma.decompress((FOLDER / f"{kernel}.btf.xz").read_bytes())


def image(folder: Path, types: bytes) -> Path:
    (folder / "vmlinuz").write_bytes(kernel_image(types, NAMES))
    return folder / "vmlinuz"


def never() -> Code:
    raise AssertionError("a start on this kernel would need the compiler")


@pytest.mark.parametrize("kernel", short(1, USUAL, *(name for name in KERNELS if name not in (USUAL, TOO_OLD))))
def test_a_start_on_a_kernel_that_was_compiled_for_needs_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """Every build compiles for the kernel's types, also those of which its verifier decides which one it takes."""
    kept, types = tmp_path / "kept", types_of(kernel)
    done = compile_ahead(image(tmp_path, types), kept)
    assert (done.release, done.kept) == (KERNEL.release, 0)
    again = compile_ahead(tmp_path / "vmlinuz", kept)
    assert (again.compiled, again.kept) == (0, done.compiled)
    monkeypatch.setattr(code_cache, "running_kernel", lambda: KERNEL)
    asked = list(builds(Btf(types)))
    assert len(asked) == done.compiled and any(
        macros["PYDBT_PAYLOAD"] for _, macros in asked if "PYDBT_PAYLOAD" in macros
    )
    for text, macros in asked:
        assert code_cache.code_for(text, macros, never, kept).functions
        assert code_cache.is_known(text, kept)


def test_code_compiled_for_another_kernel_is_not_taken_for_this_one(tmp_path: Path) -> None:
    btf = Btf.of_running_kernel()
    text, macros = next(builds(btf))
    path = code_cache.missing_place(KERNEL, text, macros, tmp_path / "kept")
    assert path is not None
    code_cache.keep(path, Code({"pydbt_submit": bytes(16)}, ()))
    with pytest.raises(AssertionError, match="would need the compiler"):
        code_cache.code_for(text, macros, never, tmp_path / "kept")
    assert not code_cache.is_known(text, tmp_path / "kept")


def test_the_loader_asks_for_nothing_else(tmp_path: Path) -> None:
    """The order counts: the loader takes the first build that the verifier takes."""
    btf = Btf.of_running_kernel()
    asked = [macros for _, macros in builds(btf)]
    assert asked[: len(layout.payload_builds(btf)) + 1] == [*layout.payload_builds(btf), layout.address_build(btf)]


@pytest.mark.parametrize(
    ("types", "words"),
    [(types_of(TOO_OLD), r"needs Linux 5\.15 or later, .* of 6\.1\.0-44-amd64"), (b"no types", "cannot be used")],
)
def test_a_kernel_that_nothing_can_be_compiled_for_is_refused_and_nothing_is_kept(
    tmp_path: Path, types: bytes, words: str
) -> None:
    with pytest.raises(MachineError, match=words):
        compile_ahead(image(tmp_path, types), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def in_a_circle(types: bytes) -> bytes:
    """The same types, of which every one that stands for another, but for those of tracepoints, stands for itself."""
    _, _, _, header_bytes, start, length, texts, _ = HEADER.unpack_from(types)
    changed, at, number = bytearray(types), header_bytes + start, 1
    while at < header_bytes + start + length:
        name, info, _ = struct.unpack_from("<III", types, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if kind in (8, 9, 10, 11, 18) and not types[header_bytes + texts + name :].startswith(b"btf_trace_"):
            struct.pack_into("<I", changed, at + 8, number)
        at, number = at + 12 + TAIL_BYTES.get(kind, 0) + MEMBER_BYTES.get(kind, 0) * count, number + 1
    return bytes(changed)


def test_damaged_types_are_no_endless_search_and_no_exception(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"types of kernel 6\.1\.0-44-amd64 are damaged"):
        compile_ahead(image(tmp_path, in_a_circle(types_of(USUAL))), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_others_can_write_to_is_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o777)
    os.chmod(kept, 0o777)
    with pytest.raises(StateError, match="cannot be kept"):
        compile_ahead(None, kept)
    assert VMLINUX_BTF.exists() and not list(kept.iterdir())


def test_a_link_in_the_place_of_the_folder_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "kept").symlink_to(tmp_path / "nothing")
    with pytest.raises(StateError, match=r"cannot be kept in \S+/kept: \S+/kept is a symbolic link"):
        compile_ahead(None, tmp_path / "kept")
    assert not (tmp_path / "nothing").exists()

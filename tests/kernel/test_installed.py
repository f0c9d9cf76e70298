"""The names and the types of a kernel, out of its image: of any packing, and never an exception for a file that is none."""

from __future__ import annotations

import lzma
import os
import random
import tracemalloc
from pathlib import Path

import pytest

from pydbt.core.errors import MachineError
from pydbt.kernel import installed
from pydbt.kernel.code_cache import Kernel
from pydbt.kernel.installed import image_of, installed_kernel
from tests.lab.kernel_image import PACKERS, kernel_image
from tests.lab.kernel_types import FOLDER

NAMES = "6.1.0-44-amd64 (debian-kernel@lists.debian.org) #1 SMP PREEMPT_DYNAMIC Debian 6.1.164-1 (2026-03-09)"
KERNEL = Kernel("6.1.0-44-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.164-1 (2026-03-09)", "x86_64")
TYPES = lzma.decompress((FOLDER / "6.1-debian-12.btf.xz").read_bytes())


@pytest.mark.parametrize("packed_by", PACKERS)
def test_names_and_types_are_found_however_the_kernel_is_packed(tmp_path: Path, packed_by: str) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(kernel_image(TYPES, NAMES, packed_by))
    kernel, btf = installed_kernel(image)
    assert kernel == KERNEL and btf.release == KERNEL.release
    assert btf.offset("bio", "bi_opf") >= 0 and btf.knows("btf_trace_block_bio_queue")


def test_the_version_is_the_same_wherever_its_builder_has_a_number_sign(tmp_path: Path) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(kernel_image(TYPES, "6.8.0-31-generic (me@#9) #31-Ubuntu SMP Sat Apr 20 00:40:06 UTC 2024"))
    assert installed_kernel(image)[0].version == "#31-Ubuntu SMP Sat Apr 20 00:40:06 UTC 2024"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no header of a kernel image"),
        (b"#!/bin/sh\n" * 100, "no header of a kernel image"),
        (kernel_image(None, NAMES), "built without its types"),
        (kernel_image(b"no types", NAMES), "BTF"),
        (kernel_image(TYPES, "6.1.0-44-amd64"), "does not name its version"),
        (kernel_image(TYPES, NAMES)[:3000], "cannot be used"),
    ],
)
def test_a_file_that_is_no_kernel_with_types_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, words: str
) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(content)
    with pytest.raises(MachineError, match=words) as refused:
        installed_kernel(image)
    assert str(image) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("packed_by", ["none", "zstd"])
def test_no_damage_of_an_image_raises_anything_else(tmp_path: Path, packed_by: str) -> None:
    chance, image = random.Random(4711), tmp_path / "vmlinuz"
    whole = kernel_image(TYPES[:200], NAMES, packed_by)
    for _ in range(600):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 20) if damaged else 0):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        image.write_bytes(damaged)
        try:
            installed_kernel(image)
        except MachineError:
            continue


def test_a_pipe_an_endless_device_and_a_huge_file_are_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/zero")):
        with pytest.raises(MachineError, match=f"{place} cannot be read: it is not a regular file"):
            installed_kernel(place)
    with large.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(MachineError, match="larger than 256 MiB"):
        installed_kernel(large)


@pytest.mark.parametrize("packed_by", ["gzip", "xz", "zstd", "lz4"])
def test_a_small_file_that_unpacks_to_more_than_any_kernel_is_not_unpacked_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed_by: str
) -> None:
    monkeypatch.setattr(installed, "_UNPACKED_BYTES_MAX", 1 << 20)
    image = tmp_path / "vmlinuz"
    image.write_bytes(kernel_image(bytes(64 << 20), NAMES, packed_by))
    tracemalloc.start()
    try:
        with pytest.raises(MachineError, match="its kernel is larger than 1 MiB"):
            installed_kernel(image)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_an_installed_kernel_is_found_by_its_name(tmp_path: Path) -> None:
    boot, modules = tmp_path / "boot", tmp_path / "modules"
    with pytest.raises(MachineError, match=r"no kernel 6\.1\.0-44-amd64 is installed here"):
        image_of("6.1.0-44-amd64", boot, modules)
    (modules / "6.1.0-44-amd64").mkdir(parents=True)
    (modules / "6.1.0-44-amd64/vmlinuz").write_bytes(b"")
    assert image_of("6.1.0-44-amd64", boot, modules) == modules / "6.1.0-44-amd64/vmlinuz"
    boot.mkdir()
    (boot / "vmlinuz-6.1.0-44-amd64").write_bytes(b"")
    assert image_of("6.1.0-44-amd64", boot, modules) == boot / "vmlinuz-6.1.0-44-amd64"

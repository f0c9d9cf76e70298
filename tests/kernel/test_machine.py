"""The requirements of the machine, the sentence for each that is missing, and equal layouts in C and Python. Needs no root."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.errors import MachineError, UsageError
from pydbt.core.tracking import capture_record
from pydbt.kernel import layout, record
from pydbt.kernel.addresses import Unproven, disk_node, symbols
from pydbt.kernel.btf import Btf
from pydbt.kernel.capture import CaptureOptions, VolumeSpec
from pydbt.kernel.compiled import SOURCE, source_text
from pydbt.kernel.counters import possible_cpus
from pydbt.kernel.headers import find_headers


@pytest.fixture(autouse=True, scope="session")
def machine() -> None:
    """In place of the fixture of this folder: nothing here needs root or loads a program."""


_SIZES = {"u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "u1"}


def members(struct_name: str, text: str) -> dict[str, tuple[int, str]]:
    """Offset and type of each member of a struct of plain integers."""
    body = re.search(rf"struct {struct_name} {{(.*?)\n}};", text, re.DOTALL)
    assert body
    found, offset = {}, 0
    plain = re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL)
    for kind, name, count in re.findall(r"(u\d+) (\w+)(?:\[(\d+)\])?;", plain):
        form = np.dtype(_SIZES[kind])
        assert offset % form.itemsize == 0
        found[name] = (offset, form.str)
        offset += form.itemsize * int(count or 1)
    return found


@pytest.mark.parametrize("name", ["record", "config", "counters", "probe"])
def test_structs_of_both_sides_agree(name: str) -> None:
    text = (SOURCE.parent / ("probe.bpf.h" if name == "probe" else "record.h")).read_text()
    theirs = members(f"pydbt_{name}", text)
    ours: np.dtype = record.RING_RECORD if name == "record" else getattr(record, name.upper())
    for member in ours.names or ():
        if member != "bytes":
            form, offset = ours.fields[member][:2]
            assert theirs[member] == (offset, form.base.str), member
            assert form.shape in ((), (record.BUFFER_ENDS,))
    missing = set(theirs) - set(ours.names or ())
    assert all(member.startswith(("unused", "reserved")) for member in missing), missing


def test_constants_of_both_sides_agree() -> None:
    text = (SOURCE.parent / "record.h").read_text()
    theirs = {name: int(value) for name, value in re.findall(r"#define PYDBT_(\w+) (\d+)", text)}
    assert theirs["RECORD_BYTES"] == record.RECORD_BYTES == record.RING_RECORD.itemsize
    assert theirs["SLOT_PREFIX_BYTES"] == record.SLOT_PREFIX_BYTES
    assert theirs["GROUP_BLOCKS"] == record.GROUP_BLOCKS and theirs["GROUP_WORDS"] == record.GROUP_WORDS
    flags, kinds = capture_record.RecordFlag, capture_record.RecordKind
    for prefix, enum in (("FLAG", flags), ("KIND", kinds), ("PROGRAM", record.Program)):
        for member in enum:
            assert theirs[f"{prefix}_{member.name}"] == member.value


def test_missing_headers_name_the_package_for_debian_and_ubuntu(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"linux-headers-\w+ \(Debian\) or linux-headers-generic \(Ubuntu\)"):
        find_headers("6.1.0-99-amd64", tmp_path, tmp_path)


def test_headers_of_another_kernel_are_found(tmp_path: Path) -> None:
    """Debian's two packages, Ubuntu's one, and newest first."""
    for name in ("linux-headers-6.1.0-9-amd64", "linux-headers-6.1.0-10-cloud-amd64"):
        (tmp_path / name / "arch/x86/include/generated").mkdir(parents=True)
        (tmp_path / name / "include/generated").mkdir(parents=True)
        common = tmp_path / re.sub(r"(-cloud)?-amd64", "-common", name) / "include/linux"
        common.mkdir(parents=True)
        (common / "kconfig.h").touch()
    found = find_headers("5.0", tmp_path / "none", tmp_path)
    assert found.source.endswith("linux-headers-6.1.0-10-common")
    assert any("6.1.0-10-cloud-amd64/include" in flag for flag in found.flags)
    build = tmp_path / "modules/5.0/build/include/linux"
    build.mkdir(parents=True)
    (build / "kconfig.h").touch()
    assert find_headers("5.0", tmp_path / "modules", tmp_path).source == ""


def test_a_kernel_without_btf_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="CONFIG_DEBUG_INFO_BTF"):
        Btf.of_running_kernel(tmp_path / "vmlinux")


def test_btf_finds_nested_members_values_and_arguments() -> None:
    btf = Btf.of_running_kernel()
    assert btf.field("bio", "bi_iter.bi_sector").offset == (
        btf.offset("bio", "bi_iter") + btf.offset("bvec_iter", "bi_sector")
    )
    assert layout.compound(btf).size == 8, "inside an anonymous struct of an anonymous union"
    assert btf.enumerators("req_op", "req_opf")["REQ_OP_WRITE"] == 1
    assert "bio" in btf.tracepoint_arguments("block_bio_queue")
    with pytest.raises(KeyError, match="bi_nonsense"):
        btf.field("bio", "bi_nonsense")


def test_an_unknown_block_layer_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    btf = Btf.of_running_kernel()
    monkeypatch.setattr(btf, "tracepoint_arguments", lambda _: ["something"])
    with pytest.raises(MachineError, match="block_bio_queue"):
        layout.kernel_macros(btf)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VolumeSpec(7, 0, 0, 0),
        lambda: VolumeSpec(7, 0, 0, 8, block_bytes=3000),
        lambda: VolumeSpec(7, 0, 0, 8, block_bytes=131072),
        lambda: VolumeSpec(7, 0, 0, 1 << 40, block_bytes=512),
        lambda: CaptureOptions(header_ring_bytes=5000),
        lambda: CaptureOptions(data_ring_bytes=1 << 40),
    ],
)
def test_impossible_volumes_and_rings_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()  # type: ignore[operator]


def test_bitmaps_take_64_mib_per_tib_at_4_kib() -> None:
    volume = VolumeSpec(7, 0, 0, 1 << 31)
    assert 2 * volume.map_words * 8 <= 64 * 2**20 + 2 * 4096, "64 MiB of bits, and a page each for the groups"


def test_the_source_has_its_includes_in_place() -> None:
    text = source_text()
    assert '#include "' not in text and "struct pydbt_record {" in text


def test_small_things_about_the_machine(tmp_path: Path) -> None:
    (tmp_path / "possible").write_text("0-3,8\n")
    assert possible_cpus(tmp_path / "possible") == 9
    (tmp_path / "kallsyms").write_text("ffffffff81000000 T _text\n0000000000000000 D hidden\nffff a b page_x\n")
    assert symbols(("_text", "hidden", "absent"), tmp_path / "kallsyms") == {"_text": 0xFFFFFFFF81000000}
    with pytest.raises(Unproven, match="999:999"):
        disk_node(999, 999)


def test_the_brains_read_a_record_as_the_programs_write_it() -> None:
    for name in capture_record.RECORD.names:
        assert capture_record.RECORD[name] == record.RING_RECORD[name], name

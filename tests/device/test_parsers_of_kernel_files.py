"""No content of the kernel's files, and no name of a user in them, ends a command."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydbt.device import target_names, usage
from pydbt.device.mount_kinds import MountKinds
from pydbt.device.sysfs import BlockDevice
from pydbt.kernel.addresses import symbols
from pydbt.kernel.limits import memory_limit_bytes
from pydbt.kernel.tracing.writers_layout import _functions

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.sampled_from(
    [b"flags:", b"flags:\t0100001", b"\n", b"0::/", b"0::/a/../..", b"memory:", b":", b"max", b"4096", b" t ", b" T ", b"vmlinux",
     b"do_sys_open", b"ffffffff81000000", b"\t[module]", b"DEVNAME=", b"\x00", b"\xff", b"\xc2\xb2", b" ", b"-1", b"9" * 20]
)  # fmt: skip
CONTENT = st.lists(WORDS | st.binary(max_size=8), max_size=12).map(b"".join)
NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: not set(name) & {0, ord("/")} and name not in (b".", b"..")
)


@quick
@given(CONTENT)
def test_the_state_of_an_open_file_is_for_writing_unless_it_is_told_otherwise(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder) / "fd" / "3"
        (Path(folder) / "fdinfo").mkdir()
        (Path(folder) / "fdinfo" / "3").write_bytes(content)
        assert usage._is_for_writing(place) in (True, False)
        (Path(folder) / "fdinfo" / "3").write_bytes(b"pos:\t0\nflags:\t0100000\n" + content)
        assert not usage._is_for_writing(place), "the kernel's own line comes first"


@quick
@given(NAMES)
def test_an_open_file_of_any_name_is_looked_at_and_is_no_device(name: bytes) -> None:
    with TemporaryDirectory() as folder:
        held = os.open(os.path.join(os.fsencode(folder), name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            place = f"/proc/self/fd/{held}"
            assert usage._may_be_device(place, MountKinds()) in (True, False)
            assert not usage._overlaps(place, BlockDevice.from_number(*_some_device()))
        finally:
            os.close(held)


def _some_device() -> tuple[int, int]:
    number = next(Path("/sys/block").iterdir()).joinpath("dev").read_text().strip()
    major, _, minor = number.partition(":")
    return int(major), int(minor)


@quick
@given(CONTENT, CONTENT)
def test_any_list_of_control_groups_has_a_limit_or_none(own: bytes, limit: bytes) -> None:
    with TemporaryDirectory() as folder:
        groups = Path(folder) / "groups"
        (groups / "memory").mkdir(parents=True)
        for place in (groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"):
            place.write_bytes(limit)
        (Path(folder) / "cgroup").write_bytes(own.replace(b"\x00", b""))
        found = memory_limit_bytes(groups, Path(folder) / "cgroup")
        assert found is None or found >= 0


@quick
@given(CONTENT)
def test_any_list_of_symbols_has_an_address_or_none(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        kallsyms = Path(folder) / "kallsyms"
        kallsyms.write_bytes(content + b"\nnone t do_sys_open\nnone T vmlinux\t[module]\n")
        symbols(("do_sys_open", "vmlinux"), kallsyms)
        _functions(("do_sys_open", "vmlinux"), kallsyms)


@quick
@given(st.dictionaries(st.sampled_from(sorted(target_names.ATTRIBUTES)), CONTENT, max_size=3), NAMES)
def test_any_chain_of_devices_in_sysfs_is_read(attributes: dict[str, bytes], name: bytes) -> None:
    with TemporaryDirectory() as made, pytest.MonkeyPatch.context() as patch:
        folder = Path(os.fsdecode(os.path.join(os.fsencode(made), name)))
        folder.mkdir()
        (folder / "uevent").write_bytes(b"DEVNAME=x\n")
        for attribute, content in attributes.items():
            (folder / attribute).parent.mkdir(parents=True, exist_ok=True)
            (folder / attribute).write_bytes(content)
        device = BlockDevice.from_number(*_some_device())
        patch.setattr(target_names.os.path, "realpath", lambda path: str(folder))
        (first, *_) = target_names._chain(device)
        assert first[0] == folder.name.replace("!", "/") and set(first[1]) <= set(attributes)

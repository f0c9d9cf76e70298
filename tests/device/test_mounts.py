"""No name that a user of the machine can choose ends in an exception, or is read as another name.

Names are of mount points, sources, swap files, processes and files. They may have every byte but NUL.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydbt.device import freeze, mounts
from pydbt.device.commands import run_command
from pydbt.device.mounts import devices_of_mount, mount_of_path, mounts_of, parse_mount, parse_swaps, read_mounts
from pydbt.posix.disk_identity import identifiers, lasting_name
from pydbt.posix.files import read_entry
from tests.lab.disks import mounted

# What splits lines in Python but not in the kernel, what the kernel escapes, what is no UTF-8, and what looks like syntax.
ODD = [b"\r", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\xc2\x85", b"\xe2\x80\xa8", b"\xff", b" ", b"\t", b"\\040",
       b" - ", b"-", b":", b",", b")", b"(x) Z 1", b"\x1b[2J", b"\xc2\xa0", b"'", b'"', b"freezer.py"]  # fmt: skip
NAMES = st.lists(st.sampled_from(ODD) | st.binary(min_size=1, max_size=4), min_size=1, max_size=6).map(
    lambda parts: b"".join(parts).replace(b"\0", b"0").replace(b"/", b"_")
)


def mangled(name: bytes) -> bytes:
    """As the kernel writes it (mangle() in fs/proc_namespace.c, seq_file_path() in mm/swapfile.c)."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes([byte]) for byte in name)


@given(point=NAMES, source=NAMES, name=NAMES)
def test_a_mount_is_found_whatever_its_names_are(point: bytes, source: bytes, name: bytes) -> None:
    line = b"36 35 98:7 / /%b rw,nosuid shared:1 - ext4 %b rw,errors=%b" % tuple(map(mangled, (point, source, name)))
    mount = parse_mount(os.fsdecode(line))
    assert mount is not None
    assert (mount.mount_id, mount.major, mount.minor, mount.fs_type) == (36, 98, 7, "ext4")
    assert (os.fsencode(mount.point), os.fsencode(mount.source)) == (b"/" + point, source)
    assert mounts_of(98, 7, [mount]) == [mount]


@given(st.binary(max_size=120) | st.lists(st.sampled_from([*ODD, b"36", b"98:7", b"/", b"rw", b"btrfs", b"xfs", b"fuse",
       b"logdev=/x", b"\n"]), max_size=14).map(b" ".join))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_no_text_in_the_place_of_a_mount_line_or_swap_table_is_an_exception(text: bytes) -> None:
    decoded = os.fsdecode(text)
    parse_swaps(decoded)
    for line in decoded.split("\n"):
        mount = parse_mount(line)
        if mount is not None:
            devices_of_mount(mount)
            mounts_of(7, 0, [mount])


@given(NAMES)
def test_a_swap_file_is_found_whatever_its_name_is(name: bytes) -> None:
    table = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/%b\tfile\t\t1024\t\t0\t\t-2\n" % mangled(name)
    table += b"/%b     partition\t1024\t\t0\t\t-3\n" % mangled(name)
    assert [os.fsencode(path) for path in parse_swaps(os.fsdecode(table))] == [b"/" + name] * 2


@pytest.mark.parametrize("name", [b"a\rb", b"a\x0b\x0c\x1c\x1d\x1eb", "a\x85\u2028b".encode(), b"a\xff\nb", b"a \t\\b"])
def test_the_kernels_own_line_of_a_mount_is_read_whatever_its_name_is(tmp_path: Path, name: bytes) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    with mounted("tmpfs", folder, "-t", "tmpfs"):
        assert str(folder) in {mount.point for mount in read_mounts()}
        there = mount_of_path(folder)
        assert there is not None and there.point == str(folder)
        done = subprocess.run(
            [sys.executable, "-m", "pydbt.cli.main", "down", "/dev/null"], capture_output=True, timeout=60
        )
        assert done.returncode == 2 and b"Traceback" not in done.stderr, done.stderr


@given(name=NAMES, state=st.sampled_from("RSDZTI"))
def test_a_process_is_looked_at_whatever_its_name_is(tmp_path_factory, name: bytes, state: str) -> None:
    proc = tmp_path_factory.mktemp("proc")
    (proc / "cmdline").write_bytes(b"python\0freezer.py\0" + name)
    (proc / "stat").write_bytes(b"1 (" + name[:15] + b") " + state.encode() + b" 0 1 1 0 -1")
    whole = freeze.Path
    try:
        freeze.Path = lambda path: proc / Path(path).name
        assert freeze._is_helper(1) == (state != "Z")
    finally:
        freeze.Path = whole


@given(NAMES)
def test_the_file_behind_a_loop_device_keeps_its_name(tmp_path_factory, name: bytes) -> None:
    disk = tmp_path_factory.mktemp("disk")
    (disk / "loop").mkdir()
    (disk / "loop/backing_file").write_bytes(b"/x" + name + b"x\n")
    (disk / "serial").write_bytes(name + b"\n")
    assert os.fsencode(read_entry(disk / "loop/backing_file") or "") == b"/x" + name + b"x"
    assert os.fsencode(identifiers(disk)["backing_file"]) == b"/x" + name + b"x"
    assert lasting_name(disk)


def test_a_program_may_answer_with_names_that_are_no_text() -> None:
    assert os.fsencode(run_command("printf", "a\\377b\\r")) in (b"a\xffb\r", b"a\xffb\n")


def test_a_btrfs_that_goes_away_while_it_is_looked_at_is_no_exception(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "uuid").mkdir()
    (tmp_path / "uuid/devices").write_text("a folder once")
    monkeypatch.setattr(mounts, "_BTRFS", tmp_path)
    mount = parse_mount("36 35 0:40 / /mnt rw - btrfs /dev/null rw")
    assert mount is not None and mount.fs_type == "btrfs"
    assert isinstance(devices_of_mount(mount), set)


def test_a_file_system_of_a_user_names_no_device(tmp_path: Path) -> None:
    """Its source is what he likes: a disk that it is not on, or a path that hangs."""
    for fs_type in ("fuse", "fuse.sshfs"):
        mount = parse_mount(f"36 35 0:40 / /mnt rw - {fs_type} /dev/null rw,user_id=1000")
        assert mount is not None and devices_of_mount(mount) == set()


def test_a_name_that_is_no_text_is_printed_with_escapes(tmp_path: Path) -> None:
    program = "import sys; from pydbt.cli.group import cli, execute; import click\n"
    program += "@cli.command()\ndef odd(): click.echo('a\\udcffb')\nsys.exit(execute(['odd']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"a\\udcffb\n"), done.stderr

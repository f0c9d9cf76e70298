"""Writes are whole however little a call takes, and a lock has one holder."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from pydbt.posix.files import IOV_MAX, hand_over, read_entry, sync_folder, try_lock, try_write_lock, write_all

PIECES = [b"one", b"", bytearray(b"two"), memoryview(b"three"), *(bytes([number % 251]) for number in range(IOV_MAX))]


def short(call, most):
    """The call, taking no more than ``most`` bytes at a time."""

    def shortened(descriptor: int, views: list[memoryview], *offset: int) -> int:
        assert 0 < len(views) <= IOV_MAX and all(len(view) for view in views)
        return call(descriptor, [b"".join(views)[:most]], *offset)

    return shortened


@pytest.mark.parametrize("most", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("offset", [None, 5])
def test_a_write_is_whole_however_little_a_call_takes(tmp_path: Path, monkeypatch, most, offset) -> None:
    monkeypatch.setattr(os, "writev", short(os.writev, most))
    monkeypatch.setattr(os, "pwritev", short(os.pwritev, most))
    path = tmp_path / "file"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_all(descriptor, PIECES, offset)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == bytes(offset or 0) + b"".join(PIECES)


def test_the_flags_of_a_write_reach_each_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    right = os.pwritev

    def in_parts(descriptor: int, views: list[memoryview], offset: int, flags: int) -> int:
        given.append(flags)
        return right(descriptor, [views[0][:2]], offset, flags)

    monkeypatch.setattr(os, "pwritev", in_parts)
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), [b"abc"], 0, os.RWF_DSYNC)
        with pytest.raises(AssertionError, match="takes no flags"):
            write_all(file.fileno(), [b"abc"], flags=os.RWF_DSYNC)
    assert given == [os.RWF_DSYNC] * 2 and (tmp_path / "file").read_bytes() == b"abc"


def test_an_error_in_the_middle_of_a_write_is_raised() -> None:
    taken: list[int] = []

    def take(views: list[memoryview]) -> int:
        if taken:
            raise OSError("full")
        taken.append(3)
        return 3

    with pytest.raises(OSError, match="full"):
        hand_over([b"abcdef"], take)
    assert hand_over([b"abc", memoryview(b"def")], lambda views: len(views[0])) == 6
    assert hand_over([], take) == 0


def test_the_names_of_a_folder_can_be_synced_and_those_of_a_file_cannot(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")


def test_a_lock_has_one_holder_until_its_file_is_closed(tmp_path: Path) -> None:
    one, other = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        assert try_lock(one) and try_lock(one) and not try_lock(other)
        os.close(one)
        assert try_lock(other)
    finally:
        os.close(other)


def test_an_entry_is_read_without_its_newline_and_an_absent_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "entry").write_bytes(b"caf\xe9\n")
    assert os.fsencode(read_entry(tmp_path / "entry") or "") == b"caf\xe9"
    assert read_entry(tmp_path / "none") is None and read_entry(tmp_path) is None


def test_a_lock_of_who_may_only_read_a_file_keeps_no_writer_off(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    reader, one, other = os.open(path, os.O_RDONLY), os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    try:
        assert try_lock(reader) and not try_lock(one), "flock(2) is anybody's"
        with pytest.raises(OSError):
            fcntl.fcntl(reader, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        assert try_write_lock(one)
        assert not try_write_lock(other), "a writer has it"
        os.close(one)
        fcntl.fcntl(reader, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
        one = os.open(path, os.O_RDWR)
        assert try_write_lock(one), "nor does the only lock that it can take"
    finally:
        for descriptor in (reader, one, other):
            os.close(descriptor)

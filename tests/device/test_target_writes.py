"""Which failures of a write are those of a place, and which of the whole target."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.blocks.apply_plan import ZEROS, PlannedWrites
from pydbt.core.errors import DeviceError, MediumError
from pydbt.device import target as module
from pydbt.device.target import PUNCH_FROM_BYTES, Target
from pydbt.posix import libc

BLOCK = 4096
BAD = 5


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    (tmp_path / "image").write_bytes(bytes(64 * BLOCK))
    made = Target(str(tmp_path / "image"))
    yield made
    made.close()


class Failing:
    """Writes to one block fail; the others are done, and their flags noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.number, self.flags = number, []
        self._right = os.pwritev
        monkeypatch.setattr(module.os, "pwritev", self)

    def __call__(self, descriptor: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        self.flags.append(flags)
        if offset <= BAD * BLOCK < offset + sum(map(len, views)):
            raise OSError(self.number, os.strerror(self.number))
        return self._right(descriptor, [view[:1000] for view in views[:1]], offset, 0)  # and in part, as it may


def write(target: Target, first: int, data: bytes) -> None:
    columns = (np.array([value], np.int64) for value in (first * 8, len(data) // 512, 0))
    target.write_runs(PlannedWrites(*columns), memoryview(data))


@pytest.mark.parametrize("careful", [False, True])
def test_an_error_of_a_place_is_told_apart_and_is_not_tried_before_all_else(
    target: Target, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    failing = Failing(monkeypatch, errno.EIO)
    if careful:
        target.be_careful()
    assert target.is_careful == careful
    with pytest.raises(MediumError, match="cannot be written at byte " + str((4 if careful else 5) * BLOCK)):
        write(target, 4, b"a" * (3 * BLOCK))
    assert failing.flags[0] == (os.RWF_DSYNC if careful else 0) and target.failed_at is None


def test_any_other_error_is_one_of_the_target_and_its_place_is_tried_before_all_else(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(monkeypatch, errno.ENOSPC)
    with pytest.raises(DeviceError, match=f"at byte {BAD * BLOCK}: No space left") as found:
        write(target, 4, b"a" * (3 * BLOCK))
    assert not isinstance(found.value, MediumError) and target.failed_at == BAD * BLOCK
    with pytest.raises(DeviceError, match="No space left"):
        target.try_again()
    monkeypatch.undo()
    target.try_again()
    assert target.failed_at is None


def test_a_write_that_waits_for_the_disk_is_whole_or_an_error(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Failing(monkeypatch, errno.EREMOTEIO)
    data = bytes(range(256)) * 16
    target.write_through(9 * BLOCK, memoryview(data))
    assert set(failing.flags) == {os.RWF_DSYNC} and len(failing.flags) > 1
    block = memoryview(bytearray(BLOCK))
    target.forget(9 * BLOCK, BLOCK)
    target.read_into(9 * BLOCK, block)
    assert bytes(block) == data
    with pytest.raises(MediumError, match=f"at byte {BAD * BLOCK}"):
        target.write_through(BAD * BLOCK, memoryview(data))


def test_zeros_that_a_place_does_not_take_are_an_error_of_that_place(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(libc, "fallocate", fails)
    with pytest.raises(MediumError, match="cannot be written at byte 0"):
        columns = (np.array([value], np.int64) for value in (0, PUNCH_FROM_BYTES // 512, ZEROS))
        target.write_runs(PlannedWrites(*columns), memoryview(b""))


def test_to_be_careful_is_begun_with_what_is_on_the_disk(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data in the cache is tried once, and given up: all of it is written again."""
    done: list[str] = []
    monkeypatch.setattr(Target, "sync", lambda self: done.append("sync"))
    monkeypatch.setattr(Target, "forget", lambda self, offset, length: done.append(f"forget {offset} {length}"))
    target.be_careful()
    assert done == ["sync", "forget 0 0"] and target.is_careful
    target.stay_careful()
    assert len(done) == 2 and target.is_careful

"""After every failure during a suspend the volume is resumed, and with its new table only when nothing failed."""

from __future__ import annotations

import errno
import itertools

import pytest

from pydbt.device import suspender

OLD, NEW = [["0", "8", "linear", "7:0", "0"]], [["0", "8", "snapshot-origin", "253:1"]]


class Kernel:
    """One volume as device-mapper keeps it; requests with the numbers in ``failing`` fail."""

    def __init__(self, failing: set[int], suspended: bool = False) -> None:
        self.failing = failing
        self.suspended, self.live, self.loaded = suspended, OLD, NEW
        self.snapshot = self.frozen = False
        self._count = itertools.count()

    def _may_fail(self) -> None:
        if next(self._count) in self.failing:
            raise OSError(errno.EIO, "it failed")

    def is_suspended(self, name: str) -> bool:
        self._may_fail()
        return self.suspended

    def table(self, name: str) -> list[list[str]]:
        self._may_fail()
        return self.live

    def suspend(self, name: str, *, freeze: bool) -> None:
        self._may_fail()
        self.suspended, self.frozen = True, freeze

    def resume(self, name: str, *, hidden: bool = False) -> None:
        if name == "snapshot":
            assert hidden and self.suspended
            self._may_fail()
            self.snapshot = True
            return
        if self.loaded:  # a table that is refused is gone
            table, self.loaded = self.loaded, []
            self._may_fail()
            self.live = table
        self.suspended = False

    def clear(self, name: str) -> None:
        assert name == "volume"
        self.loaded = []


@pytest.mark.parametrize("snapshot", ["snapshot", None])
def test_a_volume_is_resumed_after_every_failure_and_gets_the_new_table_only_without_one(snapshot):
    ends = []
    for failing in (set(), {0}, {1}, {2}, {3}, {4}):
        kernel = Kernel(failing)
        try:
            suspender.switch(kernel, "volume", snapshot, OLD)
            ends.append(True)
        except OSError:
            ends.append(False)
        assert not kernel.suspended
        assert not kernel.loaded
        assert kernel.live == (NEW if ends[-1] else OLD)
        assert kernel.snapshot or not ends[-1] or snapshot is None
    assert ends == [True, *[False] * (5 if snapshot else 3), *[True] * (0 if snapshot else 2)]


def test_a_table_that_another_program_changed_meanwhile_stays_as_it_is():
    kernel = Kernel(set())
    kernel.live = [["0", "16", "linear", "7:1", "0"]]
    with pytest.raises(OSError, match="another program changed it"):
        suspender.switch(kernel, "volume", "snapshot", OLD)
    assert (kernel.live, kernel.loaded) == ([["0", "16", "linear", "7:1", "0"]], [])
    assert not kernel.suspended and not kernel.snapshot


def test_a_volume_that_another_program_suspended_stays_suspended_and_gives_no_snapshot():
    kernel = Kernel(set(), suspended=True)
    with pytest.raises(OSError, match="suspended by another program"):
        suspender.switch(kernel, "volume", "snapshot", OLD)
    assert kernel.suspended and not kernel.snapshot and kernel.live == OLD


def test_the_table_of_a_layer_is_not_changed_also_without_a_snapshot():
    kernel = Kernel({2})
    kernel.loaded = []
    with pytest.raises(OSError, match="it failed"):
        suspender.switch(kernel, "volume", "snapshot", None)
    assert kernel.live == OLD and not kernel.suspended


def test_a_file_system_is_frozen_for_a_snapshot_and_for_nothing_else():
    for snapshot in ("snapshot", None):
        kernel = Kernel(set())
        suspender.switch(kernel, "volume", snapshot, OLD)
        assert kernel.frozen == (snapshot is not None)


def test_requests_have_the_size_that_the_kernel_knows():
    assert suspender._DM_IOCTL.size == 312, "struct dm_ioctl"
    assert suspender._TARGET.size == 40, "struct dm_target_spec"


def test_without_device_mapper_the_error_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(suspender, "CONTROL", "/dev/mapper/nothing-here")
    assert suspender.main(["hidden", "x"]) == 1
    assert capsys.readouterr().err == "opening /dev/mapper/nothing-here: No such file or directory\n"

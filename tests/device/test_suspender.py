"""Whatever fails while a volume is suspended, it is let go on, and with its old table unless all went well."""

from __future__ import annotations

import errno
import itertools

import pytest

from pydbt.device import suspender


class Kernel:
    """One volume as device-mapper keeps it; requests with the numbers in ``failing`` fail."""

    def __init__(self, failing: set[int]) -> None:
        self.failing = failing
        self.suspended, self.live, self.loaded = False, "old", "new"
        self.snapshot = self.frozen = False
        self._count = itertools.count()

    def _fails(self) -> bool:
        return next(self._count) in self.failing

    def suspend(self, name: str, *, freeze: bool) -> None:
        if self._fails():
            raise OSError(errno.EIO, f"suspending {name}")
        self.suspended, self.frozen = True, freeze

    def resume(self, name: str, *, hidden: bool = False) -> None:
        if name == "snapshot":
            assert hidden and self.suspended
            if self._fails():
                raise OSError(errno.EIO, f"resuming {name}")
            self.snapshot = True
            return
        if self.loaded:  # a table that is refused is gone
            table, self.loaded = self.loaded, ""
            if self._fails():
                raise OSError(errno.EINVAL, f"resuming {name}")
            self.live = table
        self.suspended = False

    def clear(self, name: str) -> None:
        assert name == "volume"
        self.loaded = ""


@pytest.mark.parametrize("snapshot", ["snapshot", None])
def test_a_volume_goes_on_whatever_fails_and_with_the_new_table_only_if_nothing_did(snapshot):
    for failing in (set(), {0}, {1}, {2}):
        kernel = Kernel(failing)
        succeeded = True
        try:
            suspender.switch(kernel, "volume", snapshot)
        except OSError:
            succeeded = False
        assert not kernel.suspended
        assert not kernel.loaded
        assert kernel.live == ("new" if succeeded else "old")
        assert kernel.snapshot or not succeeded or snapshot is None
        assert succeeded or failing
    assert suspender._DM_IOCTL.size == 312, "struct dm_ioctl"


def test_a_file_system_is_frozen_for_a_snapshot_and_for_nothing_else():
    for snapshot in ("snapshot", None):
        kernel = Kernel(set())
        suspender.switch(kernel, "volume", snapshot)
        assert kernel.frozen == (snapshot is not None)


def test_where_there_is_no_device_mapper_one_sentence_says_so(capsys, monkeypatch):
    monkeypatch.setattr(suspender, "CONTROL", "/dev/mapper/nothing-here")
    monkeypatch.setattr(suspender.signal, "signal", lambda *_: None)
    assert suspender.main(["--hidden", "x"]) == 1
    assert capsys.readouterr().err == "opening /dev/mapper/nothing-here: No such file or directory\n"

"""A device on which snapshots are kept is one controller's alone, and so is every part of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pydbt.controller import registry
from pydbt.controller.registry import claimed_space, require_no_space
from pydbt.core.errors import BusyError
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import loop_device, partition_of

MIB = 1 << 20


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "RUN_DIR", tmp_path / "run")
    return tmp_path / "run"


def test_two_volumes_cannot_keep_snapshots_in_one_place_and_the_second_is_told(tmp_path, place):
    with loop_device(tmp_path, 8 * MIB) as disk, contextlib.ExitStack() as stack:
        first = stack.enter_context(partition_of(disk, 1, 2048, 4096))
        second = stack.enter_context(partition_of(disk, 2, 8192, 4096))
        whole, one, other = (BlockDevice.identify(device.path) for device in (disk, first, second))
        with claimed_space(one, whole):
            with pytest.raises(BusyError, match="in use by another controller"), claimed_space(one, whole):
                pass
            with pytest.raises(BusyError, match="or a part of it, is"), claimed_space(whole, whole):
                pass
            with pytest.raises(BusyError, match="for snapshots"):
                require_no_space(whole)
            with claimed_space(other, whole):
                pass
            require_no_space(other)
        with claimed_space(whole, whole):
            pass
        assert not list(place.glob("space-*"))

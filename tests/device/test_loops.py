"""Loop devices by which blocks can differ unnoticed are found and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydbt.device.loops import loops_below, short_writes_of
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import image, loop_device, loop_over

MIB = 1 << 20


def test_the_own_file_counts_only_where_capture_does_not_see_what_it_takes(tmp_path: Path) -> None:
    with loop_device(tmp_path, MIB) as loop:
        device = BlockDevice.identify(loop.path)
        assert [found.number for found in loops_below(device)] == [device.number]
        assert short_writes_of(device, own_are_seen=True) == ""
        words = short_writes_of(device, own_are_seen=False)
        assert str(loop.path) in words and str(tmp_path) in words and "holes" in words


def test_a_file_without_holes_is_no_reason(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "whole", MIB, seed=1)) as loop:
        assert short_writes_of(BlockDevice.identify(loop.path), own_are_seen=False) == ""


def test_a_file_that_has_lost_its_name_counts_as_one_with_holes(tmp_path: Path) -> None:
    with loop_over(image(tmp_path / "whole", MIB, seed=1)) as loop:
        os.unlink(tmp_path / "whole")
        assert "holes" in short_writes_of(BlockDevice.identify(loop.path), own_are_seen=False)


def test_below_another_device_each_loop_device_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As below device-mapper, which hands on to it."""
    with loop_device(tmp_path, MIB) as below, loop_device(tmp_path, MIB) as upper:
        lower, device = BlockDevice.identify(below.path), BlockDevice.identify(upper.path)
        monkeypatch.setattr(BlockDevice, "slaves", lambda self: [lower] if self.number == device.number else [])
        words = short_writes_of(device, own_are_seen=True)
        assert f"lies on {below.path}" in words and f"lies on {upper.path}" not in words

"""The content of discarded sectors is known of few kinds of devices, and of all others nothing is assumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.core.tracking.discards import ALWAYS_ZEROS, DiscardPromise
from pydbt.core.units import MIB
from pydbt.device import discards
from pydbt.device.commands import CommandFailed
from pydbt.device.discards import discard_promise
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import image, loop_device, loop_over


def test_a_file_behind_a_loop_device_gets_holes_and_a_device_behind_one_is_not_known(tmp_path: Path) -> None:
    with loop_device(tmp_path, 16 * MIB) as disk:
        assert discard_promise(BlockDevice.identify(disk)) == ALWAYS_ZEROS
        with loop_over(disk.path) as above:
            assert discard_promise(BlockDevice.identify(above)) == DiscardPromise(0)


@pytest.mark.parametrize(
    ("targets", "grain"), [({"thin"}, 64 << 10), ({"linear"}, 0), ({"thin", "linear"}, 0), (None, 0)]
)
def test_a_thin_volume_unmaps_whole_chunks_and_other_volumes_promise_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: set[str] | None, grain: int
) -> None:
    def table_of(name: str) -> list[list[str]]:
        if targets is None:
            raise CommandFailed("gone")
        return [["0", "8", target] for target in sorted(targets)]

    monkeypatch.setattr(discards.mapper, "table_of", table_of)
    monkeypatch.setattr(discards, "read_entry", lambda path: str(64 << 10))
    monkeypatch.setattr(BlockDevice, "backing_file", lambda self: None)
    monkeypatch.setattr(BlockDevice, "mapper_name", lambda self: "volume")
    with loop_over(image(tmp_path / "a", 16 * MIB)) as disk:
        assert discard_promise(BlockDevice.identify(disk)) == DiscardPromise(grain)


@pytest.mark.parametrize("name", ["zram0", "ram12"])
def test_a_disk_in_memory_drops_whole_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with loop_over(image(tmp_path / "a", 16 * MIB)) as disk:
        told = BlockDevice.identify(disk)
    named = BlockDevice(**{field: getattr(told, field) for field in told.__slots__} | {"name": name})
    monkeypatch.setattr(BlockDevice, "backing_file", lambda self: None)
    assert discard_promise(named) == DiscardPromise(4096)

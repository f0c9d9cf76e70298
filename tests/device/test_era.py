"""The device with dm-era's metadata belongs to this program or is refused by name; unknown output of its tools is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pydbt.core.errors import StateError, UsageError
from pydbt.core.units import KIB, MIB
from pydbt.device.commands import CommandFailed
from pydbt.device.era import parse_written
from pydbt.device.era_metadata import (
    EraHeader,
    decode_era_header,
    encode_era_header,
    finish_era_metadata,
    prepare_era_metadata,
    read_era_header,
)
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import loop_device

HEADER = EraHeader("ab" * 16, 64 * KIB, 32 * MIB, {"serial": "x"}, made=True)


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[tuple[BlockDevice, BlockDevice]]:
    """A disk, and one for its metadata."""
    with loop_device(tmp_path, 32 * MIB) as disk, loop_device(tmp_path, 16 * MIB) as metadata:
        yield BlockDevice.identify(disk.path), BlockDevice.identify(metadata.path)


def write(device: BlockDevice, offset: int, data: bytes) -> None:
    descriptor = os.open(device.path, os.O_WRONLY)
    os.pwrite(descriptor, data, offset)
    os.fsync(descriptor)
    os.close(descriptor)


def made(devices: tuple[BlockDevice, BlockDevice], region_bytes: int | None = None) -> EraHeader:
    """As the kernel leaves it."""
    disk, metadata = devices
    header = prepare_era_metadata(metadata, disk, region_bytes)
    write(metadata, 1 * MIB, b"superblock")
    return finish_era_metadata(metadata, header)


def test_a_header_comes_back_as_it_was_and_one_that_was_changed_does_not() -> None:
    data = encode_era_header(HEADER)
    assert len(data) == 4096 and decode_era_header(data) == HEADER
    for at in range(len(data.rstrip(b"\n\0"))):
        with pytest.raises((ValueError, TypeError, KeyError)):
            decode_era_header(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_existing_metadata_are_continued(devices) -> None:
    disk, metadata = devices
    first = made(devices)
    assert first.region_bytes == 64 * KIB and first.made
    assert (
        prepare_era_metadata(metadata, disk, None)
        == prepare_era_metadata(metadata, disk, 64 * KIB)
        == read_era_header(metadata)
        == first
    )


def test_metadata_whose_creation_was_interrupted_are_made_again(devices) -> None:
    disk, metadata = devices
    first = prepare_era_metadata(metadata, disk, None)
    write(metadata, 1 * MIB, b"half")
    second = prepare_era_metadata(metadata, disk, 4 * KIB)
    assert second.identity != first.identity and second.region_bytes == 4 * KIB and not second.made
    with open(metadata.path, "rb") as file:
        file.seek(1 * MIB)
        assert file.read(4) == bytes(4), "the kernel would have opened what was half made"


@pytest.mark.parametrize("offset", [0, 1080, 4096, 64 * KIB + 64, 1 * MIB])
def test_a_device_that_holds_something_else_is_refused_and_not_touched(devices, offset) -> None:
    disk, metadata = devices
    write(metadata, offset, b"a file system")
    with pytest.raises(UsageError, match="holds other data than era metadata"):
        prepare_era_metadata(metadata, disk, None)
    with open(metadata.path, "rb") as file:
        file.seek(offset)
        assert file.read(13) == b"a file system"


def test_metadata_of_another_disk_or_region_and_damaged_ones_are_refused_in_words(devices, tmp_path) -> None:
    disk, metadata = devices
    header = made(devices)
    with loop_device(tmp_path, 32 * MIB) as other, loop_device(tmp_path, 24 * MIB) as smaller:
        for one in (other, smaller):
            with pytest.raises(UsageError, match="belong to another disk"):
                prepare_era_metadata(metadata, BlockDevice.identify(one.path), None)
    with pytest.raises(UsageError, match="have regions of 65536 bytes"):
        prepare_era_metadata(metadata, disk, 4 * KIB)
    write(metadata, 1 * MIB, bytes(4096))
    with pytest.raises(StateError, match="are missing"):
        prepare_era_metadata(metadata, disk, None)
    write(metadata, 0, encode_era_header(header).replace(b"65536", b"65537"))
    with pytest.raises(StateError, match="damaged"):
        prepare_era_metadata(metadata, disk, None)


def test_a_device_that_is_too_small_and_an_impossible_region_are_refused(devices, tmp_path) -> None:
    disk, metadata = devices
    with loop_device(tmp_path, 4 * MIB) as tiny, pytest.raises(UsageError, match="too small"):
        prepare_era_metadata(BlockDevice.identify(tiny.path), disk, None)
    for region_bytes in (1000, 6 * KIB, 64 * MIB):
        with pytest.raises(UsageError, match="--era-region"):
            prepare_era_metadata(metadata, disk, region_bytes)
    huge = replace(disk, size_sectors=1 << 32)
    with pytest.raises(UsageError, match="too small"):
        prepare_era_metadata(metadata, huge, None)


def test_the_output_of_every_version_of_era_invalidate_is_read() -> None:
    old = '<blocks>\n  <block block="3"/>\n  <range begin="5" end = "9"/>\n</blocks>\n'
    new = '<blocks>\n<range begin="5" end="9"/>\n<block block = "11" />\n</blocks>'
    assert parse_written(old).tolist() == [[3, 4], [5, 9]]
    assert parse_written(new).tolist() == [[5, 9], [11, 12]]
    assert parse_written("<blocks>\n</blocks>\n").tolist() == []


@pytest.mark.parametrize(
    "text", ["", "no metadata snapshot taken.", '<blocks>\n<block block="3"/>\n', '<blocks><range from="3"/></blocks>']
)
def test_anything_else_is_no_answer(text) -> None:
    with pytest.raises(CommandFailed, match="era_invalidate"):
        parse_written(text)

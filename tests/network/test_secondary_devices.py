"""The secondary on real block devices: held exclusively, with holes, and correct in its reports when the disk fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydbt.core.blocks.sector_table import SectorTable
from pydbt.core.protocol.frames import Blocks, Refuse, Stream
from tests.lab.disks import Device, loop_over, make_filesystem, mounted
from tests.lab.patience import until
from tests.network.scripted import BLOCK, ScriptedPrimary, SecondaryProcess, blocks_frame, stream_frame

SIZE = 64 << 20


@pytest.fixture
def device(tmp_path):
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    with loop_over(image) as found:
        yield found


def block(fill: str) -> bytes:
    return fill.encode() * BLOCK


def test_a_block_device_is_replicated_to_and_kept_from_others_meanwhile(tmp_path, device):
    with SecondaryProcess(tmp_path, SIZE, target=device, create_bytes=None) as secondary:
        with ScriptedPrimary(secondary.port, SIZE) as primary:
            assert not primary.welcome.fresh, "what a device reads as is not known"
            primary.synchronize([Blocks(1, SectorTable.of([0], [16384]), (b"x" * (8 << 20),))], 1)
            primary.send(Stream(2, 2, SectorTable.of([8], [8192], 3)), stream_frame(3, [(0, block("y"))]))
            primary.until(lambda: primary.ack.sequence == 3, "all is acknowledged")
            with pytest.raises(OSError, match="busy"):
                os.close(os.open(device, os.O_RDWR | os.O_EXCL))
        assert secondary.stop() == 0
    with device.path.open("rb") as disk:
        data = disk.read(8 << 20)
    assert data == block("y") + bytes(4 << 20) + b"x" * ((4 << 20) - BLOCK)


def test_a_device_with_larger_logical_blocks_is_refused_before_anything_is_written_unless_accepted(tmp_path, device):
    with loop_over(tmp_path / "disk.img", "--sector-size", "4096") as coarse:
        choices = {"target": coarse, "create_bytes": None}
        with SecondaryProcess(tmp_path, SIZE, **choices) as secondary, ScriptedPrimary(secondary.port, SIZE) as fine:
            assert isinstance(fine.answer, Refuse) and fine.answer.code == "sector-size"
            until(lambda: "logical blocks of 4096 bytes and the source of 512" in secondary.words(), "the log says why")
            assert secondary.stop() == 0
        with SecondaryProcess(tmp_path, SIZE, accept_sectors=True, **choices) as secondary:
            with ScriptedPrimary(secondary.port, SIZE) as fine:
                assert fine.welcome.volume is None
            assert secondary.stop() == 0


def test_an_image_file_has_no_logical_blocks_of_its_own(tmp_path):
    with SecondaryProcess(tmp_path, SIZE) as secondary, ScriptedPrimary(secondary.port, SIZE) as fine:
        assert fine.welcome.volume is None


def test_a_device_in_use_is_refused(tmp_path, device):
    held = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        secondary = SecondaryProcess(tmp_path, SIZE, target=device, create_bytes=None)
        with pytest.raises(AssertionError, match="in use"):
            secondary.start()
        assert secondary.process.wait(20) == 4
    finally:
        os.close(held)


@pytest.fixture
def small_disk(tmp_path):
    with mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=32m") as folder:
        yield folder


def test_a_failing_target_is_reported_to_the_primary_loses_nothing_and_recovers(tmp_path, small_disk):
    """The device's own disk is full: every write of a new block is an input/output error."""
    image = small_disk / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    with (
        loop_over(image) as device,
        SecondaryProcess(tmp_path, SIZE, target=device, create_bytes=None) as secondary,
    ):
        primary = ScriptedPrimary(secondary.port, SIZE)
        primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(1 << 16))
        primary.send(stream_frame(2, [(1000 + n, block("b")) for n in range(500)]))
        refusal = primary.hear(Refuse)
        assert refusal.code == "target-error" and "\n" not in refusal.message
        assert primary.ack.sequence in (1, 501), "it is in the journal, durably, or not acknowledged"
        acknowledged = primary.ack.sequence
        filler.unlink()
        reached = 0
        while reached != 502:  # told to come back until the device works
            with ScriptedPrimary(secondary.port, SIZE) as again:
                if again.answer is None or isinstance(again.answer, Refuse):
                    continue  # closed without a word by the engine that was being replaced, or told why
                assert again.welcome.sequence >= acknowledged and again.welcome.state == "consistent"
                if again.welcome.sequence == 1:
                    again.send(stream_frame(2, [(1000 + n, block("b")) for n in range(500)]))
                again.send(stream_frame(502, [(0, block("c"))]))
                again.until(lambda again=again: again.ack.sequence == 502, "the stream goes on")
                reached = again.ack.sequence
        assert secondary.stop() == 0
        with device.path.open("rb") as disk:
            data = disk.read(SIZE)
        assert data[:BLOCK] == block("c")
        assert data[1000 * BLOCK : 1500 * BLOCK] == block("b") * 500


def test_a_secondary_whose_disk_stays_broken_can_still_be_stopped(tmp_path, small_disk):
    image = small_disk / "disk.img"
    with image.open("wb") as file:
        file.truncate(SIZE)
    with (
        loop_over(image) as device,
        SecondaryProcess(tmp_path, SIZE, target=device, create_bytes=None) as secondary,
    ):
        primary = ScriptedPrimary(secondary.port, SIZE)
        primary.synchronize([blocks_frame(1, {0: block("a")})], 1)
        with (small_disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(1 << 16))
        primary.send(stream_frame(2, [(1000 + n, block("b")) for n in range(500)]))
        assert primary.hear(Refuse).code == "target-error"
        secondary.stop()
        assert "Traceback" not in secondary.words()


def test_a_device_that_became_smaller_than_its_volume_is_refused_by_name(tmp_path, device):
    with SecondaryProcess(tmp_path, SIZE, target=device, create_bytes=None) as secondary:
        with ScriptedPrimary(secondary.port, SIZE) as primary:
            primary.synchronize([], 1)
        secondary.stop()
        os.truncate(tmp_path / "disk.img", SIZE // 2)
        subprocess.run(["losetup", "-c", str(device)], check=True)
        with pytest.raises(AssertionError, match="less than the volume's"):
            secondary.start()
        assert secondary.process.wait(20) == 7


@pytest.fixture
def new_filesystem(tmp_path):
    """An ext4 so new that a file made again gets the inode of the one that was removed."""
    image = tmp_path / "ext4.img"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    make_filesystem("ext4", image)
    with mounted(image, tmp_path / "ext4", "-o", "loop") as folder:
        yield folder


@pytest.mark.parametrize("kind", ["an image file", "a loop device"])
def test_a_target_that_was_made_again_under_its_old_name_is_not_the_replica(tmp_path, new_filesystem, kind):
    image = new_filesystem / "target.img"

    @contextmanager
    def made() -> Iterator[Path | Device]:
        with image.open("wb") as file:
            file.truncate(SIZE)
        if kind == "an image file":
            yield image
        else:
            with loop_over(image) as device:
                yield device
        image.unlink()

    with made() as target:
        inode = image.stat().st_ino
        with SecondaryProcess(tmp_path, SIZE, target=target, create_bytes=None) as secondary:
            with ScriptedPrimary(secondary.port, SIZE) as primary:
                primary.synchronize([blocks_frame(1, {0: block("a")})], 10)
            assert secondary.stop() == 0
            secondary.start()
            assert secondary.stop() == 0, "the same one is its target"
    with made() as target:
        assert image.stat().st_ino == inode, "this test would prove nothing"
        secondary = SecondaryProcess(tmp_path, SIZE, target=target, create_bytes=None)
        with pytest.raises(AssertionError, match="belongs to another target"):
            secondary.start()
        assert secondary.process.wait(20) == 7

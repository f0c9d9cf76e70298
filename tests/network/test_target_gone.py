"""A target that was unplugged is gone, and not changed: when it is back, the replica is what it was."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.protocol.frames import Refuse
from pydbt.store.look_file import LookFile
from pydbt.store.replica_state import load_record
from tests.lab.disks import Device, loop_over
from tests.lab.patience import until
from tests.network.scripted import BLOCK, ScriptedPrimary, SecondaryProcess, blocks_frame

SIZE = 8 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def device(image: Path) -> Iterator[Device]:
    with loop_over(image) as device:
        yield device


@pytest.fixture
def secondary(tmp_path: Path, device: Device) -> Iterator[SecondaryProcess]:
    with SecondaryProcess(tmp_path, SIZE, target=device.path, create_bytes=None) as running:
        with ScriptedPrimary(running.port, SIZE) as primary:
            primary.synchronize([blocks_frame(1, {0: b"a" * BLOCK})], 1)
            primary.until(lambda: primary.ack.applied_sequence == 1, "it is on the target")
        yield running


def emptied(image: Path, device: Device) -> bytes:
    """As the kernel does with a disk that is unplugged: its size is 0. What it had."""
    subprocess.run(["sync", str(device.path)], check=True)
    content = image.read_bytes()
    os.truncate(image, 0)
    subprocess.run(["losetup", "-c", str(device.path)], check=True)
    return content


def refused(secondary: SecondaryProcess) -> str:
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        assert isinstance(primary.answer, Refuse) and primary.answer.code == "target-error"
        return primary.answer.message


def name_and_state(secondary: SecondaryProcess) -> tuple[str, str] | None:
    with ScriptedPrimary(secondary.port, SIZE) as primary:
        return None if isinstance(primary.answer, Refuse) else (primary.welcome.replica, primary.welcome.state)


def test_a_disk_that_is_plugged_in_again_is_the_replica_that_it_was(secondary, image, device) -> None:
    before = name_and_state(secondary)
    record = load_record(secondary.state)
    content = emptied(image, device)
    until(lambda: "it was unplugged" in secondary.words(), "it is noticed")
    assert "is gone" in refused(secondary)
    kept = LookFile(secondary.state).load()
    assert kept is not None and not kept.changed
    assert load_record(secondary.state) == record, "nothing is known about its content"
    until(lambda: subprocess.run(["losetup", "-d", str(device.path)], check=False).returncode == 0, "it is detached")
    until(lambda: not Path(f"/sys/block/{device.path.name}/loop").exists(), "nobody holds it")
    image.write_bytes(content)
    subprocess.run(["losetup", str(device.path), str(image)], check=True)
    until(lambda: name_and_state(secondary) == before, "it is opened again")
    assert "not taken for a replica" not in secondary.words()


def test_a_device_that_was_cut_to_nothing_and_has_its_size_again_is_not_trusted(secondary, image, device) -> None:
    before = name_and_state(secondary)
    emptied(image, device)
    until(lambda: "it was unplugged" in secondary.words(), "it is noticed")
    os.truncate(image, SIZE)
    subprocess.run(["losetup", "-c", str(device.path)], check=True)
    until(lambda: name_and_state(secondary) is not None, "it goes on")
    replica, state = name_and_state(secondary)
    assert replica != before[0] and state == "inconsistent"
    assert "was cut short" in secondary.words()


def test_an_image_that_is_removed_or_renamed_is_no_replica_before_it_is_back_in_its_place(tmp_path: Path) -> None:
    with SecondaryProcess(tmp_path, SIZE) as running:
        with ScriptedPrimary(running.port, SIZE) as primary:
            primary.synchronize([blocks_frame(1, {0: b"a" * BLOCK})], 1)
            primary.until(lambda: primary.ack.applied_sequence == 1, "it is on the target")
        aside = tmp_path / "aside.img"
        running.target.rename(aside)
        until(lambda: "was removed, renamed or exchanged" in running.words(), "it is noticed without a write")
        assert "put the same file back" in refused(running)
        shutil.copy(aside, running.target)
        assert "put the same file back" in refused(running), "a copy is another file"
        aside.unlink()
        assert running.process is not None
        (still,) = re.findall(rf"/proc/{running.process.pid}/fd/[0-9]+", refused(running))
        assert Path(still).read_bytes() == running.target.read_bytes(), "what was removed can be copied"
    (tmp_path / "again").mkdir()
    with SecondaryProcess(tmp_path / "again", SIZE) as running:
        with ScriptedPrimary(running.port, SIZE) as primary:
            primary.synchronize([blocks_frame(1, {0: b"a" * BLOCK})], 1)
        before = name_and_state(running)
        aside = running.target.with_suffix(".aside")
        running.target.rename(aside)
        until(lambda: "was removed, renamed or exchanged" in running.words(), "it is noticed without a write")
        aside.rename(running.target)
        until(lambda: name_and_state(running) == before, "it goes on as what it was")
        assert "not taken for a replica" not in running.words()

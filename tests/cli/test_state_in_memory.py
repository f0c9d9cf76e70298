"""The promises of a controller lie in its state directory and its target: one that a power loss empties is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from pydbt.controller.state_dir import ALLOW_MEMORY, require_lasting
from pydbt.core.errors import UsageError
from pydbt.device import stacking
from pydbt.posix import libc
from tests.lab.disks import loop_device
from tests.lab.identities import socket_address
from tests.lab.programs import command

USAGE = 2
MIB = 1 << 20


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_secondary_is_refused_before_anything_is_made(memory: Path, tmp_path: Path, check: tuple[str, ...]) -> None:
    target, state = tmp_path / "replica.img", memory / "of" / "beta"
    words = ("secondary", target, "--create", "8M", "--listen", socket_address(), "--state", state, *check)
    command(*words, **{ALLOW_MEMORY: ""}).refused(USAGE, f"{state} lies in memory (tmpfs)", "on a disk")
    assert not target.exists() and not list(memory.iterdir())


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_primary_is_refused_before_anything_is_made(memory: Path, tmp_path: Path, check: tuple[str, ...]) -> None:
    with loop_device(tmp_path, 8 * MIB) as device:
        words = ("run", device, "--secondary", socket_address(), "--state", memory / "alpha", *check)
        command(*words, **{ALLOW_MEMORY: ""}).refused(USAGE, "lies in memory (tmpfs)", "on a disk")
    assert not list(memory.iterdir())


def test_an_existing_state_in_memory_can_still_be_applied_and_promoted(memory: Path, tmp_path: Path) -> None:
    words = ("secondary", tmp_path / "none.img", "--state", memory / "beta", "--replay-only")
    done = command(*words, **{ALLOW_MEMORY: ""})
    assert done.code == USAGE and "memory" not in done.errors, done


@pytest.mark.parametrize(("magic", "refused"), [(0x01021994, True), (0x858458F6, True), (0xEF53, False)])
def test_the_file_system_decides_and_not_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, magic: int, refused: bool
) -> None:
    monkeypatch.setattr(libc, "file_system_magic", lambda path: magic)
    monkeypatch.delenv(ALLOW_MEMORY, raising=False)
    if refused:
        with pytest.raises(UsageError, match="lies in memory"):
            require_lasting(tmp_path / "not" / "there" / "yet")
    else:
        require_lasting(tmp_path)
    monkeypatch.setenv(ALLOW_MEMORY, "1")
    require_lasting(tmp_path)


def target_words(target: object, state: Path, *options: str) -> tuple[object, ...]:
    return ("secondary", target, "--listen", socket_address(), "--state", state, *options)


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_replica_in_memory_is_refused_before_anything_is_made(
    memory: Path, tmp_path: Path, check: tuple[str, ...]
) -> None:
    target, state = memory / "replica.img", tmp_path / "state"
    told = command(*target_words(target, state, "--create", "8M", *check), **{ALLOW_MEMORY: ""})
    told.refused(USAGE, f"TARGET {target} lies in memory (tmpfs)", "on a disk")
    assert not list(memory.iterdir()) and not state.exists()


def test_a_device_over_a_file_in_memory_is_one_in_memory(memory: Path, tmp_path: Path) -> None:
    with loop_device(memory, 8 * MIB) as device:
        told = command(*target_words(device.path, tmp_path / "state", "--check"), **{ALLOW_MEMORY: ""})
        told.refused(USAGE, f"TARGET {device.path} lies in memory", "is on tmpfs", "on a disk")
        assert command(*target_words(device.path, tmp_path / "state", "--check"), **{ALLOW_MEMORY: "1"}).code == 0
    with loop_device(tmp_path, 8 * MIB) as device:
        assert command(*target_words(device.path, tmp_path / "state", "--check"), **{ALLOW_MEMORY: ""}).code == 0


@pytest.mark.parametrize(("name", "words"), [("ram0", "RAM disk"), ("zram3", "RAM disk"), ("sdb", ""), ("raid", "")])
def test_a_ram_disk_is_known_by_its_name_below_whatever_it_is(monkeypatch: pytest.MonkeyPatch, name: str, words: str):
    disk = Mock(spec=stacking.BlockDevice, path=f"/dev/{name}")
    disk.disk.return_value = Mock()
    disk.disk.return_value.name = name
    monkeypatch.setattr(stacking, "places_under", lambda path: [disk])
    assert words in stacking.memory_below("/dev/mapper/x") and bool(stacking.memory_below("/dev/x")) is bool(words)

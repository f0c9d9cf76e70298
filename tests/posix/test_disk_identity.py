"""A disk is known by the names that it keeps: each kind for itself, and the best of them as one text."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.posix.disk_identity import differing_kinds, identifiers, lasting_file_name, lasting_name, lasting_names


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    folder = tmp_path / "sda"
    for part in ("dm", "md", "loop", "device", "sda1"):
        (folder / part).mkdir(parents=True)
    (folder / "sda1" / "partition").write_text("1\n")
    return folder


def test_the_best_identifier_is_the_lasting_name(disk: Path, tmp_path: Path) -> None:
    assert identifiers(disk) == {} and lasting_name(disk) == lasting_name(disk / "sda1") == ""
    steps = [
        ("device/serial", "S1", {"serial": "S1"}, "S1"),
        ("serial", "S2", {"serial": "S2"}, "S2"),
        ("device/wwid", "W1", {"wwid": "W1", "serial": "S2"}, "W1"),
        ("wwid", "W2", {"wwid": "W2", "serial": "S2"}, "W2"),
        ("loop/backing_file", "/none", {"wwid": "W2", "serial": "S2", "backing_file": "/none"}, "/none#"),
    ]
    for entry, text, kinds, name in steps:
        (disk / entry).write_text(f"{text}\n")
        assert list(identifiers(disk).items()) == list(kinds.items()), "in the order of the state file"
        assert (lasting_name(disk), lasting_name(disk / "sda1")) == (name, f"{name}-part1")
    (disk / "md/uuid").write_text("M\n")
    assert lasting_name(disk) == "M"
    (disk / "dm/uuid").write_text("D\n")
    assert lasting_name(disk) == "D" and list(identifiers(disk))[:2] == ["dm_uuid", "md_uuid"]


def test_all_names_are_there_and_the_slot_beside_a_serial_number_that_came_later(tmp_path: Path) -> None:
    device = tmp_path / "0000:00:05.0" / "virtio3"
    disk = device / "block" / "vda"
    (disk / "vda1").mkdir(parents=True)
    (disk / "vda1" / "partition").write_text("1\n")
    (disk / "device").symlink_to(device)
    assert lasting_names(disk) == {"slot": "slot:0000:00:05.0"}
    (disk / "serial").write_text("S\n")
    assert lasting_names(disk) == {"slot": "slot:0000:00:05.0", "serial": "S"}
    assert lasting_names(disk / "vda1") == {"slot": "slot:0000:00:05.0-part1", "serial": "S-part1"}
    assert lasting_name(disk) == "S" and identifiers(disk) == {"serial": "S"}


def test_a_loop_device_is_known_by_its_file_and_that_file_by_its_inode_and_birth(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.touch()
    (disk / "loop/backing_file").write_text(f"{image}\n")
    assert lasting_name(disk) == f"{image}#{lasting_file_name(str(image))}"
    assert lasting_file_name(str(image)).startswith(f"{image.stat().st_ino}")
    assert lasting_file_name(str(tmp_path / "none")) == ""


def test_a_kind_that_either_side_lacks_does_not_differ() -> None:
    assert differing_kinds({"serial": "a", "wwid": "w"}, {"serial": "b", "dm_uuid": "d"}) == ["serial"]
    assert differing_kinds({"serial": "a"}, {}) == differing_kinds({}, {"serial": "a"}) == []
    assert differing_kinds({"wwid": "1", "serial": "1"}, {"wwid": "2", "serial": "2"}) == ["serial", "wwid"]

"""A device on which snapshots are kept is one controller's alone, and so is every part of it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest

from pydbt.controller import registry
from pydbt.controller.registry import (
    Entry,
    claimed_space,
    registered_primary,
    registered_secondary,
    require_no_space,
    secondary_state_dir_of,
    state_dir_of,
)
from pydbt.core.errors import BusyError, StateError
from pydbt.device.sysfs import BlockDevice
from tests.lab.disks import loop_device, partition_of
from tests.lab.entries import forget_below

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


def test_a_test_takes_away_the_entries_of_its_own_folder_and_none_of_others(tmp_path: Path, place: Path) -> None:
    mine, others = tmp_path / "mine", tmp_path / "mine-not"
    for folder in (mine / "a", mine / "b", others):
        folder.mkdir(parents=True)
    with loop_device(tmp_path, 8 * MIB) as disk, contextlib.ExitStack() as stack:
        device = BlockDevice.identify(disk.path)
        with registered_primary(device, mine / "a"):
            pass
        with registered_secondary(tmp_path / "t.img", others, "127.0.0.1", 1, keep=True):
            pass
        stack.enter_context(registered_secondary(tmp_path / "alive.img", mine / "b", "127.0.0.1", 2, keep=True))
        (place / "torn").write_bytes(b'{"state_dir')
        (place / "0-0").mkdir()
        assert len(list(place.iterdir())) == 5
        forget_below(mine)
        assert state_dir_of(device) is None
        assert len(list(place.iterdir())) == 4, "another's, a living one's, and what is none"
        stack.close()
        forget_below(mine)
        assert len(list(place.iterdir())) == 3


def test_an_entry_that_the_disk_takes_part_by_part_is_whole(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, whole_of_many = os.pwrite, os.pwritev
    monkeypatch.setattr(os, "pwrite", lambda to, data, at: whole(to, data[:7], at))
    monkeypatch.setattr(os, "pwritev", lambda to, views, *at: whole_of_many(to, [views[0][:7]], *at))
    with registry.claimed_state_dir("/var/lib/pydbt/some-volume"):
        (path,) = place.glob("state-*")
        assert Entry(**json.loads(path.read_bytes())).place == "/var/lib/pydbt/some-volume"


def without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(registry, "write_all", full)


def test_a_full_run_folder_is_one_sentence_and_what_was_known_stays(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, state = tmp_path / "replica.img", tmp_path / "state"
    target.touch()
    state.mkdir()
    with registered_secondary(target, state, "127.0.0.1", 1, keep=True):
        pass
    (kept,) = place.glob("secondary-*")
    before = kept.read_bytes()
    with monkeypatch.context() as patched:
        without_room(patched)
        with (
            pytest.raises(StateError, match=f"{kept} cannot be written: No space left on device"),
            registered_secondary(target, state, "127.0.0.1", 2, keep=True),
        ):
            pass
    assert kept.read_bytes() == before
    with registered_secondary(target, state, "127.0.0.1", 2, keep=True):
        assert kept.read_bytes() != before


def test_a_command_that_applies_the_journal_of_a_known_replica_does_not_forget_it(tmp_path: Path, place: Path) -> None:
    target, copy, state = tmp_path / "replica.img", tmp_path / "copy.img", tmp_path / "state"
    target.touch()
    copy.touch()
    state.mkdir()
    with registered_secondary(target, state, "127.0.0.1", 1, keep=True):
        pass
    for one in (target, copy):
        with registered_secondary(one, state, "127.0.0.1", 0):
            pass
    assert secondary_state_dir_of(target) == state
    assert secondary_state_dir_of(copy) is None, "it was not known before"


def test_a_full_run_folder_leaves_no_empty_entry(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "replica.img").touch()
    with monkeypatch.context() as patched:
        without_room(patched)
        with (
            pytest.raises(StateError),
            registered_secondary(tmp_path / "replica.img", tmp_path, "127.0.0.1", 1, keep=True),
        ):
            pass
    assert not list(place.iterdir())


def test_a_family_of_addresses_that_the_machine_does_not_have_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(registry.socket, "socket", refuses)
    assert not registry._is_own("::1")

"""What another user made, or may change, is not used as if it were this program's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydbt.posix.ownership import file_intruder, folder_intruder, open_own

NOBODY = 65534


@pytest.fixture(autouse=True)
def not_by_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)


def test_a_folder_of_this_user_alone_is_safe(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    assert folder_intruder(place) == ""
    place.chmod(0o755)
    assert folder_intruder(place) == "", "others may look at its names"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_may_write_to_is_not(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(mode)
    assert "chmod go-w" in folder_intruder(place)


def test_a_folder_of_another_user_is_not_unless_that_one_called_by_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    assert f"belongs to user {NOBODY}" in folder_intruder(place)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    assert folder_intruder(place) == ""


def test_nor_is_one_that_another_user_could_exchange(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    place = parent / "state"
    place.mkdir(parents=True, mode=0o700)
    os.chown(parent, NOBODY, NOBODY)
    assert str(parent) in folder_intruder(place)
    os.chown(parent, 0, 0)
    parent.chmod(0o777)
    assert "everybody" in folder_intruder(place)
    parent.chmod(0o1777)  # as /tmp: nobody can rename what is another's
    assert folder_intruder(place) == ""


def test_nor_is_one_behind_another_user_s_link(tmp_path: Path) -> None:
    shared, place = tmp_path / "shared", tmp_path / "state"
    shared.mkdir(mode=0o777)
    shared.chmod(0o1777)
    place.mkdir(mode=0o700)
    link = shared / "link"
    link.symlink_to(place)
    assert folder_intruder(link) == ""
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert str(link) in folder_intruder(link)


def test_a_file_that_another_user_could_write_is_not_safe(tmp_path: Path) -> None:
    file = tmp_path / "target.img"
    file.write_bytes(b"x")
    assert file_intruder(file, os.stat(file)) == ""
    file.chmod(0o666)
    assert "mode 0666" in file_intruder(file, os.stat(file))
    file.chmod(0o600)
    os.chown(file, NOBODY, NOBODY)
    assert f"user {NOBODY}" in file_intruder(file, os.stat(file))


def test_no_link_in_the_place_of_a_file_is_followed(tmp_path: Path) -> None:
    victim, planted = tmp_path / "victim", tmp_path / "reached"
    victim.write_text("precious")
    planted.symlink_to(victim)
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_CREAT, os.O_RDONLY):
        with pytest.raises(OSError, match="symbolic links"):
            open_own(planted, flags)
    made = tmp_path / "made"
    (tmp_path / "reserve").symlink_to(made)
    with pytest.raises(OSError, match="symbolic links"):
        open_own(tmp_path / "reserve", os.O_WRONLY | os.O_CREAT)
    assert victim.read_text() == "precious" and not made.exists()

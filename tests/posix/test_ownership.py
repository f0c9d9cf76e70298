"""A file that another user made, or may change, is not used as if it were this program's own."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from pydbt.posix.ownership import (
    Unsafe,
    file_intruder,
    folder_intruder,
    make_folder,
    open_own,
    read_own,
    read_safely,
    remove_folders,
    way_intruder,
)

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
def test_a_folder_that_others_may_write_to_is_not_safe(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(mode)
    assert "chmod go-w" in folder_intruder(place)


def test_a_folder_of_another_user_is_not_safe_unless_that_user_called_by_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    os.chown(place, NOBODY, NOBODY)
    assert f"belongs to user {NOBODY}" in folder_intruder(place)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    assert folder_intruder(place) == ""


def test_a_folder_that_another_user_could_exchange_is_not_safe(tmp_path: Path) -> None:
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


def test_a_folder_behind_another_users_link_is_not_safe(tmp_path: Path) -> None:
    shared, place = tmp_path / "shared", tmp_path / "state"
    shared.mkdir(mode=0o777)
    shared.chmod(0o1777)
    place.mkdir(mode=0o700)
    link = shared / "link"
    link.symlink_to(place)
    assert folder_intruder(link) == ""
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert str(link) in folder_intruder(link)


def _shared_by_group(tmp_path: Path, group: int, owner: int = 0) -> Path:
    """A folder on the way to another one, as /srv or /usr/local are where a group keeps them."""
    shared = tmp_path / "shared"
    (shared / "state").mkdir(parents=True, mode=0o700)
    os.chown(shared, owner, group)
    shared.chmod(0o2775)
    return shared


def test_a_folder_below_one_to_which_a_group_may_write_is_not_safe(tmp_path: Path) -> None:
    shared = _shared_by_group(tmp_path, grp.getgrnam("staff").gr_gid)
    wrong = folder_intruder(shared / "state")
    assert "its group staff" in wrong and f"chmod g-w {shared}'" in wrong and "elsewhere" in wrong
    assert folder_intruder(shared / "not there yet") == wrong
    shared.chmod(0o3775)  # sticky: its members cannot rename what is another's
    assert folder_intruder(shared / "state") == ""
    shared.chmod(0o2755)
    assert folder_intruder(shared / "state") == ""


def test_a_group_of_root_s_or_of_the_owner_alone_is_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = _shared_by_group(tmp_path, 0)
    assert folder_intruder(shared / "state") == ""
    monkeypatch.setenv("SUDO_UID", "4711")
    os.chown(shared, 4711, 4711)
    users = [pwd.struct_passwd(("alice", "x", 4711, 4711, "", "/", "/bin/sh"))]
    members: list[str] = []
    monkeypatch.setattr(pwd, "getpwuid", lambda _: users[0])
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("alice", "x", gid, members)))
    assert folder_intruder(shared / "state") == "", "Debian makes such a group for each user"
    members.append("mallory")
    assert "its group alice" in folder_intruder(shared / "state")
    members.clear()
    users.append(pwd.struct_passwd(("mallory", "x", 4712, 4711, "", "/", "/bin/sh")))
    assert "its group alice" in folder_intruder(shared / "state"), "it is the first group of another user"


def test_an_access_list_is_not_taken_for_root_s_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one, the bits of the group tell what it allows at most, to anybody (acl(5))."""
    shared = _shared_by_group(tmp_path, 0)
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"user:mallory:rwx")
    assert "may be written by its group" in folder_intruder(shared / "state")


def test_every_link_of_a_chain_counts_and_each_is_followed_as_the_kernel_does(tmp_path: Path) -> None:
    shared, place = tmp_path / "shared", tmp_path / "deep" / "state"
    shared.mkdir(mode=0o777)
    shared.chmod(0o1777)
    place.mkdir(parents=True, mode=0o700)
    middle, first = shared / "middle", tmp_path / "first"
    middle.symlink_to("../deep")
    first.symlink_to(middle)
    assert way_intruder(first / "state") == "" and way_intruder(first / "state" / ".." / "state") == ""
    os.chown(middle, NOBODY, NOBODY, follow_symlinks=False)
    assert str(middle) in way_intruder(first / "state")
    assert way_intruder(place) == ""
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert way_intruder(tmp_path / "round" / "x") == "", "opening it tells what is wrong"


def test_a_folder_is_made_only_where_it_is_safe_and_else_nothing_is_left(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    for mode, owner in ((0o777, 0), (0o755, NOBODY)):
        shared.chmod(mode)
        os.chown(shared, owner, owner)
        with pytest.raises(Unsafe, match=str(shared)):
            make_folder(shared / "a" / "b" / "c")
        assert not list(shared.iterdir())
    place = tmp_path / "a" / "b" / "c"
    assert make_folder(place) == [tmp_path / "a", tmp_path / "a" / "b", place]
    assert place.stat().st_mode & 0o777 == 0o700 and place.parent.stat().st_mode & 0o777 == 0o755
    assert make_folder(place) == []
    remove_folders([tmp_path / "a", tmp_path / "a" / "b", place])
    assert not (tmp_path / "a").exists()


def test_a_folder_that_another_user_makes_a_moment_before_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, mkdir = tmp_path / "shared", Path.mkdir
    shared.mkdir(mode=0o777)
    shared.chmod(0o1777)

    def be_quicker(folder: Path, mode: int = 0o777) -> None:
        mkdir(folder, mode)
        if folder.name == "a":
            os.chown(folder, NOBODY, NOBODY)
            raise FileExistsError

    monkeypatch.setattr(Path, "mkdir", be_quicker)
    with pytest.raises(Unsafe, match=f"user {NOBODY}"):
        make_folder(shared / "a" / "b")
    assert list((shared / "a").iterdir()) == []


def test_a_link_to_nothing_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    link = tmp_path / "new" / "link"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "nowhere")
    for place in (link, link / "state"):
        with pytest.raises(OSError, match=f"{link} is a symbolic link that leads to nothing"):
            make_folder(place)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file is no directory"):
        make_folder(tmp_path / "file" / "state")
    assert not (tmp_path / "nowhere").exists()


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


def test_only_an_own_regular_file_of_a_bounded_size_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("ä\r\n".encode())
    assert read_safely(file)[0] == "ä\n"
    os.truncate(file, 8 << 40)  # sparse
    with pytest.raises(OSError, match="larger than 16 MiB"):
        read_safely(file)
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(Unsafe, match=f"user {NOBODY}"):
        read_safely(file)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_safely(tmp_path / "pipe")


def test_a_file_that_this_program_keeps_is_read_as_it_is_and_nothing_else_in_its_place(tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_bytes(b"\xff\r\n")
    assert read_own(file) == b"\xff\r\n" == read_own(file, 3)
    for bytes_max, size in ((2, 3), (100, 8 << 40)):
        os.truncate(file, size)
        with pytest.raises(OSError, match="larger than"):
            read_own(file, bytes_max)
    link.symlink_to(tmp_path / "ownerless")
    (tmp_path / "ownerless").write_bytes(b"precious")
    with pytest.raises(OSError, match="symbolic links"):
        read_own(link)
    os.mkfifo(pipe)
    for place in (pipe, tmp_path, Path("/dev/null")):
        with pytest.raises(OSError, match="not a regular file"):
            read_own(place)
    with pytest.raises(FileNotFoundError):
        read_own(tmp_path / "absent")
    os.truncate(file, 0)
    os.chown(file, NOBODY, NOBODY)
    with pytest.raises(OSError, match=f"user {NOBODY}") as caught:
        read_own(file)
    assert not isinstance(caught.value, PermissionError), "which would be taken for a lack of root"

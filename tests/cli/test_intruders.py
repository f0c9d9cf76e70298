"""Folders and files that another user made, or may change: root's commands refuse them in one sentence and touch nothing."""

from __future__ import annotations

import grp
import os
import shutil
from pathlib import Path

import pytest

from pydbt.controller import pki, registry
from pydbt.controller.registry import claimed_state_dir
from pydbt.core.errors import BusyError, MachineError, UsageError
from pydbt.device.mapped import SnapshotSpace
from pydbt.device.target import Target
from pydbt.kernel import pins
from pydbt.posix.files import try_lock
from tests.lab.disks import image
from tests.lab.identities import make_identities
from tests.lab.nobody import reachable_folder
from tests.lab.programs import command

NOBODY, MIB = 65534, 1 << 20
SOCKET = ("--listen", "unix:/nonexistent/s")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    place = tmp_path / "theirs"
    place.mkdir()
    place.chmod(0o777)
    os.chown(place, NOBODY, NOBODY)
    return place


def test_a_state_directory_of_another_user_is_refused_by_every_command_that_uses_one(
    tmp_path: Path, theirs: Path, disk: str
) -> None:
    target = image(tmp_path / "t.img", MIB)
    words = ("state directory", str(theirs), f"user {NOBODY}")
    command("run", disk, "--secondary", "unix:/nonexistent", "--state", theirs).refused(2, *words)
    command("secondary", target, "--replay-only", "--state", theirs).refused(2, *words)
    command("secondary", target, *SOCKET, "--state", theirs).refused(2)
    for verb in ("promote", "invalidate", "demote"):
        command(verb, target, "--state", theirs).refused(2, *words)
    command("down", "--state", theirs).refused(2, *words)
    assert list(theirs.iterdir()) == [], "not even a lock was made in it"


def test_nothing_is_made_on_the_way_to_a_state_directory_that_is_refused(
    tmp_path: Path, theirs: Path, disk: str
) -> None:
    group = tmp_path / "srv"
    group.mkdir()
    os.chown(group, 0, grp.getgrnam("staff").gr_gid)
    group.chmod(0o2775)
    for folder, word in ((theirs, f"user {NOBODY}"), (group, f"chmod g-w {group}")):
        place = folder / "pydbt" / "volume"
        image_there = folder / "made.img"
        words = (str(place), "not safe from other users", word)
        command("run", disk, "--secondary", "unix:/nonexistent", "--no-wait", "--state", place).refused(2, *words)
        target = image(tmp_path / "t.img", MIB)
        command("secondary", target, "--listen", f"unix:{tmp_path}/s", "--state", place).refused(2, *words)
        command("secondary", target, *SOCKET, "--check", "--state", place).refused(2, *words)
        done = command("secondary", image_there, "--create", "1M", *SOCKET, "--state", tmp_path / "state")
        done.refused(2, f"TARGET {image_there}", word)
        command("pki", "init", folder / "a" / "pki").refused(2, word)
        assert list(folder.iterdir()) == []
    assert not (tmp_path / "state").exists()


def test_the_last_state_in_another_user_s_directory_is_not_told_as_this_program_s(tmp_path: Path, theirs: Path) -> None:
    words = '{"role": "primary", "mode": "normal", "replica_state": "up-to-date", "out_of_sync_bytes": 0}'
    (theirs / "status.json").write_text(words)
    done = command("status", "--state", theirs)
    done.refused(9, str(theirs), f"belongs to user {NOBODY}")
    assert "normal" not in done.errors and "out of sync" not in done.errors
    done = command("status", "--json", "--state", theirs)
    done.refused(9, f"belongs to user {NOBODY}")
    os.chown(theirs, 0, 0)
    os.chown(theirs / "status.json", NOBODY, NOBODY)
    done = command("status", "--state", theirs)
    done.refused(9)
    assert "normal" not in done.errors, "the file is his also in a directory of root's"


def test_a_device_behind_another_user_s_link_is_refused_by_name(tmp_path: Path, disk: str) -> None:
    """He could turn the link to another disk before the next run."""
    shared, target = tmp_path / "shared", image(tmp_path / "t.img", MIB)
    shared.mkdir()
    shared.chmod(0o1777)
    theirs, own = shared / "theirs", tmp_path / "own"
    theirs.symlink_to(disk)
    own.symlink_to(theirs)
    os.chown(theirs, NOBODY, NOBODY, follow_symlinks=False)
    state = tmp_path / "state"
    for link in (theirs, own):
        words = (str(link), f"{theirs} belongs to user {NOBODY}", "use a path elsewhere")
        command("run", link, "--secondary", "unix:/nonexistent", "--state", state).refused(2, "SOURCE", *words)
        command("secondary", link, "--listen", f"unix:{tmp_path}/s", "--state", state).refused(2, "TARGET", *words)
        command("layer", "create", link, "x", "--snapshot-space", disk).refused(2, *words)
        command("layer", "create", disk, "x", "--snapshot-space", link).refused(2, *words)
        with pytest.raises(UsageError, match="the snapshot space"):
            SnapshotSpace.of(str(link))
        with pytest.raises(UsageError, match=f"user {NOBODY}"):
            Target(str(link))
    os.chown(theirs, 0, 0, follow_symlinks=False)
    done = command("run", own, "--secondary", "unix:/nonexistent", "--state", target)
    done.refused(2, "is not a directory")
    assert not state.exists()


def test_an_address_of_a_secondary_that_is_no_socket_is_refused_and_not_waited_for(tmp_path: Path, disk: str) -> None:
    place, state = tmp_path / "regular", tmp_path / "state"
    place.touch()
    words = (f"unix:{place}", "no socket", "name the path at which the secondary listens")
    command("run", disk, "--secondary", f"unix:{place}", "--state", state).refused(2, *words)
    assert not state.exists()


def test_a_link_to_nothing_is_no_target_and_nothing_is_made_behind_it(tmp_path: Path) -> None:
    link, behind = tmp_path / "link.img", tmp_path / "behind.img"
    link.symlink_to(behind)
    for more in ((), ("--create", "1M")):
        done = command("secondary", link, *more, *SOCKET, "--state", tmp_path / "state")
        done.refused(2, f"TARGET {link} is a symbolic link to {behind}, which does not exist", "remove the link")
    assert not behind.exists() and not (tmp_path / "state").exists()


def test_a_target_that_another_user_could_write_or_exchange_is_refused(tmp_path: Path) -> None:
    victim, shared = image(tmp_path / "victim", MIB), tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / "t.img"
    planted.symlink_to(victim)
    os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
    loose = image(tmp_path / "loose.img", MIB)
    loose.chmod(0o666)
    foreign = image(tmp_path / "foreign.img", MIB)
    os.chown(foreign, NOBODY, NOBODY)
    for target, word in ((planted, str(planted)), (loose, "chmod go-w"), (foreign, "copy it to a file of your own")):
        done = command(
            "secondary", target, "--listen", f"unix:{tmp_path}/s", "--state", tmp_path / f"state-{target.name}"
        )
        done.refused(2, "not safe from other users", word)
        assert not (tmp_path / f"state-{target.name}").exists()


def test_a_lock_that_anybody_who_may_read_can_take_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "_TURN_S", 0.2)
    target, authority = image(tmp_path / "t.img", MIB), tmp_path / "pki"
    make_identities(authority, "alpha")
    theirs = [os.open(place, os.O_RDONLY) for place in (target, authority)]
    try:
        assert all(map(try_lock, theirs))
        opened = Target(str(target))
        with pytest.raises(BusyError, match="in use by another secondary"):
            Target(str(target))
        opened.close()
        with pytest.raises(BusyError, match=f"lock on the folder {authority}.*chmod go-rx {authority}"):
            pki.revoke_key(authority, "alpha")
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    pki.revoke_key(authority, "alpha")


def test_an_image_that_every_user_may_read_is_used_with_a_warning(tmp_path: Path) -> None:
    with reachable_folder() as folder:
        options = ("--listen", f"unix:{folder}/s", "--state", folder / "state", "--check")
        for place, mode, is_told in ((folder, 0o644, True), (folder, 0o640, False), (tmp_path, 0o644, False)):
            target = image(place / "t.img", MIB)
            target.chmod(mode)
            done = command("secondary", target, *options)
            told = f"TARGET {target} may be read by every user of this machine" in done.errors
            assert done.code == 0 and told == is_told, done


def test_the_folder_of_the_registry_must_be_roots(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RUN_DIR", theirs)
    with pytest.raises(MachineError, match=f"user {NOBODY}"), claimed_state_dir("/anything"):
        pass
    assert list(theirs.iterdir()) == []


def test_the_folder_of_the_pins_must_be_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """bpffs lets everybody make folders: another user may have made this one before the first run."""
    squatted = pins.BPFFS / f"pydbt-test-{os.getpid()}"
    squatted.mkdir()
    try:
        pins.require_bpffs(squatted / "volume")
        (squatted / "his").mkdir()
        os.chown(squatted, NOBODY, NOBODY)
        with pytest.raises(MachineError, match=f"user {NOBODY}.*remove it and start again"):
            pins.require_bpffs(squatted / "volume")
        with pytest.raises(MachineError, match=f"user {NOBODY}"):
            pins.make_pin_dir(squatted / "volume")
        assert list(squatted.iterdir()) == [squatted / "his"]
        (squatted / "his").rmdir()
        pins.require_bpffs(squatted / "volume")
        assert squatted.stat().st_uid == NOBODY, "a check changes nothing"
        pins.make_pin_dir(squatted / "volume")
        assert squatted.stat().st_uid == 0, "an empty one is taken away at a start"
    finally:
        shutil.rmtree(squatted)


def test_a_link_that_was_planted_for_the_pins_is_refused_by_name_before_anything_is_compiled() -> None:
    planted = pins.BPFFS / f"pydbt-test-{os.getpid()}-link"
    planted.symlink_to("/nonexistent/place")
    try:
        os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(MachineError, match=f"{planted} belongs to user {NOBODY}.*remove it and start again"):
            pins.require_bpffs(planted / "volume")
    finally:
        planted.unlink()

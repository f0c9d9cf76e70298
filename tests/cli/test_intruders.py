"""Folders and files that another user made, or may change: root's commands refuse them in one sentence and touch nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydbt.controller import registry
from pydbt.controller.registry import claimed_state_dir
from pydbt.core.errors import MachineError
from pydbt.kernel import pins
from tests.lab.disks import image
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
    assert list(theirs.iterdir()) == [], "not even a lock was made in it"


def test_a_target_that_another_user_could_write_or_exchange_is_refused(tmp_path: Path) -> None:
    victim, shared = image(tmp_path / "victim", MIB), tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    planted = shared / "t.img"
    planted.symlink_to(victim)
    os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
    loose = image(tmp_path / "loose.img", MIB)
    loose.chmod(0o666)
    for target, word in ((planted, str(planted)), (loose, "chmod go-w")):
        done = command(
            "secondary", target, "--listen", f"unix:{tmp_path}/s", "--state", tmp_path / f"state-{target.name}"
        )
        done.refused(2, "not safe from other users", word)
        assert not (tmp_path / f"state-{target.name}").exists()


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
        os.chown(squatted, NOBODY, NOBODY)
        with pytest.raises(MachineError, match=f"user {NOBODY}"):
            pins.require_bpffs(squatted / "volume")
    finally:
        squatted.rmdir()

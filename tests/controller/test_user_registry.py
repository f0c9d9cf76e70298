"""A secondary that is not root's is registered in a folder of its user alone, and runs without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydbt.controller import registry
from pydbt.controller.registry import is_secondary_running, registered_secondary, secondary_state_dir_of
from pydbt.controller.supervisor_file import supervised_volumes, supervising
from pydbt.core.errors import BusyError, MachineError

USER = 54321


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which users have theirs; this process is one of such a user."""
    monkeypatch.setattr(registry, "_USERS_DIR", tmp_path / "user")
    monkeypatch.setattr(os, "geteuid", lambda: USER)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    (tmp_path / "user").mkdir()
    (tmp_path / "state").mkdir()
    return tmp_path / "user"


def folder_of(path: Path, owner: int = USER, mode: int = 0o700) -> Path:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, owner, owner)
    return path


def registered_in(tmp_path: Path) -> Path | None:
    """The folder in which a secondary of this user is registered; None when it runs without one."""
    target, state = tmp_path / "t.img", tmp_path / "state"
    with registered_secondary(target, state, "127.0.0.1", 1, keep=True):
        running = is_secondary_running(target)
    found = [path.parent.parent for path in tmp_path.rglob("secondary-*")]
    assert running == bool(found) and secondary_state_dir_of(target) == (state if found else None)
    return found[0] if found else None


def test_the_folder_that_the_environment_names_counts_before_that_of_the_user(users, tmp_path, monkeypatch):
    folder_of(users / str(USER))
    assert registered_in(tmp_path) == users / str(USER)
    for path in tmp_path.rglob("secondary-*"):
        path.unlink()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder_of(tmp_path / "xdg")))
    assert registered_in(tmp_path) == tmp_path / "xdg"


@pytest.mark.parametrize(
    ("owner", "mode"),
    [(65534, 0o700), (0, 0o700), (USER, 0o777), (USER, 0o750)],
    ids=["another user's", "root's", "for all", "for a group"],
)
def test_a_folder_that_is_not_the_users_alone_is_not_used(users, tmp_path, monkeypatch, caplog, owner, mode):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder_of(tmp_path / "xdg", owner, mode)))
    assert registered_in(tmp_path) is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert "not this user's alone" in said and "--state" in said and "set XDG_RUNTIME_DIR to a folder" in said
    folder_of(users / str(USER))
    assert registered_in(tmp_path) == users / str(USER)


@pytest.mark.parametrize("named", ["", "relative", "/nowhere/at/all"])
def test_without_a_folder_it_runs_unregistered_and_nothing_in_tmp_can_keep_it_from_that(
    users, tmp_path, monkeypatch, caplog, named
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", named)
    assert registered_in(tmp_path) is None
    assert len(caplog.records) == 1 and not Path(f"/tmp/pydbt-{USER}").exists()
    assert supervised_volumes() == []
    with pytest.raises(MachineError, match="set XDG_RUNTIME_DIR to a folder"), supervising("run", tmp_path):
        pass


def test_two_secondaries_of_a_user_do_not_share_a_target(users, tmp_path):
    folder_of(users / str(USER))
    with (
        registered_secondary(tmp_path / "t.img", tmp_path / "state", "127.0.0.1", 1),
        pytest.raises(BusyError, match="in use by another controller"),
        registered_secondary(tmp_path / "t.img", tmp_path / "other", "127.0.0.1", 2),
    ):
        pass

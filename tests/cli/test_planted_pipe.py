"""A named pipe in the place of a settings file: nobody waits for that of another user, and a shell's own goes on working."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from pydbt.cli.config import read_toml_file
from pydbt.cli.volume_files import read_volume
from pydbt.core.errors import UsageError
from tests.lab.programs import PROGRAM, ROOT, command

NOBODY = 65534
TEXT = '[run]\nsource = "/dev/vda3"\n'


def pipe_of(user: int, place: Path) -> Path:
    os.mkfifo(place, 0o644)
    os.chown(place, user, user)
    return place


def test_a_pipe_of_another_user_is_no_settings_file(tmp_path: Path) -> None:
    pipe = pipe_of(NOBODY, tmp_path / "settings.toml")
    for verb in (("status",), ("run", "--check"), ("configcheck", pipe)):
        try:
            done = command("--config", pipe, *verb, timeout_s=15)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{verb[0]} waits for another user's pipe")
        assert done.code == 2 and f"user {NOBODY}" in done.errors + done.output, done


def test_a_pipe_that_another_user_may_write_or_exchange_is_none_either(tmp_path: Path) -> None:
    loose = pipe_of(0, tmp_path / "loose.toml")
    loose.chmod(0o622)
    with pytest.raises(UsageError, match="other users may write to it"):
        read_toml_file(loose, "")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    pipe = pipe_of(0, theirs / "settings.toml")
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(UsageError, match=f"{theirs} belongs to user {NOBODY}"):
        read_toml_file(pipe, "")


def test_an_own_pipe_is_waited_for(tmp_path: Path) -> None:
    pipe = pipe_of(0, tmp_path / "settings.toml")
    writer = threading.Thread(target=lambda: pipe.write_text(TEXT), daemon=True)
    found: list[str] = []
    reader = threading.Thread(
        target=lambda: found.append(read_toml_file(pipe, "").tables["run"]["source"]), daemon=True
    )
    reader.start()
    writer.start()
    for thread in (reader, writer):
        thread.join(30)
    assert found == ["/dev/vda3"]


def test_an_own_pipe_whose_writer_has_ended_before_it_is_read_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipe_of(0, tmp_path / "settings.toml")
    looked_at = os.fstat

    def after_the_writer(descriptor: int) -> os.stat_result:
        """The reader has the pipe open, so that the writer need not wait for it."""
        monkeypatch.setattr(os, "fstat", looked_at)
        pipe.write_text(TEXT)
        return looked_at(descriptor)

    monkeypatch.setattr(os, "fstat", after_the_writer)
    assert read_toml_file(pipe, "").tables["run"]["source"] == "/dev/vda3"


def test_a_pipe_that_a_shell_hands_over_is_read(tmp_path: Path) -> None:
    program, text = " ".join(map(str, PROGRAM)), f"<(printf '{TEXT}sorce = 1\\n')"
    for line in (f"{program} --config {text} run", f"{program} --config /dev/stdin run < {text}"):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, timeout=30)
        assert done.returncode == 2 and "line 3" in done.stderr and "sorce" in done.stderr, done
    assert read_toml_file(Path("/dev/null"), "").tables == {}
    with pytest.raises(UsageError, match="Is a directory"):
        read_toml_file(tmp_path, "")


def test_the_folder_of_volumes_has_regular_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDBT_VOLUMES", str(tmp_path))
    pipe_of(0, tmp_path / "own.toml")
    pipe_of(NOBODY, tmp_path / "theirs.toml")
    (tmp_path / "null.toml").symlink_to("/dev/null")
    with pytest.raises(UsageError, match=r"own\.toml cannot be read: it is not a regular file"):
        read_volume(tmp_path / "own.toml")
    with pytest.raises(UsageError, match=f"belongs to user {NOBODY}"):
        read_volume(tmp_path / "theirs.toml")
    with pytest.raises(UsageError, match="not a regular file"):
        read_volume(tmp_path / "null.toml")
    done = command("configcheck", timeout_s=15)
    assert done.code == 2 and "own.toml" in done.output and "theirs.toml" in done.output, done

"""Programs that another user has put somewhere are not run, and nothing of a key is left on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydbt.core.errors import PydbtError
from pydbt.kernel import capture
from pydbt.kernel.spec import CaptureOptions, VolumeSpec
from tests.lab.identities import socket_address
from tests.lab.patience import until
from tests.lab.programs import Controller, status_of

MIB = 1 << 20


def test_nothing_of_the_current_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "pydbt").mkdir()
    for name in ("pydbt/__init__.py", "numpy.py", "json.py"):
        (tmp_path / name).write_text(f"open({str(mark)!r}, 'a').write(__name__)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PydbtError):  # its pins would not lie in bpffs
        capture._run_loader(VolumeSpec(7, 0, 0, 8), CaptureOptions(), tmp_path / "pins")
    assert not mark.exists(), f"{mark.read_text()} of the current folder was imported"


def test_the_process_of_all_volumes_leaves_no_core_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has read every identity, to check the configuration."""
    volumes = tmp_path / "volumes"
    volumes.mkdir()
    monkeypatch.setenv("PYDBT_VOLUMES", str(volumes))
    (volumes / "one.toml").write_text(
        f'[secondary]\ntarget = "{tmp_path}/one.img"\nlisten = "unix:{socket_address().removeprefix("unix:")}"\n'
        f'create = "1M"\nstate = "{tmp_path}/one"\njournal-size = "16M"\n'
    )
    started = Controller(tmp_path / "log", ["secondary"])
    try:
        until(lambda: status_of(tmp_path / "one") is not None or not started.alive, "it runs")
        limits = Path(f"/proc/{started.process.pid}/limits").read_text()
    finally:
        started.terminate()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]


def test_a_secondary_on_a_file_starts_on_a_machine_with_the_group_of_the_status(tmp_path: Path) -> None:
    group = tmp_path / "group"
    group.write_text(Path("/etc/group").read_text() + "pydbt:x:64999:\n")
    script = f'mount --bind {group} /etc/group && exec "$@"'
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    arguments = ["secondary", tmp_path / "t.img", "--create", MIB, "--listen", socket_address()]
    made = Controller(tmp_path / "log", arguments, tmp_path / "state", prefix=prefix)
    try:
        until(lambda: "listening on" in made.words() or not made.alive, "it listens")
        assert made.alive, made.words()[-500:]
        assert [path for path in Path("/run/pydbt").glob("status-*.sock") if path.stat().st_gid == 64999]
    finally:
        if made.alive:
            assert made.terminate() == 0

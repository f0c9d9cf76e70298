"""Every option reaches the service it is meant for, with its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pydbt.cli.group import execute
from pydbt.controller import pki
from pydbt.controller.options import PrimaryOptions, SecondaryOptions
from pydbt.controller.primary import service as primary_service
from pydbt.controller.registry import is_claimed, secondaries_at
from pydbt.controller.secondary import service as secondary_service
from pydbt.core.units import GIB, MIB
from tests.lab.disks import image


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the services were started with; they end at once with exit code 17."""
    started: list[Any] = []

    def take(options: Any) -> int:
        started.append(options)
        started.append(is_claimed(options.state_dir) or len(secondaries_at("127.0.0.1", 47998)))
        return 17

    monkeypatch.setattr(primary_service, "run_primary", take)
    monkeypatch.setattr(secondary_service, "run_secondary", take)
    return started


def test_run_with_no_option_takes_the_defaults(served: list[Any], disk: str, tmp_path: Path) -> None:
    assert execute(["run", disk, "--secondary", "unix:/run/s", "--state", str(tmp_path / "s")]) == 17
    options, held = served
    assert held and options.report is not None
    plain = PrimaryOptions(Path(disk), (("unix:/run/s", 0),), tmp_path / "s", report=options.report)
    assert options == plain
    assert not (tmp_path / "s").exists() and not is_claimed(tmp_path / "s")


def test_run_with_every_option(served: list[Any], disk: str, tmp_path: Path) -> None:
    words = (
        f"run {disk} --secondary [::1]:47998 --secondary 127.0.0.1:47999 --state {tmp_path}/s --insecure "
        "--block-size 64K --whole-device "
        "--no-digests --rate-limit 20M/s --compress --ack-timeout 2.5 --log-size 1M --ring-size 128K "
        "--record-ring-size 64K --watch-memory auto"
    )
    assert execute(words.split()) == 17
    assert served[0] == PrimaryOptions(
        source=Path(disk),
        secondaries=(("::1", 47998), ("127.0.0.1", 47999)),
        state_dir=tmp_path / "s",
        insecure=True,
        block_bytes=65536,
        assume_in_sync=False,
        whole_device=True,
        rate_limit_bytes_per_s=20 * MIB,
        compress=True,
        log_bytes=MIB,
        data_ring_bytes=128 * 1024,
        record_ring_bytes=64 * 1024,
        watch_memory="auto",
        compare_first=False,
        acknowledge_timeout_s=2.5,
        report=served[0].report,
    )
    assert execute([*words.replace(" --whole-device", "").split(), "--assume-in-sync"]) == 17
    assert served[2].assume_in_sync


def test_a_peer_that_stands_in_a_settings_file_keeps_its_key_and_a_typed_one_may_have_another(
    served: list[Any], disk: str, tmp_path: Path
) -> None:
    pki.make_authority(tmp_path / "pki")
    identity, target = pki.issue(tmp_path / "pki", "one"), image(tmp_path / "t.img", MIB)
    settings = tmp_path / "c.toml"
    common = f'identity = "{identity}"\nstate = "{tmp_path}/s"\npeer = "two"\n'
    settings.write_text(
        f'[run]\nsource = "{disk}"\nsecondary = "127.0.0.1:47999"\n{common}'
        f'[secondary]\ntarget = "{target}"\nlisten = "127.0.0.1:47998"\n{common}'
    )
    for command in ("run", "secondary"):
        for typed in ([], ["--peer", "two"]):
            assert execute(["--config", str(settings), command, *typed]) == 17
            options = served[-2]
            assert (options.peers if command == "run" else (options.peer,)) == ("two",)
            assert options.new_peer_key is bool(typed)


def test_secondary_with_no_option_and_with_every_option(served: list[Any], tmp_path: Path) -> None:
    target = image(tmp_path / "t.img", MIB)
    words = f"secondary {target} --listen 127.0.0.1:47998 --state {tmp_path}/s"
    assert execute([*words.split(), "--insecure"]) == 17
    assert served[:2] == [SecondaryOptions(target, "127.0.0.1", 47998, tmp_path / "s", insecure=True), 1]
    words = f"secondary {tmp_path}/new.img --listen 127.0.0.1:47998 --state {tmp_path}/s"
    assert execute([*words.split(), "--create", "2G", "--insecure", "--no-stage", "--journal-size", "64M"]) == 17
    assert served[2] == SecondaryOptions(
        target=tmp_path / "new.img",
        listen_host="127.0.0.1",
        listen_port=47998,
        state_dir=tmp_path / "s",
        create_bytes=2 * GIB,
        insecure=True,
        stage=False,
        journal_limit_bytes=64 * MIB,
    )
    assert execute(["secondary", str(target), "--replay-only", "--state", str(tmp_path / "s")]) == 17
    assert served[4].replay_only

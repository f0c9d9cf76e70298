"""A secondary that listens where only its own machine can connect, because of a line in /etc/hosts, warns at its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.programs import command


@pytest.mark.parametrize(("line", "warned"), [("127.0.1.1 alpha.example", True), ("127.0.0.1 localhost", False)])
def test_a_name_that_leads_to_loopback_is_warned_of(tmp_path: Path, line: str, warned: bool) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{line}\n")
    name = line.split()[1]
    mounts = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        f'mount --bind {hosts} /etc/hosts && exec "$@"',
        "sh",
    ]
    words = (
        "secondary",
        tmp_path / "replica.img",
        "--create",
        "1M",
        "--state",
        tmp_path / "state",
        "--listen",
        f" {name}:0",
    )
    done = command(*words, "--insecure", "--check", prefix=mounts)
    assert done.code == 0, done
    assert ("alpha.example is 127.0.1.1 on this machine" in done.errors) is warned

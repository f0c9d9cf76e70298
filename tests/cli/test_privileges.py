"""A controller keeps what it needs after its start, and no more; a secondary on a file needs no root at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.posix.privileges import PRIMARY_KEEPS, SECONDARY_KEEPS, Capability
from tests.lab.identities import socket_address
from tests.lab.patience import until
from tests.lab.programs import Controller, command, status_of

NOBODY, SIZE = 65534, 1 << 20


def words_of(place: Path) -> dict[str, str]:
    """The lines of ``status`` of a process, or of one of its threads."""
    lines = (place / "status").read_text().splitlines()
    return {name: words.strip() for name, _, words in (line.partition(":") for line in lines)}


def mask(kept: frozenset[Capability]) -> int:
    return sum(1 << number for number in kept)


@contextlib.contextmanager
def secondary(folder: Path, address: str, *prefix: str) -> Iterator[Controller]:
    arguments = ["secondary", folder / "t.img", "--create", SIZE, "--listen", address]
    made = Controller(folder.parent / "secondary.log", arguments, folder / "state", prefix=prefix)
    try:
        until(lambda: status_of(folder / "state") is not None or not made.alive, "it answers")
        assert made.alive, made.words()
        yield made
    finally:
        made.terminate()


def test_a_secondary_has_given_up_what_it_does_not_need(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    with secondary(folder, socket_address()) as running:
        words = words_of(Path(f"/proc/{running.process.pid}"))
        for name in ("CapEff", "CapPrm", "CapBnd"):
            assert int(words[name], 16) & ~mask(SECONDARY_KEEPS) == 0, name
        assert words["NoNewPrivs"] == "1"
        kept = [int(words["CapEff"], 16) for words in words_of_threads(running.process.pid)]
        assert len(kept) > 1, "its threads are there"
        assert all(one & ~mask(SECONDARY_KEEPS) == 0 for one in kept), kept
        limits = Path(f"/proc/{running.process.pid}/limits").read_text()
        (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]


def words_of_threads(process: int) -> Iterator[dict[str, str]]:
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that served a client has ended meanwhile
            yield words_of(thread)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that other users can reach; pytest's own cannot be."""
    place = Path(tempfile.mkdtemp(prefix="pydbt-test-", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_a_secondary_on_a_file_needs_no_root(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reachable / "own"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    address = f"unix:{folder}/s"
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    with secondary(folder, address, *nobody) as running:
        assert words_of(Path(f"/proc/{running.process.pid}"))["Uid"].split()[1] == str(NOBODY)
        assert int(words_of(Path(f"/proc/{running.process.pid}"))["CapEff"], 16) == 0
        assert (folder / "t.img").stat().st_uid == NOBODY
        told = command("status", "--state", folder / "state")
        assert told.code == 0 and f"user {NOBODY} (nobody) says: the replica is" in told.output, "root sees whose it is"
        assert json.loads(command("status", "--json", "--state", folder / "state").output)["user"] == "65534 (nobody)"
        own = command("status", "--json", "--state", folder / "state", user=NOBODY)
        assert own.code == 0 and "user" not in json.loads(own.output)
        command("wait", "--state", folder / "state").refused(2, f"user {NOBODY}", "run this as that user")
        command("promote", folder / "t.img", "--state", folder / "state").refused(2, f"belongs to user {NOBODY}")
        command("down", "--state", folder / "state").refused(2, f"belongs to user {NOBODY}", "run this as that user")
        assert running.alive
        command("down", "--state", folder, user=NOBODY).refused(3, "must run as root")
        command("down", "--all", user=NOBODY).refused(3, "must run as root")
        stopped = command("down", "--state", folder / "state", user=NOBODY)
        assert stopped.code == 0 and stopped.output == "stopped\n", stopped
        assert running.process.wait(60) == 0
        again = command("down", "--state", folder / "state", user=NOBODY)
        assert again.code == 0 and again.output == "nothing was running\n", again
    told = command("status", "--state", folder / "state")
    told.refused(9, f"which belongs to user {NOBODY}")
    assert command("secondary", folder / "t.img", "--state", folder / "state", "--replay-only", user=NOBODY).code == 0


def test_the_primary_keeps_no_right_to_load_modules_to_do_raw_io_or_to_administer_the_network() -> None:
    assert not {16, 17, 12, 13, 22, 25} & set(PRIMARY_KEEPS), (
        "SYS_MODULE, SYS_RAWIO, NET_ADMIN, NET_RAW, SYS_BOOT, SYS_TIME"
    )

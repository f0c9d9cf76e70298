"""While the target cannot be written, every command has an answer, or says what it waits for; and all is well afterwards."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.end_to_end.test_status import BLOCK, is_up_to_date, write
from tests.lab.bad_block import BadBlock, bad_block
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import PROGRAM, command

SIZE = 16 << 20
BAD = 1500


@contextlib.contextmanager
def failing(tmp_path: Path) -> Iterator[tuple[Device, BadBlock, Cluster]]:
    """In sync, and then a block was written that the target does not take."""
    with (
        loop_device(tmp_path, SIZE) as device,
        bad_block(tmp_path / "small", SIZE, BAD) as disk,
        cluster(tmp_path / "c", device, target=disk.path) as both,
    ):
        both.start()
        both.wait()
        disk.damage()
        write(device, BAD)
        write(device, BAD + 9)
        until(lambda: disk.words in (both.secondary_status() or {}).get("target_problem", ""), "the place is named")
        until(lambda: disk.words in (both.status() or {})["connection_problem"], "the primary names it too")
        yield device, disk, both


def test_every_command_answers_or_names_what_it_waits_for(tmp_path: Path) -> None:
    with failing(tmp_path) as (_, disk, both):
        at = ("--state", both.primary_state)
        status = both.status()
        assert status is not None and status["replica_state"] == "inconsistent" and status["mode"] == "unsynchronized"
        told = command("status", *at)
        assert told.code == 0 and disk.words in told.output.splitlines()[0], told
        theirs = command("status", "--state", both.secondary_state)
        assert theirs.code == 0 and disk.words in theirs.output.splitlines()[0], theirs
        for words in (("verify", "--timeout", 2), ("wait", "--timeout", 1), ("wait", "--timeout", 3)):
            ended = command(words[0], *at, *words[1:])
            assert ended.code == 8 and disk.words in ended.errors, ended
        assert command("verify", *at, "--background").code == 4, "one is under way, and waits"
        assert command("verify", *at, "--cancel").code == 0
        refused = command("switchover", *at)
        assert refused.code != 0 and len(refused.errors.splitlines()) == 1, refused
        for words in ("pause", "resume"):
            assert command(words, *at).code == 0
        assert command("secondaries", *at).code == 0
        assert command("promote", "--state", both.secondary_state, both.target).code != 0
        assert command("down", *at).code == 0
        assert both.primary.wait() == 0


def test_a_verification_and_a_wait_without_a_limit_say_what_they_wait_for_and_end_when_it_is_over(
    tmp_path: Path,
) -> None:
    with failing(tmp_path) as (_, disk, both):
        asked = {name: _in_background(tmp_path / name, name, both) for name in ("verify", "wait")}
        given_up = _in_background(tmp_path / "given up", "wait", both)
        for name in asked:
            until(lambda name=name: disk.words in (tmp_path / name).read_text(), f"{name} names the place")
        given_up.send_signal(signal.SIGINT)
        assert given_up.wait(PATIENCE_S) != 0
        disk.mend()
        assert {name: process.wait(PATIENCE_S) for name, process in asked.items()} == {"verify": 0, "wait": 0}
        until(lambda: is_up_to_date(both.status()), "it is up to date again")
        assert (both.secondary_status() or {})["target_problem"] == ""
        both.compare("after the failure")


def _in_background(log: Path, name: str, both: Cluster) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen([*PROGRAM, name, "--state", str(both.primary_state)], stdout=file, stderr=file)


def test_the_primary_does_not_call_it_usable_before_it_is_and_copies_only_what_is_missing(tmp_path: Path) -> None:
    with failing(tmp_path) as (device, disk, both):
        for number in range(30):
            write(device, number)
            status = both.status()
            assert status is not None and status["replica_state"] == "inconsistent", status
            assert status["out_of_sync_bytes"] >= (number + 1) * BLOCK
        disk.mend()
        both.wait()
        until(lambda: is_up_to_date(both.status()), "it is up to date again")
        both.compare("after the failure")

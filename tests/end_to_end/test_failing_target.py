"""While a target cannot be written, every command has an answer, or says what it waits for; and all is well afterwards.

A target with single bad blocks follows but for them; one with more of them than a disk has is taken for one that fails.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.in_sync import BLOCK, is_up_to_date, write
from tests.lab.bad_block import BadBlock, bad_block
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device
from tests.lab.patience import PATIENCE_S, until
from tests.lab.programs import PROGRAM, command

SIZE = 16 << 20
BAD = 1500
MANY = 80
FAILS = "blocks cannot be written"


@contextlib.contextmanager
def failing(tmp_path: Path) -> Iterator[tuple[Device, BadBlock, Cluster]]:
    """In sync, and then more blocks were written that the target does not take than a disk has bad ones."""
    with in_sync_on(tmp_path, MANY) as (device, disk, both):
        disk.damage()
        write(device, BAD, MANY)
        until(lambda: FAILS in (both.secondary_status() or {}).get("target_problem", ""), "the failure is told")
        until(lambda: FAILS in (both.status() or {})["connection_problem"], "the primary tells it too")
        yield device, disk, both


@contextlib.contextmanager
def in_sync_on(tmp_path: Path, bad_blocks: int) -> Iterator[tuple[Device, BadBlock, Cluster]]:
    with (
        loop_device(tmp_path, SIZE) as device,
        bad_block(tmp_path / "small", SIZE, BAD, bad_blocks) as disk,
        cluster(tmp_path / "c", device, target=disk.path) as both,
    ):
        both.start()
        both.wait()
        yield device, disk, both


@contextlib.contextmanager
def flawed(tmp_path: Path) -> Iterator[tuple[Device, BadBlock, Cluster]]:
    """In sync, and then a block was written that the target does not take."""
    with in_sync_on(tmp_path, 1) as (device, disk, both):
        disk.damage()
        write(device, BAD)
        write(device, BAD + 9)
        until(lambda: disk.words in (both.secondary_status() or {}).get("target_problem", ""), "the place is named")
        until(lambda: follows_but_for_one(both), "all else is replicated")
        yield device, disk, both


def follows_but_for_one(both: Cluster) -> bool:
    """Whether the primary streams, names the one block, and counts nothing else."""
    status = both.status() or {}
    return (status["mode"], status["out_of_sync_bytes"], status["unwritable"]) == ("normal", BLOCK, NAMED)


NAMED = {"bytes": BLOCK, "places": [{"offset_bytes": BAD * BLOCK, "length_bytes": BLOCK}]}


@pytest.mark.variant
def test_every_command_answers_or_names_what_it_waits_for(tmp_path: Path) -> None:
    with failing(tmp_path) as (_, _, both):
        at = ("--state", both.primary_state)
        status = both.status()
        assert status is not None and status["replica_state"] == "inconsistent" and status["mode"] == "unsynchronized"
        told = command("status", *at)
        assert told.code == 0 and FAILS in told.output.splitlines()[0], told
        theirs = command("status", "--state", both.secondary_state)
        assert theirs.code == 0 and FAILS in theirs.output.splitlines()[0], theirs
        for words in (("verify", "--timeout", 2), ("wait", "--timeout", 1), ("wait", "--timeout", 3)):
            ended = command(words[0], *at, *words[1:])
            assert ended.code == 8 and FAILS in ended.errors, ended
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
            until(lambda name=name: FAILS in (tmp_path / name).read_text(), f"{name} names the place")
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


@pytest.mark.variant
def test_a_target_with_one_bad_block_follows_but_for_that_and_both_sides_report_it(tmp_path: Path) -> None:
    with flawed(tmp_path) as (device, disk, both):
        at = ("--state", both.primary_state)
        for number in range(20):
            write(device, number)
        until(lambda: follows_but_for_one(both), "what is written is replicated")
        status, theirs = both.status() or {}, both.secondary_status() or {}
        assert status["replica_state"] == theirs["replica_state"] == "inconsistent" and theirs["unwritable"] == NAMED
        until(lambda: (both.secondary_status() or {})["unapplied_bytes"] == 0, "all else is on the target")
        for place in (both.primary_state, both.secondary_state):
            told = command("status", "--state", place)
            assert told.code == 0 and disk.words in told.output.splitlines()[0], told
        waited, verified = command("wait", *at, "--timeout", 3), command("verify", *at)
        assert waited.code == 8 and disk.words in waited.errors, waited
        at_once = command("wait", *at)
        assert at_once.code == 6 and f"byte {BAD * BLOCK}:" in at_once.errors.splitlines()[-1], at_once
        assert verified.code == 6 and disk.words in verified.errors, verified
        assert disk.words in command("promote", "--state", both.secondary_state, both.target).errors
        assert both.secondary_status() is not None, "it goes on"


def test_a_bad_block_outlives_kills_of_both_sides_and_is_written_at_last(tmp_path: Path) -> None:
    with flawed(tmp_path) as (device, disk, both):
        asked = _in_background(tmp_path / "wait", "wait", both)
        both.secondary.kill()
        write(device, BAD)
        both.start_secondary()
        until(lambda: follows_but_for_one(both), "all else is replicated")
        asked.kill()
        both.primary.kill()
        stopped = command("status", "--state", both.primary_state, "--json")
        assert json.loads(stopped.output)["out_of_sync_bytes"] >= BLOCK, stopped
        write(device, BAD + 100)
        both.start_primary()
        until(lambda: follows_but_for_one(both), "all else is replicated")
        both.secondary.kill()
        promoted = command("promote", "--force", "--state", both.secondary_state, both.target)
        assert promoted.code == 6 and disk.words in promoted.errors, promoted
        both.start_secondary()
        until(lambda: follows_but_for_one(both), "all else is replicated")
        disk.mend()
        both.wait()
        until(lambda: is_up_to_date(both.status()), "it is up to date")
        both.compare("after the block was mended")

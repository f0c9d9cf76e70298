"""The file system's own transactions: each commit is told once and in order, and the one that is named is there."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pydbt.core.transactions.asked_transaction import AskedTransaction
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.patience import run, until
from tests.lab.programs import command
from tests.lab.rounds import short

MIB = 1 << 20
# Kind, options of mkfs, options of the mount, how many syncs twice. On a small volume mke2fs takes blocks of 1 KiB by itself.
KINDS = [
    pytest.param("ext4", ("-b", "4096", "-J", "size=4"), (), 100, id="ext4-4k-that-wraps"),
    pytest.param("xfs", (), (), 60, id="xfs"),
    pytest.param("ext4", ("-b", "1024", "-J", "size=1"), (), 60, id="ext4-1k-that-wraps"),
    pytest.param("xfs", ("-m", "reflink=0,rmapbt=0", "-l", "size=4m"), (), 1000, id="xfs-smallest-log-that-wraps"),
    pytest.param("ext4", (), (), 60, id="ext4"),
    pytest.param("ext4", (), ("-o", "data=journal"), 60, id="ext4-journalled-data"),
    pytest.param("ext4", ("-b", "4096"), ("-o", "data=journal"), 60, id="ext4-4k-journalled-data"),
    pytest.param("ext4", ("-O", "fast_commit"), (), 60, id="ext4-fast-commit"),
    pytest.param("xfs", ("-m", "reflink=1", "-l", "su=64k"), ("-o", "logbsize=256k"), 60, id="xfs-stripe"),
]


def fsyncs(folder: Path, first: int, count: int) -> None:
    """Files that are synced one by one: each sync commits a transaction."""
    for number in range(first, first + count):
        descriptor = os.open(folder / f"file{number}", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"x" * (number % 7 * 1000))
        os.fsync(descriptor)
        os.close(descriptor)
        if number % 5 == 4:
            (folder / f"file{number - 3}").unlink(missing_ok=True)


def told(device: Device) -> list[dict[str, Any]]:
    """What the running controller tells of its transactions."""
    done = command("transactions", device.path, "--json")
    assert done.code == 0, done
    return json.loads(done.output)["transactions"]


def names_of(transactions: list[dict[str, Any]]) -> list[str]:
    return [one["transaction"] for one in transactions]


def state_of(transaction: str, device: Device) -> str | None:
    return next((one["state"] for one in told(device) if one["transaction"] == transaction), None)


def on_disk(device: Device) -> dict[str, Any]:
    done = command("transactions", device.path, "--on-disk", "--json")
    assert done.code == 0, done
    return json.loads(done.output)


def shown_by_debugfs(device: Device) -> list[str]:
    """The commits in the live part of the log, as the file system's own tool prints them."""
    words = ["debugfs", "-R", "logdump", device.path]
    text = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
    return re.findall(r"sequence (\d+), type 2", text)


def start(both: Cluster) -> None:
    both.start()
    both.wait()


@pytest.mark.usefixtures("any_size_of_log")
@pytest.mark.parametrize(("kind", "made", "mount", "syncs"), short(2, *KINDS))
def test_every_commit_is_told_once_and_in_order_with_what_the_tools_show(
    tmp_path: Path, kind: str, made: tuple[str, ...], mount: tuple[str, ...], syncs: int, request: pytest.FixtureRequest
) -> None:
    with loop_device(tmp_path, (320 if kind == "xfs" else 64) * MIB) as device:
        make_filesystem(kind, device.path, *made)
        with cluster(tmp_path / "c", device) as both:
            start(both)
            with mounted(device, tmp_path / "mnt", *mount) as folder:
                fsyncs(folder, 0, syncs)
                first = names_of(told(device))[0]
                before = command("wait", device.path, "--transaction", "current")
                assert before.code == 0 and "is held" in before.output, before
                fsyncs(folder, syncs, syncs)
                done = command("wait", device.path, "--transaction", "current")
                newest = re.fullmatch(
                    r"transaction (\S+) is held, with every write up to sequence [\d,]+\n", done.output
                )
                assert done.code == 0 and newest is not None, done
                # On a slow machine a resynchronization may have come in between, during which nothing is known to be held.
                until(lambda: state_of(newest[1], device) == "done", "it is done")
                found = told(device)
                names = names_of(found)
                assert (len(names) >= 60 and len(set(names)) == len(names)) or kind == "xfs"
                check_order(kind, names)
                if "wraps" in request.node.callspec.id:
                    check_wraps(kind, first, names[-1], found)
                status = both.status() or {}
                assert status["transactions"]["unit"] == "file-system" and status["transactions"]["reason"] == ""
                assert status["transactions"]["file_system"] == kind
                assert status["transaction"]["name"] == status["secondaries"][0]["transaction"]["name"]
                until(lambda: (both.secondary_status() or {})["transaction"] is not None, "the secondary tells one")
                theirs = (both.secondary_status() or {})["transaction"]
                assert theirs["file_system"] == kind and theirs["name"] in names_of(told(device))
                again = command("wait", device.path, "--transaction", newest[1], "--timeout", "60")
                assert again.code == 0, again
                if kind == "ext4":
                    shown = shown_by_debugfs(device)  # ext4 may have made another commit by itself meanwhile
                    until(lambda: shown[-1] in names_of(told(device)), "what the tool shows is told")
                    full = [name for name in names_of(told(device)) if "." not in name]
                    behind = full.index(shown[-1]) + 1
                    assert shown == full[behind - len(shown) : behind]
            both.wait()
            last = told(device)
            there = on_disk(device)
            whole = [one["transaction"] for one in there["transactions"] if one["state"] == "committed"]
            assert there["last_whole"] == last[-1]["transaction"]
            of_log = [name for name in whole if name in {one["transaction"] for one in last}]
            assert of_log and of_log == whole[-len(of_log) :], "what the log holds, the stream has told"


def check_wraps(kind: str, first: str, last: str, found: list[dict[str, Any]]) -> None:
    """The log has gone on at its beginning since ``first``: the cycle tells it, or that more was logged than it has."""
    if kind == "xfs":
        assert int(last.split(":")[0]) > int(first.split(":")[0])
        return
    each = sum(one["log_bytes"] for one in found) / len(found)
    assert (int(last) - int(first)) * each > 4 * MIB


def check_order(kind: str, names: list[str]) -> None:
    if kind == "ext4":
        numbers = [int(name) for name in names if "." not in name]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        return
    places = [tuple(map(int, name.split(":"))) for name in names]
    assert places == sorted(places)


@pytest.mark.parametrize("kind", short(1, "ext4", "xfs"))
def test_after_a_kill_of_everything_the_promoted_replica_holds_what_it_names_and_what_was_held(
    tmp_path: Path, kind: str, chance: random.Random
) -> None:
    with loop_device(tmp_path, (320 if kind == "xfs" else 64) * MIB) as device:
        make_filesystem(kind, device.path)
        with cluster(tmp_path / "c", device) as both:
            start(both)
            with mounted(device, tmp_path / "mnt") as folder:
                held, count = "", 0
                for _ in range(3):
                    fsyncs(folder, count, chance.randrange(5, 40))
                    count = len(list(folder.glob("file*"))) + 100 * (count // 100 + 1)
                    done = command("wait", device.path, "--transaction", "current")
                    found = re.match(r"transaction (\S+) is held", done.output)
                    assert done.code == 0 and found is not None, done
                    held = found[1]
                promised = {path.name: path.read_bytes() for path in folder.glob("file*")}
                fsyncs(folder, 1000, chance.randrange(40))
                both.secondary.kill()
                both.primary.kill()
                outcome = command("promote", both.target, "--state", both.secondary_state, "--force", timeout_s=120)
                assert outcome.code == 0, outcome
                line = re.search(rf"last transaction that it holds whole is {kind} ([\d,.:]+)", outcome.output)
                assert line is not None, outcome.output
                name = line[1].rstrip(",").replace(",", "")
                assert AskedTransaction.parse(held).reached_by(name), (held, name)
            copy = tmp_path / "copy.img"
            run("cp", "--sparse=always", both.target, copy)
            before = json.loads(command("transactions", copy, "--json").output)
            assert before["last_whole"] == name
            if kind == "ext4":  # recovery ends behind the transaction that was named
                assert subprocess.run(["e2fsck", "-fy", copy], capture_output=True, timeout=120).returncode in (0, 1)
                text = subprocess.run(["dumpe2fs", "-h", copy], capture_output=True, text=True, timeout=60).stdout
                sequence = re.search(r"Journal sequence:\s+(0x[0-9a-f]+)", text)
                assert sequence is not None and int(sequence[1], 16) in (int(name) + 1, int(name) + 2), (text, name)
                assert subprocess.run(["e2fsck", "-fn", copy], capture_output=True, timeout=120).returncode == 0
            with mounted(copy, tmp_path / "look") as folder:
                there = {path.name: path.read_bytes() for path in folder.glob("file*")}
                assert promised.items() <= there.items()


def reason(both: Cluster) -> str:
    return ((both.status() or {}).get("transactions") or {"reason": "no status"})["reason"]


@pytest.mark.variant
def test_another_file_system_that_is_made_meanwhile_is_followed_and_a_missing_one_is_reported(tmp_path: Path) -> None:
    with loop_device(tmp_path, 320 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device, primary_options=("--whole-device",)) as both:
            start(both)
            with mounted(device, tmp_path / "mnt") as folder:
                fsyncs(folder, 0, 10)
            until(lambda: reason(both) == "", "ext4 is followed")
            make_filesystem("xfs", device.path)
            until(lambda: ((both.status() or {})["transactions"]["file_system"]) == "xfs", "XFS is found")
            with mounted(device, tmp_path / "mnt") as folder:
                fsyncs(folder, 0, 20)
                done = command("wait", device.path, "--transaction", "current")
                assert re.match(r"transaction \d+:\d+ is held", done.output), done
                refused = command("wait", device.path, "--transaction", "48211")
                refused.refused(2, "48211 is a transaction of ext4", "xfs")
            run("wipefs", "-qa", device.path)
            until(lambda: "no file system that this program knows" in reason(both), "that there is none is told")
            done = command("wait", device.path, "--transaction", "current")
            assert done.code == 0 and "the transaction is unknown: it has no file system" in done.output, done
            both.wait()
            both.compare("after three file systems")


@pytest.mark.variant
def test_a_file_system_without_a_log_has_a_transaction_per_write_request(tmp_path: Path) -> None:
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device.path, "-O", "^has_journal")
        with cluster(tmp_path / "c", device) as both:
            start(both)
            with mounted(device, tmp_path / "mnt") as folder:
                fsyncs(folder, 0, 10)
            until(lambda: reason(both) == "it has no journal", "that there is no journal is told")
            status = both.status() or {}
            assert status["transactions"]["unit"] == "write-request" and status["transaction"] is None
            first = command("status", "--state", both.primary_state).output
            assert "one for each write request: it has no journal" in first


def test_after_an_outage_no_transaction_is_named_before_one_is_known_and_then_the_right_one(tmp_path: Path) -> None:
    """The file system is mounted before the controller runs: its log is joined in the middle, twice."""
    numbers = itertools.count()

    def held(folder: Path, both: Cluster) -> str | None:
        """Commit one more; the transaction that the secondary is complete to, or None while that is unknown."""
        fsyncs(folder, next(numbers), 1)
        return ((both.status() or {}).get("transaction") or {}).get("name")

    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both, mounted(device, tmp_path / "mnt") as folder:
            start(both)
            until(lambda: held(folder, both) is not None, "one is held")
            both.secondary.kill()
            both.until_mode("unsynchronized")
            fsyncs(folder, 10_000, 20)
            assert (both.status() or {})["transactions"]["unit"] == "write-request"
            both.start_secondary()
            both.wait()
            until(lambda: held(folder, both) is not None, "one is held again")

            def both_tell() -> bool:
                """The file system may still commit by itself."""
                done = command("wait", device.path, "--transaction", "current")
                found = re.match(r"transaction (\d+) is held", done.output)
                assert found is not None, done
                told = ((both.secondary_status() or {})["transaction"] or {}).get("name")
                return told == found[1] == shown_by_debugfs(device)[-1]

            until(both_tell, "both tell the last commit of the log")

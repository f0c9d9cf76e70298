"""Transactions are told rightly when the file system, or its log, becomes another one, and when the stream has told none yet."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_transactions import MIB, fsyncs, on_disk, reason, shown_by_debugfs, start, told
from tests.lab.cluster import Cluster, cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.load import load
from tests.lab.patience import run, until
from tests.lab.programs import PROGRAM, command
from tests.lab.rounds import short

SAME = "11111111-2222-3333-4444-555555555555"
# No feature of the journal tells an old one from a new one here.
MADE = {"ext4": ("-U", SAME, "-O", "^metadata_csum,^64bit"), "xfs": ("-m", f"uuid={SAME}")}


def held(both: Cluster) -> dict[str, Any]:
    return (both.status() or {}).get("transaction") or {}


@pytest.mark.variant
@pytest.mark.parametrize("kind", ["ext4", *short(0, "xfs")])
def test_after_a_resynchronization_the_transaction_is_known_without_another_commit(tmp_path: Path, kind: str) -> None:
    with loop_device(tmp_path, (320 if kind == "xfs" else 64) * MIB) as device:
        make_filesystem(kind, device.path)
        with cluster(tmp_path / "c", device) as both:
            start(both)
            both.secondary.kill()
            both.until_mode("unsynchronized")
            with mounted(device, tmp_path / "mnt") as folder:
                fsyncs(folder, 0, 20)
            last = on_disk(device)["last_whole"]
            both.start_secondary()
            both.wait()
            until(lambda: held(both).get("name") == last, "the last transaction of the log is held")
            one = held(both)
            if kind == "xfs":
                assert (one["committed"], one["age_seconds"]) == (None, None), "its log tells no times"
            else:
                until(
                    lambda: ((both.secondary_status() or {})["transaction"] or {}).get("name") == last,
                    "the secondary is told",
                )
            done = command("wait", device.path, "--transaction", last, "--timeout", "60")
            assert done.code == 0, done


@pytest.mark.parametrize("kind", ["ext4", *short(0, "xfs")])
def test_a_file_system_made_anew_with_the_same_identity_begins_again(tmp_path: Path, kind: str) -> None:
    with loop_device(tmp_path, (320 if kind == "xfs" else 64) * MIB) as device:
        make_filesystem(kind, device.path, *MADE[kind])
        with cluster(tmp_path / "c", device, primary_options=("--whole-device",)) as both:
            start(both)
            with mounted(device, tmp_path / "mnt") as folder:
                fsyncs(folder, 0, 40)
                both.wait()
            before = [one["transaction"] for one in told(device)]
            make_filesystem(kind, device.path, *MADE[kind])
            with mounted(device, tmp_path / "mnt") as folder:
                numbers = itertools.count()
                until(lambda: told_anew(device, folder, numbers, len(before)), "those of the new file system are told")
                both.wait()
                until(lambda: held(both).get("name") not in (None, before[-1]), "one of them is held")
            both.wait()
            last = on_disk(device)["last_whole"]
            until(lambda: held(both).get("name") == last, "its last one is held")
            names = [one["transaction"] for one in told(device)]
            assert names[: len(before)] == before
            assert order_of(names[len(before)]) < order_of(before[-1]), "its numbers begin again"


def told_anew(device: Device, folder: Path, numbers: Iterator[int], before: int) -> bool:
    """Another commit is made; whether more are told than before."""
    fsyncs(folder, next(numbers), 1)
    return len(told(device)) > before


def order_of(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split(":")))


@pytest.mark.variant
def test_a_mount_a_grow_and_a_larger_journal_lose_no_transaction_for_long(tmp_path: Path) -> None:
    numbers = iter(range(1, 10_000))

    def last_is_held(both: Cluster, folder: Path) -> bool:
        """After another commit: the last one in the log is the one that is held."""
        fsyncs(folder, next(numbers), 1)
        done = command("wait", both.source.path, "--transaction", "current")
        return f"transaction {int(shown_by_debugfs(both.source)[-1]):,} is held" in done.output

    with loop_device(tmp_path, 96 * MIB) as device:
        run("mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", device.path, "12288")  # half of the device
        with cluster(tmp_path / "c", device, primary_options=("--whole-device",)) as both:
            start(both)
            with mounted(device, tmp_path / "mnt") as folder:
                fsyncs(folder, 100, 30)
                until(lambda: last_is_held(both, folder), "the log is followed")
                first = int(told(device)[-1]["transaction"])
            # Not mounted: a container, in which these tests may run, has no CAP_SYS_RESOURCE, which ext4 asks for.
            run("e2fsck", "-f", "-p", device.path)
            run("resize2fs", device.path)
            with mounted(device, tmp_path / "mnt") as folder:
                until(lambda: last_is_held(both, folder), "a file system that grew keeps its log, and a mount goes on")
                assert int(told(device)[-1]["transaction"]) > first
            run("tune2fs", "-O", "^has_journal", device.path)
            run("tune2fs", "-J", "size=8", device.path)
            with mounted(device, tmp_path / "mnt") as folder:
                until(lambda: last_is_held(both, folder), "the new journal is followed")
                assert reason(both) == ""
            both.wait()
            both.compare("after a grow and another journal")


@pytest.mark.variant
def test_the_transactions_of_a_running_controller_are_followed_line_by_line(tmp_path: Path) -> None:
    numbers = itertools.count(10)
    with loop_device(tmp_path, 64 * MIB) as device:
        make_filesystem("ext4", device.path)
        with cluster(tmp_path / "c", device) as both, mounted(device, tmp_path / "mnt") as folder:
            start(both)
            fsyncs(folder, 0, 3)
            both.wait()
            words = [*PROGRAM, "transactions", device.path, "--follow", "--json"]
            with load() as running, subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as following:
                running.add(lambda: fsyncs(folder, next(numbers), 1), 0.05)
                try:
                    assert following.stdout is not None
                    lines = [json.loads(following.stdout.readline()) for _ in range(10)]
                finally:
                    following.kill()
            names = [int(one["transaction"]) for one in lines]
            assert names == list(range(names[0], names[0] + 10)), "each once, in order"
            assert {one["state"] for one in lines} == {"done"}
            kept = {one["transaction"]: one for one in told(device)}
            assert all(kept[one["transaction"]]["changed"] == one["changed"] for one in lines)
            parts = command("transactions", device.path, "--transaction", str(list(kept)[-1]))
            assert parts.code == 0 and "metadata of the file system: inodes" in parts.output, parts

"""The file systems' own tracepoints agree: each commit is told once, and a promoted replica holds exactly those that it names."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.test_transactions import KINDS, MIB, fsyncs, names_of, start, told
from tests.lab.cluster import cluster
from tests.lab.disks import loop_device, make_filesystem, mounted
from tests.lab.patience import run, until
from tests.lab.programs import command
from tests.lab.rounds import short
from tests.lab.tracepoints import TracedCommit, traced


def order_of(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.split("[:.]", name)))


@pytest.mark.usefixtures("any_size_of_log")
@pytest.mark.parametrize(("kind", "made", "mount", "count"), short(2, *KINDS))
def test_every_commit_that_the_kernel_traces_is_told_once_and_in_order(
    tmp_path: Path, kind: str, made: tuple[str, ...], mount: tuple[str, ...], count: int
) -> None:
    with loop_device(tmp_path, (320 if kind == "xfs" else 64) * MIB) as device:
        make_filesystem(kind, device.path, *made)
        with cluster(tmp_path / "c", device) as both, traced(device, kind) as trace:
            start(both)
            with mounted(device, tmp_path / "mnt", *mount) as folder:
                fsyncs(folder, 0, 10)
                assert command("wait", device.path, "--transaction", "current").code == 0
                fsyncs(folder, 10, min(count, 100))

                def agree() -> bool:
                    """The file system may commit by itself between the two questions."""
                    ours = [name for name in names_of(told(device)) if "." not in name]
                    theirs = [one.name for one in trace.commits() if one.ended_at is not None]
                    assert len(set(ours)) == len(ours) or kind == "xfs", ours
                    ours = list(dict.fromkeys(ours))
                    return len(ours) >= min(50, len(theirs) - 1) and ours == theirs[-len(ours) :]

                until(agree, "both tell the same commits")
                logged = {one.name: one.logged_blocks for one in trace.commits()}
                block_bytes = os.statvfs(folder).f_bsize
                for one in told(device) if kind == "ext4" else []:
                    counted = logged.get(one["transaction"])
                    if counted is not None:  # jbd2 counts neither the commit nor blocks of revokes
                        assert 0 <= one["log_bytes"] // block_bytes - counted <= 3, (one, counted)


@dataclass(frozen=True, slots=True)
class Note:
    """A file that was there when its fsync returned."""

    name: str
    content: bytes
    begun_at: float
    synced_at: float


class Writer(threading.Thread):
    """New files, each synced and noted, until it is told to end."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__()
        self._folder, self._chance = folder, chance
        self.notes: list[Note] = []
        self.problem: BaseException | None = None
        self.ends = threading.Event()

    def run(self) -> None:
        try:
            while not self.ends.is_set():
                name, content = f"note{len(self.notes)}", self._chance.randbytes(self._chance.randrange(1, 20_000))
                begun_at = time.monotonic()
                descriptor = os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                try:
                    os.write(descriptor, content)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self.notes.append(Note(name, content, begun_at, time.monotonic()))
        except BaseException as error:
            self.problem = error


def expected(notes: list[Note], commits: list[TracedCommit], newest: str) -> tuple[dict[str, bytes], set[str]]:
    """Files that an image at this transaction has, and those that it may have or not: their commit is not known exactly."""
    named = order_of(newest)
    has: dict[str, bytes] = {}
    perhaps: set[str] = set()
    for note in notes:
        at_once = [one for one in commits if one.ended_at is not None and one.ended_at <= note.synced_at]
        if at_once and order_of(at_once[-1].name) <= named:
            has[note.name] = note.content
            continue
        before = [one for one in commits if one.ended_at is not None and one.ended_at <= note.begun_at]
        if before and order_of(before[-1].name) < named:
            perhaps.add(note.name)  # begun before that transaction has ended
    return has, perhaps


@pytest.mark.parametrize("kind", ["ext4", *short(0, "xfs")])
def test_after_kills_at_random_the_promoted_replica_holds_exactly_the_transaction_that_it_names(
    tmp_path: Path, kind: str, chance: random.Random
) -> None:
    with loop_device(tmp_path, (320 if kind == "xfs" else 128) * MIB) as device:
        make_filesystem(kind, device.path)
        with cluster(tmp_path / "c", device) as both, traced(device, kind) as trace:
            start(both)
            with mounted(device, tmp_path / "mnt") as folder:
                writer = Writer(folder, chance)
                writer.start()
                try:
                    until(lambda: len(writer.notes) >= 20, "some files are synced")
                    for _ in range(chance.randrange(3)):  # either side comes back once or twice first
                        time.sleep(chance.random())
                        (both.secondary if chance.random() < 0.5 else both.primary).kill()
                        if both.secondary.alive:
                            both.start_primary()
                        else:
                            both.start_secondary()
                        both.wait()
                    so_far = len(writer.notes)
                    until(lambda: len(writer.notes) >= so_far + 20, "more files are synced")
                    time.sleep(chance.random())
                    first, second = chance.sample([both.secondary, both.primary], 2)
                    first.kill()
                    time.sleep(chance.random() / 5)
                    second.kill()
                finally:
                    writer.ends.set()
                    writer.join()
                assert writer.problem is None, writer.problem
                commits = trace.commits()
            outcome = command("promote", both.target, "--state", both.secondary_state, "--force", timeout_s=120)
            assert outcome.code == 0, outcome
            line = re.search(rf"last transaction that it holds whole is {kind} ([\d,.:]+)", outcome.output)
            assert line is not None, outcome.output
            newest = line[1].rstrip(",").replace(",", "")
            copy = tmp_path / "copy.img"
            run("cp", "--sparse=always", both.target, copy)
        assert json.loads(command("transactions", copy, "--json").output)["last_whole"] == newest
        if kind == "ext4":
            assert subprocess.run(["e2fsck", "-fy", copy], capture_output=True, timeout=120).returncode in (0, 1)
            assert subprocess.run(["e2fsck", "-fn", copy], capture_output=True, timeout=120).returncode == 0
        with mounted(copy, tmp_path / "look") as folder:
            there = {path.name: path.read_bytes() for path in folder.glob("note*")}
        has, perhaps = expected(writer.notes, commits, newest)
        assert has and has.items() <= there.items(), (newest, sorted(has.keys() - there.keys()))
        late = there.keys() - has.keys() - perhaps - {f"note{len(writer.notes)}"}
        assert not late, f"of transactions behind {newest}: {sorted(late)}"
        if kind == "xfs":
            assert subprocess.run(["xfs_repair", "-n", copy], capture_output=True, timeout=120).returncode == 0

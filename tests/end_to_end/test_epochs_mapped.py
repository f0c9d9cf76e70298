"""Addresses only, on device-mapper volumes without LVM: their table is put aside for a snapshot, and comes back whatever happens.

These need device-mapper: ``scripts/vm run tests/end_to_end/test_epochs_mapped.py`` where the kernel has none.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydbt.controller.registry import claimed_space
from pydbt.device import commands, mapper
from pydbt.device.commands import CommandFailed
from pydbt.device.mapped import SnapshotSpace, mapped_volume
from pydbt.device.snapshot import problem_of
from pydbt.device.sysfs import BlockDevice
from tests.end_to_end.images import epochs
from tests.end_to_end.test_epochs_lvm import (  # noqa: F401
    LEISURELY,
    MIB,
    PACE_S,
    SIZE,
    SLOW,
    by_epochs,
    compare_epochs,
    overflow,
    pytestmark,
    replicate_and_kill,
)
from tests.lab.cluster import Cluster
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.images import check_image
from tests.lab.load import Database, load
from tests.lab.patience import run, until
from tests.lab.programs import command

SECTORS = SIZE // 512
PROJECT = Path(__file__).parents[2]


@contextlib.contextmanager
def volume(folder: Path, kind: str = "linear", space_bytes: int = 16 * MIB) -> Iterator[tuple[str, Device, Device]]:
    """``linear``, in two pieces with the second before the first, or ``striped``: (its name, the volume, a device as space)."""
    name, half = f"pydbttest{os.urandom(3).hex()}", SECTORS // 2
    with (
        loop_device(folder, SIZE + MIB) as disk,
        loop_device(folder, SIZE) as other,
        loop_device(folder, space_bytes) as space,
    ):
        table = (
            f"0 {half} linear {disk.path} {half + 24}\n{half} {half} linear {disk.path} 8\n"
            if kind == "linear"
            else f"0 {SECTORS} striped 2 64 {disk.path} 24 {other.path} 0\n"
        )
        subprocess.run(["dmsetup", "create", name], input=table, text=True, check=True)
        try:
            yield name, Device(Path(os.path.realpath(f"/dev/mapper/{name}"))), space
        finally:
            run("dmsetup", "remove", "--retry", name, check=False)


def left() -> list[str]:
    """Devices of a snapshot that stands."""
    return [line.split()[0] for line in run("dmsetup", "ls").splitlines() if line.startswith("pydbt_")]


def write(device: Device, data: bytes) -> None:
    """At its beginning."""
    descriptor = os.open(device.path, os.O_RDWR)
    os.pwrite(descriptor, data, 0)
    os.fsync(descriptor)
    os.close(descriptor)


def table(name: str) -> str:
    return run("dmsetup", "table", name)


def until_it_stands(both: Cluster, name: str) -> None:
    until(lambda: len(left()) == 2 and "snapshot-origin" in table(name), f"a snapshot stands {epochs(both)}")


@pytest.mark.parametrize("kind", ["linear", "striped"])
def test_the_replica_of_a_volume_that_never_rests_is_an_image_of_one_instant(tmp_path, kind, chance, rounds):
    with volume(tmp_path, kind) as (name, device, space):
        before = table(name)
        with by_epochs(tmp_path / "c", device, "--snapshot-space", space.path) as both:
            replicate_and_kill(both, device, "snapshot", chance, rounds)
            assert (table(name), left()) == (before, [])


def test_the_replica_at_an_epoch_is_the_volume_at_that_moment_bit_for_bit(tmp_path, chance):
    with contextlib.ExitStack() as stack:
        _, device, space = stack.enter_context(volume(tmp_path))
        options = ("--snapshot-space", space.path, "--epoch-interval", "1h", *LEISURELY)
        both = stack.enter_context(by_epochs(tmp_path / "c", device, *options))
        compare_epochs(both, device, "snapshot", chance)


def test_a_controller_killed_while_a_snapshot_stands_leaves_a_mounted_volume_that_works_and_is_as_it_was_after_the_next(
    tmp_path, chance
):
    with volume(tmp_path) as (name, device, space):
        before = table(name)
        make_filesystem("ext4", device.path)
        with by_epochs(tmp_path / "c", device, "--snapshot-space", space.path, *SLOW) as both:
            with mounted(device, tmp_path / "mnt") as folder, contextlib.ExitStack() as stack:
                both.start()
                both.until_mode("epochs")
                database = Database(folder / "db", chance.randrange(1 << 30))
                stack.callback(database.close)
                promised = database.committed
                both.wait()
                for end in ("run", "down"):
                    with load() as running:
                        running.add(database, PACE_S)
                        (folder / end).write_bytes(os.urandom(3 * MIB))
                        until_it_stands(both, name)
                        both.primary.kill()
                        assert "snapshot-origin" in table(name)
                        written = database.committed
                        until(lambda written=written: database.committed > written + 5, "the file system works")
                    if end == "run":
                        both.secondary.kill()
                        check_image("ext4", both.snapshot("snapshot"), tmp_path / "look", "db", promised)
                        both.start()
                        assert "had left a snapshot; it is removed" in both.primary.words()
                        promised = database.committed
                        both.wait()
                    else:
                        assert command("down", "--state", both.primary_state).code == 0
                        assert (table(name), left()) == (before, [])
                both.start_primary()
            both.wait()
            both.compare("at rest")
            both.primary.terminate()
            assert (table(name), left()) == (before, [])


def test_the_links_of_a_file_system_go_on_leading_to_its_volume_while_a_snapshot_stands(tmp_path):
    """A mount by UUID, or a service manager that watches the link, must not meet the snapshot."""
    with volume(tmp_path) as (_, device, space):
        make_filesystem("ext4", device.path)
        run("udevadm", "trigger", "--settle", device.path)
        link = Path("/dev/disk/by-uuid", run("blkid", "-p", "-s", "UUID", "-o", "value", device.path).strip())
        assert link.resolve() == device.path, "udev is not at work here"
        snapshot = mapped_volume(BlockDevice.identify(device.path), "pydbt_test", SnapshotSpace.of(space.path))
        try:
            for _ in range(3):
                snapshot.take()
                for _ in range(2):
                    run("udevadm", "settle")
                    assert link.resolve() == device.path
                    run("udevadm", "trigger", "--settle", "--subsystem-match=block")
                snapshot.remove_leftover()
                run("udevadm", "settle")
                assert link.resolve() == device.path
        finally:
            snapshot.remove_leftover()


def test_a_snapshot_whose_store_is_full_discards_its_epoch(tmp_path, chance):
    with volume(tmp_path, space_bytes=2 * MIB) as (name, device, space):
        before = table(name)
        with by_epochs(tmp_path / "c", device, "--snapshot-space", space.path, *SLOW) as both:
            overflow(both, device, chance)
            both.primary.terminate()
        assert (table(name), left()) == (before, [])


def test_the_mappings_of_a_killed_run_are_removed_by_down_though_the_volume_is_gone(tmp_path):
    with contextlib.ExitStack() as stack:
        name, device, space = stack.enter_context(volume(tmp_path))
        both = stack.enter_context(by_epochs(tmp_path / "c", device, "--snapshot-space", space.path, *SLOW))
        both.start()
        both.wait()
        write(device, os.urandom(3 * MIB))
        until_it_stands(both, name)
        both.primary.kill()
        run("dmsetup", "remove", "--retry", name)
        assert len(left()) == 2
        command("down", "--state", both.primary_state)
        assert not left()


KILLED_AFTER_REQUEST = """
import os, sys
from pydbt.device import suspender

class Mapper(suspender.Mapper):
    left = int(sys.argv.pop(1))

    def _ask(self, *words):
        answer = super()._ask(*words)
        Mapper.left -= 1
        if not Mapper.left:
            os.kill(os.getpid(), 9)
        return answer

suspender.Mapper = Mapper
sys.exit(suspender.main(sys.argv[1:]))
"""


class Killed(BaseException):
    """As SIGKILL, nothing is tidied up after it."""


@pytest.mark.parametrize("work", ["take", "remove_leftover"])
def test_at_whatever_step_a_controller_is_killed_the_volume_is_as_it_was_after_the_next(tmp_path, monkeypatch, work):
    """After each command, and after each request of the process that suspends the volume: suspended, or with the other table."""
    with volume(tmp_path) as (name, device, space):
        before = table(name)
        write(device, os.urandom(MIB))
        content = device.contents().tobytes()
        snapshot = mapped_volume(BlockDevice.identify(device.path), "pydbt_test", SnapshotSpace.of(space.path))
        seen = set()

        def runs_through(patch: Callable[[pytest.MonkeyPatch], None]) -> bool:
            """Whether the work came to its end in spite of it all; the volume is as it was in any case."""
            if work == "remove_leftover":
                snapshot.take()
            ended = False
            with monkeypatch.context() as patched, contextlib.suppress(Killed, CommandFailed):
                patch(patched)
                getattr(snapshot, work)()
                ended = True
            seen.add(
                ("suspended" if "SUSPENDED" in run("dmsetup", "info", name) else "working", table(name).split()[2])
            )
            snapshot.remove_leftover()
            assert "SUSPENDED" not in run("dmsetup", "info", name)
            assert "INACTIVE" not in run("dmsetup", "info", name)
            assert (table(name), left()) == (before, [])
            assert device.contents().tobytes() == content
            assert not snapshot.remove_leftover()
            return ended

        def after_commands(count: int, patched: pytest.MonkeyPatch) -> None:
            calls = itertools.count(1)

            def run_command(*words: str, **more: object) -> str:
                said = commands.run_command(*words, **more)
                if next(calls) == count:
                    raise Killed
                return said

            patched.setattr(mapper, "run_command", run_command)

        def after_requests(count: int, patched: pytest.MonkeyPatch) -> None:
            def suspender(*words: str) -> None:
                if words[0] == "hidden":
                    original(*words)
                elif subprocess.run(
                    [sys.executable, "-c", KILLED_AFTER_REQUEST, str(count), *words], cwd=PROJECT
                ).returncode:
                    raise Killed

            original = mapper._suspender
            patched.setattr(mapper, "_suspender", suspender)

        for kill_after in (after_commands, after_requests):
            counts = itertools.count(1)
            while not runs_through(functools.partial(kill_after, count := next(counts))):
                assert count < 60, "it fails for another reason"
            assert count > 3, "it was not killed anywhere"
        assert ("suspended", "linear" if work == "take" else "snapshot-origin") in seen


def test_a_snapshot_that_cannot_be_made_leaves_the_volume_as_it_was(tmp_path):
    with volume(tmp_path) as (name, device, space):
        before = table(name)
        snapshot = mapped_volume(BlockDevice.identify(device.path), "pydbt_test", SnapshotSpace.of(space.path))
        holder = os.open(space.path, os.O_RDWR | os.O_EXCL)
        try:
            with pytest.raises(CommandFailed):
                snapshot.take()
        finally:
            os.close(holder)
        assert "SUSPENDED" not in run("dmsetup", "info", name)
        assert table(name) == before
        snapshot.remove_leftover()
        assert (table(name), left()) == (before, [])
        image = snapshot.take()
        assert image.size_bytes == SIZE
        write(device, b"later")
        assert Device(Path(image.path)).contents()[:5].tobytes() == bytes(5)
        snapshot.remove_leftover()
        assert (table(name), left()) == (before, [])
        assert device.contents()[:5].tobytes() == b"later"


def test_a_table_that_somebody_else_changed_is_left_alone_and_the_snapshot_counts_for_nothing(tmp_path):
    """As kpartx does when its disk says that something changed; and somebody who moves a volume."""
    with loop_device(tmp_path, SIZE) as other, volume(tmp_path) as (name, device, space):
        before, moved = table(name), f"0 {SECTORS} linear {other.path} 0"
        snapshot = mapped_volume(BlockDevice.identify(device.path), "pydbt_test", SnapshotSpace.of(space.path))
        snapshot.take()
        assert problem_of(snapshot) == ""
        subprocess.run(["dmsetup", "load", name], input=before, text=True, check=True)
        run("dmsetup", "suspend", name)
        run("dmsetup", "resume", name)
        assert "changed the table" in problem_of(snapshot)
        snapshot.remove_leftover()
        assert (table(name), left()) == (before, [])

        run("dmsetup", "load", name, "--table", moved)
        with pytest.raises(CommandFailed, match="another program has loaded a table"):
            snapshot.take()
        run("dmsetup", "suspend", name)
        with pytest.raises(CommandFailed, match="another program has loaded a table"):
            snapshot.take()
        run("dmsetup", "resume", name)
        assert table(name).split()[2:3] == ["linear"] and len(table(name).splitlines()) == 1
        run("dmsetup", "suspend", name)
        with pytest.raises(CommandFailed, match="suspended by another program"):
            snapshot.take()
        assert "SUSPENDED" in run("dmsetup", "info", name)
        run("dmsetup", "resume", name)
        snapshot.remove_leftover()
        assert not left()


def test_the_chosen_readahead_of_a_volume_is_there_after_a_snapshot(tmp_path):
    with volume(tmp_path) as (_, device, space):
        run("blockdev", "--setra", "1024", device.path)
        snapshot = mapped_volume(BlockDevice.identify(device.path), "pydbt_test", SnapshotSpace.of(space.path))
        seen = []
        for change in (snapshot.take, snapshot.remove_leftover):
            change()
            seen.append(run("blockdev", "--getra", device.path).strip())
        assert seen == ["1024", "1024"]


def test_the_mappings_of_a_killed_run_are_removed_by_the_next_run_whatever_its_state_directory(tmp_path):
    with volume(tmp_path) as (name, device, space):
        before = table(name)
        mapped_volume(BlockDevice.identify(device.path), "pydbt_test", SnapshotSpace.of(space.path)).take()
        start = ("--secondary", "127.0.0.1:1", "--insecure", "--state", tmp_path / "state", "--capture", "addresses",
                 "--no-wait")  # fmt: skip
        assert command("run", device.path, *start).code == 5, "there is no secondary"
        assert (table(name), left()) == (before, [])


def test_a_device_for_snapshots_that_cannot_serve_is_refused_in_one_sentence(tmp_path):
    with (
        volume(tmp_path) as (name, device, space),
        loop_device(tmp_path, SIZE) as disk,
        loop_device(tmp_path, MIB // 2) as small,
    ):
        start = ("--secondary", "127.0.0.1:1", "--insecure", "--state", tmp_path / "state", "--capture", "addresses")

        def refused(source: object, room: object, code: int, words: str) -> None:
            command("run", source, *start, "--snapshot-space", room).refused(code, words)

        refused(disk.path, space.path, 2, "is not a device-mapper volume")
        refused(device.path, tmp_path / "none", 2, "does not exist")
        refused(device.path, small.path, 2, "less than 1 MiB")
        refused(device.path, device.path, 2, "itself lies on that")
        below = run("dmsetup", "deps", "-o", "blkdevname", name).split("(")[1].split(")")[0]
        refused(device.path, f"/dev/{below}", 2, "itself lies on that")
        run("dmsetup", "create", f"{name}part", "--table", f"0 {4 * MIB // 512} linear {device.path} 0")
        try:
            refused(device.path, f"/dev/mapper/{name}part", 2, "would wait for itself")
        finally:
            run("dmsetup", "remove", "--retry", f"{name}part")
        with claimed_space(BlockDevice.identify(space.path), BlockDevice.identify(disk.path)):
            refused(device.path, space.path, 4, "in use by another controller")
            command("layer", "create", disk.path, name + "l", "--snapshot-space", space.path).refused(
                4, "for snapshots"
            )
        read_only = f"{name}r"
        run("dmsetup", "create", read_only, "--readonly", "--table", f"0 2048 linear {disk.path} 0")
        try:
            refused(f"/dev/mapper/{read_only}", space.path, 2, "is read-only")
        finally:
            run("dmsetup", "remove", "--retry", read_only)
        make_filesystem("ext4", space.path)
        with mounted(space, tmp_path / "mnt"):
            refused(device.path, space.path, 4, "is mounted at")
        run("dmsetup", "create", f"{name}z", "--table", f"0 {SECTORS} zero")
        try:
            refused(f"/dev/mapper/{name}z", space.path, 2, "a device-mapper volume of zero")
        finally:
            run("dmsetup", "remove", "--retry", f"{name}z")
        assert not left()


@pytest.fixture(autouse=True)
def nothing_of_it_is_left() -> Iterator[None]:
    yield
    assert "pydbt" not in run("dmsetup", "ls", check=False)

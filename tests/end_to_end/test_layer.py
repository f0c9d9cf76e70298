"""A layer on a raw disk, made before it is mounted: it passes everything through, gives snapshots, and goes without a trace.

These need device-mapper: ``scripts/vm run tests/end_to_end/test_layer.py`` where the kernel has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.device import layer as device_layer
from pydbt.device import mapper
from pydbt.device.era import era_layer_of
from pydbt.device.sysfs import BlockDevice
from tests.end_to_end.images import epochs
from tests.end_to_end.test_epochs_lvm import PACE_S, by_epochs, pytestmark  # noqa: F401
from tests.lab.disks import Device, loop_device, make_filesystem, mounted
from tests.lab.images import check_image
from tests.lab.load import Database, load
from tests.lab.patience import run, until
from tests.lab.programs import command

MIB = 1 << 20
SIZE = 32 * MIB


@contextlib.contextmanager
def layered(folder: Path) -> Iterator[tuple[str, Device, Device]]:
    """(the layer's name, the disk below it, the layer)."""
    name = f"pydbttest{os.urandom(3).hex()}"
    with loop_device(folder, SIZE) as disk, loop_device(folder, 16 * MIB) as space:
        made = command("layer", "create", disk.path, name, "--snapshot-space", space.path)
        assert made.code == 0, made
        try:
            yield name, disk, Device(Path(os.path.realpath(made.output.strip())))
        finally:
            for left in (f"{name}-pydbt-snapshot", name, f"{name}-space"):
                subprocess.run(["dmsetup", "remove", "--retry", left], capture_output=True)


def test_a_layer_gives_a_raw_disk_epochs_from_snapshots(tmp_path, chance):
    with layered(tmp_path) as (name, disk, layer):
        make_filesystem("ext4", layer.path)
        with by_epochs(tmp_path / "c", layer) as both, contextlib.ExitStack() as mounts:
            folder = mounts.enter_context(mounted(layer, tmp_path / "mnt"))
            both.start()
            with contextlib.ExitStack() as stack, load() as running:
                database = Database(folder / "db", chance.randrange(1 << 30))
                stack.callback(database.close)
                running.add(database, PACE_S)
                until(lambda: epochs(both)["kind"] == "snapshot", "an epoch from a snapshot")
                promised = database.committed
                both.wait()
                both.primary.kill()
                both.secondary.kill()
                check_image("ext4", both.snapshot("snapshot"), tmp_path / "look", "db", promised)
                both.start()
                both.wait()
            command("layer", "remove", name).refused(4, "is in use")
            mounts.close()
            both.wait()
            both.compare("at rest")
            assert command("down", "--state", both.primary_state).code == 0
        disk.flush()
        below = hashlib.sha256(disk.contents()).hexdigest()
        removed = command("layer", "remove", name)
        assert removed.code == 0, removed
        assert name not in run("dmsetup", "ls")
        assert hashlib.sha256(disk.contents()).hexdigest() == below
        command("layer", "remove", name).refused(2, "is not a layer")


def test_a_device_in_use_gets_no_layer_and_one_sentence_names_the_reason(tmp_path):
    with loop_device(tmp_path, SIZE) as disk, loop_device(tmp_path, SIZE) as other:
        make_filesystem("ext4", disk.path)
        with mounted(disk, tmp_path / "mnt"):
            create = ("layer", "create")
            command(*create, disk.path, "x", "--snapshot-space", other.path).refused(4, "is mounted at")
            command(*create, other.path, "x", "--snapshot-space", disk.path).refused(4, "is mounted at")
        command(*create, disk.path, "x", "--snapshot-space", disk.path).refused(2, "itself")
        command(*create, disk.path, "x").refused(2, "--snapshot-space DEVICE, or --era METADATA_DEVICE")
        command(*create, disk.path, "x", "--era-region", "64K", "--snapshot-space", other.path).refused(
            2, "give both, or neither"
        )
        command(*create, disk.path, "x", "--era", disk.path).refused(2, "itself")
        command(*create, disk.path, "x", "--era", other.path, "--snapshot-space", other.path).refused(2, "itself")
        command(*create, disk.path, "a/b", "--snapshot-space", other.path).refused(2, "not a name for a layer")
        command(*create, disk.path, "x", "--snapshot-space", tmp_path / "none").refused(2, "does not exist")
        assert not {"x", "x-space", "x-era", "x-era-metadata"} & set(run("dmsetup", "ls").split())
        command("layer", "remove", "nothing").refused(2, "is not a layer")


def test_a_layer_with_eras_goes_on_with_what_was_recorded_and_lets_no_discard_through(tmp_path):
    name = f"pydbttest{os.urandom(3).hex()}"
    with (
        loop_device(tmp_path, SIZE) as disk,
        loop_device(tmp_path, SIZE) as metadata,
        loop_device(tmp_path, SIZE) as space,
    ):
        create = ("layer", "create", disk.path, name, "--era", metadata.path, "--snapshot-space", space.path)
        identity = ""
        try:
            for number, era_region in enumerate((("--era-region", "4K"), (), ("--era-region", "4K"))):
                made = command(*create, *era_region)
                assert made.code == 0, made
                layer = BlockDevice.identify(made.output.strip())
                eras = era_layer_of(layer)
                identity = identity or eras.metadata
                assert (eras.metadata, eras.region_bytes) == (identity, 4096)
                if not number:
                    before = eras.checkpoint()
                    run("dd", "if=/dev/zero", f"of={layer.path}", "bs=4096", "count=1", "seek=5", "oflag=direct")
                    since = eras.checkpoint()
                    assert since > before
                    run("dd", "if=/dev/zero", f"of={layer.path}", "bs=8192", "count=1", "seek=50", "oflag=direct")
                    assert subprocess.run(["blkdiscard", layer.path], capture_output=True).returncode, (
                        "a discard went through"
                    )
                # Also after it was taken away and made again, as after a boot.
                assert eras.now().era >= since
                assert eras.written_since(before).tolist() == [[5, 6], [100, 102]]
                assert eras.written_since(since).tolist() == [[100, 102]]
                snapshot = device_layer.layer_of(layer).take()
                assert snapshot.size_bytes == SIZE
                removed = command("layer", "remove", name)
                assert removed.code == 0, removed
                assert name not in run("dmsetup", "ls")
            command(*create, "--era-region", "64K").refused(2, "regions of 4096 bytes")
            command("layer", "create", space.path, name, "--era", metadata.path).refused(2, "another disk")
            assert name not in run("dmsetup", "ls")
        finally:
            subprocess.run(["dmsetup", "remove", "--retry", f"{name}-pydbt-snapshot"], capture_output=True)
            command("layer", "remove", name)


def test_a_suspended_layer_goes_on_with_the_next_command(tmp_path):
    """As a machine's service manager leaves it that kills everything in the middle of taking a snapshot."""
    with layered(tmp_path) as (name, _, layer):
        mapper.create_hidden(f"{name}-pydbt-snapshot", f"PYDBT-SNAPSHOT-{name}", [["0", str(SIZE // 512), "zero"]])
        run("dmsetup", "suspend", name)
        try:
            state = tmp_path / "state"
            run_command = ("run", layer.path, "--secondary", "unix:/nonexistent", "--state", state, "--capture", "addresses",
                           "--no-wait")  # fmt: skip
            assert command(*run_command).code == 5, "there is no secondary"
            assert "SUSPENDED" not in run("dmsetup", "info", name)
        finally:
            subprocess.run(["dmsetup", "resume", name], capture_output=True)


@pytest.fixture(autouse=True)
def nothing_of_it_is_left() -> Iterator[None]:
    yield
    assert "pydbttest" not in run("dmsetup", "ls", check=False)

"""Completeness, told by somebody else: what dm-log-writes logged of a device is what was captured, and the replica"""

from __future__ import annotations

import json
from collections import Counter

import pytest
import xxhash

from tests.vm.conftest import FULL, long
from tests.vm.guest_capture import MIB
from tests.vm.kinds import Ability, needs
from tests.vm.machine import TREE
from tests.vm.site import MOUNT, Site, Volume, copy_image
from tests.vm.write_log import END, Kind, WriteLog

SIZE = 320 * MIB
pytestmark = [needs(Ability.IMAGES), pytest.mark.variant]
DEVICE = "/dev/mapper/logged"
FILESYSTEMS = ("mkfs.ext4 -q -F", *long("mkfs.xfs -q -f", "mkfs.ext4 -q -F -b 1024"))


@pytest.fixture
def device(machines):
    """The beginning of the disk ``data`` under dm-log-writes, empty and with an empty log."""
    primary = machines.primary
    for disk in ("data", "log"):
        primary.run(f"blkdiscard -f {primary.device(disk)}")
    table = f"0 {SIZE // 512} log-writes {primary.device('data')} {primary.device('log')}"
    primary.run(
        f"modprobe dm-log-writes && dmsetup create logged --table '{table}' && udevadm settle && mkdir -p {MOUNT}"
    )
    yield DEVICE
    primary.run(f"umount {MOUNT}", check=False)
    primary.run("dmsetup remove --retry logged", check=False)
    for machine in machines.both:
        machine.run(f"blkdiscard -f {machine.device('data')}")


def finished_log(machine):
    """Removing the target writes the rest of the log."""
    machine.run("dmsetup remove --retry logged && sync")
    return WriteLog(machine.disks["log"].path)


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("mkfs", FILESYSTEMS)
def test_every_write_and_discard_that_was_logged_was_captured_with_its_data_and_no_other(
    machines, device, chance, mkfs, tmp_path
):
    primary = machines.primary
    steps = 1500 if FULL else 250
    program = f"cd {TREE} && .venv/bin/python -m tests.vm.guest_capture {DEVICE} '{mkfs}' {MOUNT}"
    primary.run(f"{program} {chance.randrange(1 << 30)} {steps} /root/captured.json", timeout=3600)
    primary.get("/root/captured.json", tmp_path / "captured.json")
    captured = json.loads((tmp_path / "captured.json").read_text())
    log = finished_log(primary)
    writes, fua = Counter(), 0
    for entry in log:
        if not entry.sectors:
            continue
        fua += bool(entry.kind & Kind.FUA)
        digest = xxhash.xxh3_128(log.data(entry)).hexdigest() if entry.has_data else None
        writes[entry.sector, entry.sectors, digest] += 1
    ours = Counter(tuple(write) for write in captured["writes"])
    discards = sum(count for (_, _, digest), count in writes.items() if digest is None)
    print(f"{writes.total()} writes logged, {discards} of them discards, {fua} with FUA; {ours.total()} captured")
    assert captured["lost"] == 0
    assert captured["captured_sectors"] == captured["kernel_sectors"], "the kernel's own count of the device"
    assert not (missing := writes - ours), f"{missing.total()} logged and not captured: {list(missing)[:10]}"
    assert not (extra := ours - writes), f"{extra.total()} captured and not logged: {list(extra)[:10]}"
    assert discards > 5 and fua > 5 and writes.total() > 300


@pytest.mark.timeout(2 * 3600)
@pytest.mark.parametrize("mkfs", FILESYSTEMS)
def test_at_every_mark_the_replica_is_what_the_log_says_up_to_there(machines, device, chance, mkfs, tmp_path):
    primary, secondary = machines.both
    site = Site(machines, Volume(DEVICE, ((0, SIZE),)), "--whole-device")
    primary.run(f"{mkfs} {DEVICE}")
    site.mount()
    images = {}
    try:
        site.start_secondary()
        site.start_primary()
        site.until("the first copy is complete", mode="normal")
        for mark in [f"mark{number}" for number in range(6 if FULL else 2)]:
            site.start_load(chance)
            site.until_steps(chance.randrange(10, 60))
            site.stop_load()
            # A mark has before it what was flushed before: so everything is. XFS writes metadata back whenever it likes,
            # also after a sync, and not while it is frozen.
            primary.run(f"fsfreeze -f {MOUNT} && python3 -c 'import os; os.fsync(os.open(\"{DEVICE}\", os.O_RDONLY))'")
            site.wait()
            primary.run(f"dmsetup message logged 0 mark {mark}")
            site.until_applied()
            secondary.run("sync")
            images[mark] = copy_image(secondary, tmp_path / mark)
            primary.run(f"fsfreeze -u {MOUNT}")
        site.unmount()
    finally:
        site.close()
    log, image, at = finished_log(primary), bytearray(SIZE), 0
    for mark, replica in images.items():
        at = log.replay(image, at, mark)
        theirs = replica.read_bytes()
        differing = [
            block
            for block in range(SIZE // 4096)
            if image[block * 4096 : (block + 1) * 4096] != theirs[block * 4096 : (block + 1) * 4096]
        ]
        assert not differing, f"at {mark} (entry {at}): {len(differing)} blocks differ, the first are {differing[:20]}"
    print(f"{log.entries} entries, marks {list(images)}")
    log.replay(image, at, END)
    with primary.disks["data"].path.open("rb") as device_now:
        assert image == device_now.read(SIZE), "the log itself is not the device: the oracle would prove nothing"

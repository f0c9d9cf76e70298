"""One volume replicated from one machine to the other: what a test does to it, and what it sees from outside.

Disks of machines are files of the host: both images are compared there, byte by byte, whatever the machines' own
caches and programs say of them.
"""

from __future__ import annotations

import json
import random
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.lab.images import differing_blocks
from tests.lab.patience import run
from tests.vm.guest_digests import DIGEST_BYTES
from tests.vm.machine import IDENTITY, TREE, Machine
from tests.vm.over_ssh import LentDisk
from tests.vm.pair import Pair

SECTOR_BYTES = 512
BLOCK_BYTES = 4096
PORT = 7790
STATE_DISK = "/var/lib/pydbt"
STATE = f"{STATE_DISK}/test"
MOUNT = "/mnt/volume"
# It bounds a hang, and measures nothing: machines are emulated, on processors that others use as well.
PATIENCE_S = 1200.0


@dataclass(frozen=True, slots=True)
class Volume:
    """A block device in the primary, and where its sectors lie in the image of the disk ``data``: (offset, length) in bytes."""

    path: str
    segments: tuple[tuple[int, int], ...]

    @property
    def size_bytes(self) -> int:
        return sum(length for _, length in self.segments)


def make_volume(machine: Machine, kind: str) -> Volume:
    """Of the disk ``data``: the ``disk`` itself, a ``partition``, a dm-``linear`` or ``lvm`` volume, an ``md`` mirror."""
    disk = machine.device("data")
    match kind:
        case "disk":
            return Volume(disk, ((0, machine.disks["data"].size_bytes),))
        case "partition":  # neither its start nor its size is a multiple of 4 KiB
            sectors = 340 * 2048 + 1
            machine.run(_partitions(disk, (2049, sectors)))
            return Volume(f"{disk}-part1", ((2049 * SECTOR_BYTES, sectors * SECTOR_BYTES),))
        case "linear":
            sectors = 340 * 2048
            machine.run(f"dmsetup create volume --table '0 {sectors} linear {disk} 4096' && udevadm settle")
            return Volume("/dev/mapper/volume", ((4096 * SECTOR_BYTES, sectors * SECTOR_BYTES),))
        case "lvm":  # in two pieces, the second before the first
            machine.run(
                f"pvcreate -q {disk} && vgcreate -q group {disk} && lvcreate -q -n gap -l 40 group {disk} && "
                f"lvcreate -q -y -n volume -l 60 group && lvremove -q -y group/gap && lvextend -q -l 90 group/volume {disk}:0-29"
            )
            return Volume("/dev/group/volume", tuple(_dm_segments(machine, "group-volume")))
        case "md":
            half = 220 * 2048
            parts = _partitions(disk, (2048, half), (2048 + half, half))
            options = "--run --assume-clean --level=1 --metadata=1.2 --raid-devices=2"
            machine.run(
                f"{parts} && modprobe raid1 && mdadm --quiet --create /dev/md7 {options} {disk}-part1 {disk}-part2"
            )
            size = int(machine.run("blockdev --getsize64 /dev/md7").output)
            offset = int(machine.run("cat /sys/block/md7/md/rd0/offset").output)
            return Volume("/dev/md7", (((2048 + offset) * SECTOR_BYTES, size),))
    raise ValueError(kind)


def _partitions(disk: str, *places: tuple[int, int]) -> str:
    """A command that makes partitions of (first sector, sectors)."""
    made = " ".join(f"mkpart primary {first}s {first + sectors - 1}s" for first, sectors in places)
    return f"parted -s -a none {disk} mklabel msdos {made} && udevadm settle"


def _dm_segments(machine: Machine, name: str) -> Iterator[tuple[int, int]]:
    for line in machine.run(f"dmsetup table {name}").output.splitlines():
        _, length, target, _, offset = line.split()
        assert target == "linear", line
        yield int(offset) * SECTOR_BYTES, int(length) * SECTOR_BYTES


def blocks_that_differ(machines: Pair, volume: Volume) -> np.ndarray:
    """Numbers of the blocks of 4 KiB in which the images differ now, as their disks are."""
    if isinstance(machines.primary.disks["data"], LentDisk):
        return _lent_blocks_that_differ(machines, volume)
    found, at = [], 0
    source, replica = (machine.disks["data"].path for machine in machines.both)
    for offset, length in volume.segments:
        blocks = differing_blocks(source, replica, length, source_offset=offset, image_offset=at, direct=False)
        found.append(blocks + at // BLOCK_BYTES)
        at += length
    return np.concatenate(found)


def _lent_blocks_that_differ(machines: Pair, volume: Volume) -> np.ndarray:
    """The same where the disks are on other hosts: by the digests that both machines compute."""
    copies, at = [], 0
    for _, length in volume.segments:
        copies.append((at, length))
        at += length
    digests = []
    for machine, pieces in ((machines.primary, volume.segments), (machines.secondary, copies)):
        there = "/var/tmp/pydbt-test-digests"
        words = " ".join(f"{offset}:{length}" for offset, length in pieces)
        machine.run(
            f"cd {TREE} && python3 -S -m tests.vm.guest_digests {machine.device('data')} {there} {words}", PATIENCE_S
        )
        with tempfile.TemporaryDirectory() as folder:
            machine.get(there, Path(folder) / "digests")
            digests.append(np.fromfile(Path(folder) / "digests", np.uint8).reshape(-1, DIGEST_BYTES))
        machine.run(f"rm {there}")
    return np.flatnonzero((digests[0] != digests[1]).any(axis=1))


def mount_state(machine: Machine) -> None:
    """After each boot of a machine whose state directories lie on a disk of their own."""
    machine.run(f"mount {machine.device('state')} {STATE_DISK}")


def take_volume_down(machine: Machine, kind: str) -> None:
    """So that the next test finds an empty disk."""
    command = {
        "disk": "true",
        "partition": "true",
        "linear": "dmsetup remove --retry volume",
        "lvm": "vgremove -q -f -y group",
        "md": "mdadm --quiet --stop /dev/md7",
    }[kind]
    machine.run(
        f"{command}; wipefs -q -a -f {machine.device('data')}; blkdiscard -f {machine.device('data')}; udevadm settle"
    )


def poll(condition: Callable[[], bool], description: str, timeout_s: float = PATIENCE_S, pause_s: float = 1.0) -> None:
    """``wait_until`` with pauses: each look costs the machine's only processor something."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {description}"
        time.sleep(pause_s)


class Site:
    """The two controllers over a volume and the secondary's disk ``data``."""

    def __init__(self, machines: Pair, volume: Volume, options: str = "", secondary_options: str = "") -> None:
        self.machines, self.volume, self.options, self.secondary_options = machines, volume, options, secondary_options
        self.primary, self.secondary = machines.both
        self._running: dict[str, int] = {}

    # --- the controllers ----------------------------------------------------------------------------------
    def start_secondary(self) -> None:
        words = f"secondary {self.secondary.device('data')} --listen {self.secondary.address}:{PORT} {self.secondary_options}"
        self._start(self.secondary, words, "listening on")

    def start_primary(self) -> None:
        words = f"run {self.volume.path} --secondary {self.secondary.address}:{PORT} --ack-timeout 10 {self.options}"
        self._start(self.primary, words, "volume ")

    def _start(self, machine: Machine, words: str, ready: str) -> None:
        log = f"/root/{machine.name}.log"
        machine.run(f"cat {log} >>{log}.before 2>/dev/null; rm -f {log}", check=False)
        number = machine.spawn(f"controller {words} --state {STATE} --identity {IDENTITY}", log)
        self._running[machine.name] = number
        until = f"until grep -qF {shlex.quote(ready)} {log}; do kill -0 {number} || exit 1; sleep 1; done"
        if machine.run(until, PATIENCE_S, check=False).code:
            raise machine.failure(f"the controller ended: {machine.run(f'cat {log}').output}")

    def kill(self, machine: Machine) -> None:
        """SIGKILL of its controller."""
        machine.run(f"kill -9 {self._running.pop(machine.name)}")

    def stop(self, machine: Machine) -> None:
        """SIGTERM of its controller, and the end of it."""
        number = self._running.pop(machine.name)
        machine.run(f"kill {number}; while kill -0 {number} 2>/dev/null; do sleep 0.1; done", PATIENCE_S)

    def close(self) -> None:
        """No controller, no programs, no state on machines that go on."""
        for machine in self.machines.both:
            if machine.name in self._running:
                self.stop(machine)
        self.primary.run(f"controller down --state {STATE}", check=False)
        for machine in self.machines.both:
            machine.run(f"rm -rf {STATE}/* /root/*.log*")

    # --- asking -------------------------------------------------------------------------------------------
    def status(self, machine: Machine | None = None) -> dict[str, Any]:
        """What ``controller status --json`` shows, without what starting that costs a machine; empty when nobody answers."""
        ask = f"call('{STATE}', {{'command': 'status'}})"
        code = f"import json; from pydbt.controller.control import call; print(json.dumps({ask}))"
        done = (machine or self.primary).run(f"PYTHONPATH={TREE} python3 -S -c {shlex.quote(code)}", check=False)
        return json.loads(done.output) if done.code == 0 else {}

    def until(self, description: str, machine: Machine | None = None, **wanted: Any) -> dict[str, Any]:
        """Until the status of the controller, of the primary's by default, has these values; the status then.

        One program in the machine waits: to start one for each look takes most of what an emulated processor has.
        """
        words = ("python3", "-S", "-m", "tests.vm.guest_status", STATE, PATIENCE_S, json.dumps(wanted))
        command = f"cd {TREE} && {shlex.join(map(str, words))}"
        done = (machine or self.primary).run(command, PATIENCE_S + 60, check=False)
        assert done.code == 0, f"not within {PATIENCE_S:.0f} s: {description}: {done}\n{self.words()}"
        seen: dict[str, Any] = json.loads(done.output)
        return seen

    def walked_instructions(self) -> dict[str, int]:
        """How many instructions the primary's verifier has walked for each program."""
        look = "import json; from tests.lab.kernel_programs import walked_instructions; print(json.dumps(walked_instructions()))"
        walked: dict[str, int] = self.primary.python(look)
        return walked

    def until_applied(self) -> None:
        """The secondary has applied everything that it has."""
        self.until("the secondary has applied what it has", self.secondary, unapplied_bytes=0)

    def wait(self) -> None:
        """``controller wait``, which must come true."""
        done = self.primary.run(f"controller wait --state {STATE} --timeout {PATIENCE_S}", PATIENCE_S + 30, check=False)
        assert done.code == 0, f"{done} {self.status()}\n{self.words()}"

    def words(self) -> str:
        """What both controllers said, whole lives."""
        said = [
            m.run(f"tail -n 40 /root/{m.name}.log.before /root/{m.name}.log", check=False).output
            for m in self.machines.both
            if m.alive
        ]
        return "\n".join(said)

    # --- load ---------------------------------------------------------------------------------------------
    def make_filesystem(self, kind: str) -> None:
        command = "mkfs.xfs -q -f" if kind == "xfs" else "mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0"
        self.primary.run(f"{command} {self.volume.path} && mkdir -p {MOUNT}")

    def mount(self) -> None:
        self.primary.run(f"mkdir -p {MOUNT} && mount {self.volume.path} {MOUNT}")

    def unmount(self) -> None:
        self.primary.run(f"umount {MOUNT}")

    def start_load(self, chance: random.Random) -> None:
        self.primary.run("rm -f /tmp/progress")
        program = (
            f"env -C {TREE} .venv/bin/python -m tests.vm.guest_load {MOUNT} {chance.randrange(1 << 30)} /tmp/progress"
        )
        self._running["load"] = self.primary.spawn(program, "/tmp/load.log")
        self.until_steps(1)

    def progress(self) -> dict[str, int]:
        done = self.primary.run("cat /tmp/progress", check=False)
        return json.loads(done.output) if done.code == 0 else {"steps": 0, "rows": 0}

    def until_steps(self, steps: int) -> None:
        """The load has done this many more."""
        before = self.progress()["steps"]
        poll(lambda: self.progress()["steps"] >= before + steps, f"the load does {steps} steps", PATIENCE_S)

    def stop_load(self) -> None:
        number = self._running.pop("load")
        self.primary.run(f"kill {number}; while kill -0 {number} 2>/dev/null; do sleep 0.1; done", PATIENCE_S)
        said = self.primary.run("cat /tmp/load.log").output
        assert "Traceback" not in said, said

    def check_rows(self, least: int) -> int:
        """The mounted volume's database is intact and reaches a row; the last row."""
        words = f"check_database(Path('{MOUNT}/rows.db'), {least})"
        return self.primary.python(
            f"from pathlib import Path; from tests.lab.load import check_database; print({words})"
        )

    def forget(self, machine: Machine) -> None:
        """Its power was cut: nothing of it runs any more."""
        self._running.pop(machine.name, None)
        if machine is self.primary:
            self._running.pop("load", None)

    # --- comparing ----------------------------------------------------------------------------------------
    def differing(self) -> np.ndarray:
        """Numbers of the blocks of 4 KiB in which the images differ now, as their disks are."""
        return blocks_that_differ(self.machines, self.volume)

    def compare(self, when: str) -> None:
        """The secondary ends, and both images are the same, byte by byte. Nothing may be mounted."""
        self.primary.run("sync")
        self.stop(self.secondary)
        self.secondary.run(
            f"controller secondary {self.secondary.device('data')} --state {STATE} --replay-only && sync"
        )
        blocks = self.differing()
        assert not len(blocks), (
            f"{when}: {len(blocks)} blocks differ, the first are {blocks[:20].tolist()}\n{self.words()}"
        )


def copy_image(machine: Machine, to: Path) -> Path:
    """The disk ``data`` as it is now."""
    run("cp", "--sparse=always", machine.disks["data"].path, to)
    return to

"""What is compared: a bare disk, ways to track writes, and ways to replicate them, each on a disk of its own"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from tests.vm.machine import IDENTITY, Machine
from tests.vm.pair import Pair

MIB = 1 << 20
DISK_BYTES = 256 * MIB
METADATA_BYTES = 16 * MIB
DISKS = {name: DISK_BYTES for name in ("plain", "pydbt", "drbd", "era", "md")} | {"erameta": METADATA_BYTES}
START_TIMEOUT_S = 600.0
SYNC_TIMEOUT_S = 600.0

_DRBD_CONFIG = """resource compared {{
  device /dev/drbd0;
  disk {disk};
  meta-disk internal;
  net {{ protocol C; }}
  on primary {{ address 10.77.0.11:7789; }}
  on secondary {{ address 10.77.0.12:7789; }}
}}
"""


class Contender(Protocol):
    """Set up once; switched on for its turn and off for the others', so that it costs nobody else anything."""

    name: str
    replicates: bool

    def set_up(self, machines: Pair) -> None: ...
    def switch_on(self) -> str:
        """The device to write to."""
        ...

    def switch_off(self) -> None: ...


class Replicator(Contender, Protocol):
    """One whose outages are measured. Times are seconds of the primary's own clock."""

    def seconds_behind(self) -> float:
        """Called when the writers have just ended: how long until all of it is on the secondary."""
        ...

    def until_outage_noticed(self) -> None: ...
    def until_in_sync(self) -> float:
        """Wait until nothing differs any more: when that was."""
        ...


def await_in_guest(machine: Machine, condition: str, timeout_s: float) -> float:
    """Poll a shell condition in the machine; the time on its clock when it held."""
    loop = f"until {condition}; do sleep 0.05; done; date +%s.%N"
    return float(machine.run(loop, timeout_s).output.split()[-1])


@dataclass
class Plain:
    """The disk itself."""

    name: str = "the disk itself"
    replicates: bool = False

    def set_up(self, machines: Pair) -> None:
        self._device = machines.primary.device("plain")

    def switch_on(self) -> str:
        return self._device

    def switch_off(self) -> None:
        pass


@dataclass
class Era:
    """dm-era over a disk, its metadata on another: every first write to a region in an era waits for its mark."""

    name: str = "dm-era, tracking alone"
    replicates: bool = False
    _granularity_sectors: int = 8  # 4 KiB, as fine as pydbt's

    def set_up(self, machines: Pair) -> None:
        self._machine = machines.primary
        self._machine.run("modprobe dm-era")

    def switch_on(self) -> str:
        disk, metadata = (self._machine.device(name) for name in ("era", "erameta"))
        self._machine.run(f"dd if=/dev/zero of={metadata} bs=4096 count=1 conv=fsync status=none")
        table = f"0 {DISK_BYTES // 512} era {metadata} {disk} {self._granularity_sectors}"
        self._machine.run(f"dmsetup create compared-era --table '{table}'")
        return "/dev/mapper/compared-era"

    def switch_off(self) -> None:
        self._machine.run("dmsetup remove --retry compared-era")


@dataclass
class Bitmap:
    """md RAID 1 with its second half missing: what is left is its write-intent bitmap, marked before each write."""

    name: str = "md write-intent bitmap, tracking alone"
    replicates: bool = False

    def set_up(self, machines: Pair) -> None:
        self._machine = machines.primary
        disk = self._machine.device("md")
        self._machine.run(
            f"modprobe raid1; mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --bitmap=internal {disk} missing"
        )
        self._machine.run("mdadm --stop /dev/md0")

    def switch_on(self) -> str:
        self._machine.run(f"mdadm --assemble --run /dev/md0 {self._machine.device('md')}")
        return "/dev/md0"

    def switch_off(self) -> None:
        self._machine.run("for i in 1 2 3 4 5; do mdadm --stop /dev/md0 && exit 0; sleep 1; done; exit 1")


@dataclass
class Drbd:
    """DRBD 8.4 of Debian's kernel, on settings as they come; ``protocol`` A acknowledges early, C when both disks have it."""

    protocol: str
    replicates: bool = True

    def __post_init__(self) -> None:
        self.name = f"DRBD, protocol {self.protocol}"

    def set_up(self, machines: Pair) -> None:
        self._machines = machines
        for machine in machines.both:
            if machine.run("test -e /proc/drbd", check=False).code == 0:
                return  # by the other protocol's turn
            config = _DRBD_CONFIG.format(disk=machine.device("drbd"))
            machine.run(f"printf %s '{config}' >/etc/drbd.d/compared.res; modprobe drbd usermode_helper=/bin/true")
            machine.run("sed -i 's/usage-count yes/usage-count no/' /etc/drbd.d/global_common.conf")
            machine.run("drbdadm create-md --force compared && drbdadm up compared")
        connected = "grep -q 'cs:Connected.*Inconsistent/Inconsistent' /proc/drbd"
        await_in_guest(machines.primary, connected, START_TIMEOUT_S)
        # Both disks are new and full of zeros: there is nothing to copy at first.
        machines.primary.run("drbdadm new-current-uuid --clear-bitmap compared/0")
        await_in_guest(machines.primary, "grep -q UpToDate/UpToDate /proc/drbd", START_TIMEOUT_S)
        machines.primary.run("drbdadm primary compared")

    def switch_on(self) -> str:
        for machine in self._machines.both:
            machine.run(f"drbdadm net-options --protocol={self.protocol} compared")
        self.until_in_sync()
        return "/dev/drbd0"

    def switch_off(self) -> None:
        self.until_in_sync()

    def seconds_behind(self) -> float:
        began = float(self._machines.primary.run("date +%s.%N").output)
        return await_in_guest(self._machines.primary, "grep -q 'pe:0 ua:0 ap:0' /proc/drbd", SYNC_TIMEOUT_S) - began

    def until_outage_noticed(self) -> None:
        await_in_guest(self._machines.primary, "! grep -q cs:Connected /proc/drbd", START_TIMEOUT_S)

    def until_in_sync(self) -> float:
        in_sync = "grep -q 'cs:Connected.*UpToDate/UpToDate' /proc/drbd"
        return await_in_guest(self._machines.primary, in_sync, SYNC_TIMEOUT_S)


class _Controller:
    """pydbt's two ends, in the state they were left in."""

    def __init__(self) -> None:
        self._machines: Pair | None = None
        self._runs = 0

    @property
    def primary(self) -> Machine:
        return self._machines.primary

    def set_up(self, machines: Pair) -> None:
        if self._machines is not None:
            return
        self._machines = machines
        secondary = machines.secondary
        listen = f"{secondary.address}:7790"
        secondary.spawn(
            f"controller secondary {secondary.device('pydbt')} --listen {listen} --state /var/lib/compared --identity {IDENTITY}",
            "/root/secondary.log",
        )
        await_in_guest(secondary, "grep -q 'listening on' /root/secondary.log", START_TIMEOUT_S)
        self.switch_on()
        self.switch_off()

    def switch_on(self) -> str:
        device = self.primary.device("pydbt")
        self._runs += 1
        self.log = f"/root/primary{self._runs}.log"
        process = self.primary.spawn(
            f"controller run {device} --secondary {self._machines.secondary.address}:7790 --state /var/lib/compared"
            f" --identity {IDENTITY} --whole-device",
            self.log,
        )
        await_in_guest(self.primary, f"grep -q -- '-> normal' {self.log} || ! kill -0 {process}", START_TIMEOUT_S)
        assert self.count("-> normal"), self.primary.failure(self.primary.run(f"cat {self.log}").output)
        return device

    def count(self, words: str) -> int:
        """Lines of the log with these words."""
        return int(self.primary.run(f"grep -c -- '{words}' {self.log}", check=False).output)

    def switch_off(self) -> None:
        self.primary.run("controller wait --state /var/lib/compared --timeout 500", SYNC_TIMEOUT_S)
        self.primary.run("controller down --state /var/lib/compared", SYNC_TIMEOUT_S)

    def command_seconds(self, command: str) -> float:
        """How long a command takes, on the machine's own clock."""
        timed = f"date +%s.%N; controller {command} --state /var/lib/compared >/dev/null; date +%s.%N"
        began, ended = map(float, self.primary.run(timed, SYNC_TIMEOUT_S).output.split())
        return ended - began

    def status(self) -> dict:
        return json.loads(self.primary.run("controller status --json --state /var/lib/compared", SYNC_TIMEOUT_S).output)


CONTROLLER = _Controller()


@dataclass
class Pydbt:
    """pydbt with the data of the writes captured: order kept, nothing in the writers' way."""

    name: str = "pydbt"
    replicates: bool = True

    def set_up(self, machines: Pair) -> None:
        CONTROLLER.set_up(machines)

    def switch_on(self) -> str:
        return CONTROLLER.switch_on()

    def switch_off(self) -> None:
        CONTROLLER.switch_off()

    def seconds_behind(self) -> float:
        """A second ``wait`` is for nothing and takes what the command itself takes."""
        first, second = (CONTROLLER.command_seconds("wait --timeout 500") for _ in range(2))
        return max(0.0, first - second)

    def until_outage_noticed(self) -> None:
        self._normals = CONTROLLER.count("-> normal")
        await_in_guest(CONTROLLER.primary, f"grep -q -- '-> unsynchronized' {CONTROLLER.log}", START_TIMEOUT_S)

    def until_in_sync(self) -> float:
        again = f"test $(grep -c -- '-> normal' {CONTROLLER.log}) -gt {self._normals}"
        return await_in_guest(CONTROLLER.primary, again, SYNC_TIMEOUT_S)


@dataclass
class PydbtTracking:
    """pydbt paused: its programs mark every write, and nothing is sent."""

    name: str = "pydbt, tracking alone"
    replicates: bool = False

    def set_up(self, machines: Pair) -> None:
        CONTROLLER.set_up(machines)

    def switch_on(self) -> str:
        device = CONTROLLER.switch_on()
        CONTROLLER.command_seconds("pause")
        return device

    def switch_off(self) -> None:
        CONTROLLER.command_seconds("resume")
        CONTROLLER.switch_off()


def everybody() -> list[Contender]:
    return [Plain(), PydbtTracking(), Era(), Bitmap(), Pydbt(), Drbd("A"), Drbd("C")]

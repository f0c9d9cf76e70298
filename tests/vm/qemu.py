"""One virtual machine under QEMU: booted, spoken to over ssh, its cable pulled, its power cut.

A machine that panics, hangs or ends on its own raises ``MachineFailure`` with the end of its console. QEMU emulates the
processor (a host's KVM may not be there, or may not boot Debian's kernels), so that everything takes many times longer than on
the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from tests.vm.disks import PlainDisk, VolatileDisk
from tests.vm.image import Image
from tests.vm.machine import BOOT_TIMEOUT_S, Machine, MachineFailure

MEMORY_MIB = 1024
LINK_PREFIX = "10.77.0"
# The least that numpy's and Debian's programs ask for; every further extension makes the emulation slower.
PROCESSOR = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16"
# A machine on a busy host may take a minute to greet, where the connection of before has ended.
_CONNECT_S = 120
# What a healthy kernel never says.
ALARMS = re.compile(r"Kernel panic|\bBUG:|\bOops\b|WARNING: CPU|general protection|soft lockup|PYDBT-NO-ROOT")


class QemuMachine(Machine):
    """``number`` 1 is the primary and 2 the secondary; the link between them is a pair of sockets in a shared folder.

    What a program in the machine writes to /dev/virtio-ports/power can be read from the socket ``power_line``, and answered.
    """

    def __init__(
        self, name: str, number: int, image: Image, folder: Path, sockets: Path, *, systemd: bool = False
    ) -> None:
        super().__init__(name, number)
        self.image, self.systemd = image, systemd
        self.folder, self._sockets = folder / name, sockets
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = f"{LINK_PREFIX}.{10 + number}"
        self.console_log = self.folder / "console.log"
        self.disks: dict[str, PlainDisk | VolatileDisk] = {}
        self._root = self.folder / "root.qcow2"
        self._qmp = sockets / f"{name}.qmp"
        self._control = sockets / f"{name}.ssh"
        self.power_line = sockets / f"{name}.power"
        self.pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    # --- disks --------------------------------------------------------------------------------------------
    def add_disk(self, name: str, size_bytes: int, *, volatile: bool = False) -> PlainDisk | VolatileDisk:
        """Before the boot. In the machine it is ``device(name)``, however the kernel numbers it."""
        disk = (
            VolatileDisk(self.folder, self._sockets, f"{self.name}-{name}", size_bytes)
            if volatile
            else PlainDisk(self.folder, f"{self.name}-{name}", size_bytes)
        )
        self.disks[name] = disk
        return disk

    # --- power --------------------------------------------------------------------------------------------
    def boot(self, *, outlive: bool = False) -> None:
        """Start, and be back when ssh answers. ``outlive``: go on when this process ends."""
        self.start(outlive=outlive)
        self.until_up()

    def start(self, *, outlive: bool = False) -> None:
        assert not self.alive, f"{self.name} runs already"
        if not self._root.exists():
            _host("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.image.root, self._root)
        for stale in (self._qmp, self._control, self.power_line):
            stale.unlink(missing_ok=True)
        self._boots_at = self.console_log.stat().st_size if self.console_log.exists() else 0
        log = self.folder / "qemu.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=None if outlive else _die_with_parent,
            )  # fmt: skip
        self.pid = self._process.pid

    def until_up(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        self._wait(self._has_port, deadline, "QEMU answers")
        if not self.systemd:
            self._wait(lambda: "PYDBT-READY" in self.console(since_boot=True), deadline, "it has booted")
        self._wait(self.answers, deadline, "ssh answers")

    def power_cut(self, chance: random.Random | None = None) -> None:
        """SIGKILL, as if the plug was pulled: nothing is written any more, and volatile disks forget."""
        self._end(signal.SIGKILL)
        for disk in self.disks.values():
            disk.cut_power(chance or random.Random(0))

    def shut_down(self) -> None:
        """Sync, and off: what a person means by shutting down, as far as the disks see it."""
        self.run("sync")
        self._end(signal.SIGTERM)

    def reboot(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """As a person reboots: systemd stops every unit in its order, and the machine boots again."""
        # A moment later: the answer comes before its network goes away.
        self.run("systemd-run --quiet --on-active=1 --timer-property=AccuracySec=100ms systemctl --no-block reboot")
        deadline = time.monotonic() + timeout_s
        while self.alive:  # QEMU ends where a machine would begin its next boot
            if time.monotonic() > deadline:
                raise self.failure("not in time: it has shut down")
            time.sleep(0.2)
        self._end(signal.SIGKILL)
        self.boot()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Off, whatever state it is in, and nothing left but its files."""
        self._end(signal.SIGKILL)
        for disk in self.disks.values():
            disk.close()

    def _end(self, number: int) -> None:
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, number)
        if self._process is not None:
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.pid, self._process = None, None
        # Not before: whoever cuts the power has chosen the instant.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(self._ssh("-O", "exit"), capture_output=True, timeout=10)

    @property
    def alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return self.pid is not None and _is_qemu(self.pid)

    def adopt(self, pid: int) -> Self:
        """A machine that another process started with ``outlive``."""
        self.pid = pid
        if self.alive:
            self._port = self._forwarded_port()
        return self

    # --- the cable between the machines -------------------------------------------------------------------
    def cut_link(self) -> None:
        self._monitor("set_link", name="link", up=False)

    def mend_link(self) -> None:
        self._monitor("set_link", name="link", up=True)

    # --- looking ------------------------------------------------------------------------------------------
    def console(self, since_boot: bool = False) -> str:
        if not self.console_log.exists():
            return ""
        data = self.console_log.read_bytes()
        return data[self._boots_at if since_boot else 0 :].decode(errors="replace")

    def alarms(self) -> list[str]:
        """Lines of the console that no healthy kernel writes."""
        return [line for line in self.console().splitlines() if ALARMS.search(line)]

    def failure(self, what: str) -> MachineFailure:
        return MachineFailure(
            f"{self.name}: {what}\n--- the end of its console ({self.console_log})\n{self.console()[-4000:]}"
        )

    def _check_alive(self, doing: str) -> None:
        if not self.alive:
            said = (self.folder / "qemu.log").read_text(errors="replace")[-1000:]
            raise self.failure(f"the machine is gone ({doing}) {said}")

    def _after_a_broken_connection(self, doing: str) -> None:
        """Let a panic get to its end, and be told as what it is."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(3)
        self._check_alive(doing)

    # --- the ways in --------------------------------------------------------------------------------------
    def _ssh_options(self) -> list[object]:
        options = (
            "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", f"ConnectTimeout={_CONNECT_S}",
            "BatchMode=yes", "ControlMaster=auto", f"ControlPath={self._control}", "ControlPersist=3600",
        )  # fmt: skip
        return ["-i", self.image.key, "-p", self._port, *(word for option in options for word in ("-o", option))]

    def ssh_config(self) -> str:
        """For a file that ssh reads, as Vagrant prints it."""
        words = ("HostName 127.0.0.1", "User root", f"Port {self._port}", f"IdentityFile {self.image.key}", "IdentitiesOnly yes",
                 "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "LogLevel ERROR")  # fmt: skip
        return "\n  ".join((f"Host {self.name}", *words))

    @property
    def _destination(self) -> str:
        return "root@127.0.0.1"

    def _monitor(self, execute: str, **arguments: Any) -> Any:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(20)
            peer.connect(str(self._qmp))
            with peer.makefile("rw") as lines:
                lines.readline()  # greeting
                for command in ({"execute": "qmp_capabilities"}, {"execute": execute, "arguments": arguments}):
                    lines.write(json.dumps(command) + "\n")
                    lines.flush()
                    while "event" in (answer := json.loads(lines.readline())):
                        pass
                    assert "return" in answer, answer
        return answer["return"]

    def _has_port(self) -> bool:
        try:
            self._port = self._forwarded_port()
        except (FileNotFoundError, ConnectionRefusedError):  # its socket is there before it listens
            return False
        return True

    def _forwarded_port(self) -> int:
        """The port of 127.0.0.1 that QEMU took; asked for as 0, so that nobody can be in the way."""
        table = self._monitor("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", table)
        assert found, table
        return int(found[1])

    def _command(self) -> list[str]:
        ours, theirs = (self._sockets / f"link{number}" for number in (self.number, 3 - self.number))
        ours.unlink(missing_ok=True)
        # On a busy host a machine is not run for seconds: its kernel would find that its timer does not tick, and panic, or call
        # that a lockup, of which only one of two minutes is told.
        words = ["root=/dev/vda", "rw", "console=ttyS0", "net.ifnames=0", "mitigations=off", "quiet", "panic=-1", "oops=panic",
                 "no_timer_check", "watchdog_thresh=60", f"systemd.hostname={self.name}",
                 f"pydbt.link={self.address}/24"]  # fmt: skip
        if not self.systemd:
            words.append("init=/sbin/pydbt-init")
        disks = [word for name, disk in self.disks.items() for word in (
            *disk.arguments(), "-device", f"virtio-blk-pci,drive={disk.name},serial={name},write-cache=on")]  # fmt: skip
        link = f"dgram,id=link,local.type=unix,local.path={ours},remote.type=unix,remote.path={theirs}"
        return [
            "qemu-system-x86_64", "-name", self.name, "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256",
            "-cpu", PROCESSOR, "-smp", "1", "-m", str(MEMORY_MIB),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-chardev", f"file,id=console,path={self.console_log},append=on", "-serial", "chardev:console",
            "-qmp", f"unix:{self._qmp},server=on,wait=off",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd), "-append", " ".join(words),
            "-drive", f"if=none,id=root,file={self._root},cache=unsafe,discard=unmap", "-device", "virtio-blk-pci,drive=root",
            *disks,
            "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=power,path={self.power_line},server=on,wait=off",
            "-device", "virtserialport,chardev=power,name=power",
            "-netdev", "user,id=host,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
            "-device", f"virtio-net-pci,netdev=host,mac=52:54:00:77:01:0{self.number}",
            "-netdev", link, "-device", f"virtio-net-pci,netdev=link,mac=52:54:00:77:00:0{self.number}",
        ]  # fmt: skip


def _die_with_parent() -> None:
    """Also when this process is killed, no machine outlives it."""
    pr_set_pdeathsig = 1  # include/uapi/linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _is_qemu(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _host(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")

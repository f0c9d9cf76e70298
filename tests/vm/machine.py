"""One virtual machine under QEMU: booted, spoken to over ssh, its cable pulled, its power cut.

Nothing here waits for ever: every command has a time limit, and a machine that panics, hangs or ends on its own
raises ``MachineFailure`` with the end of its console. QEMU emulates the processor (a host's KVM may not be there,
or may not boot Debian's kernels), so that everything takes many times longer than on the host.
"""

from __future__ import annotations

import compileall
import contextlib
import ctypes
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.vm.disks import PlainDisk, VolatileDisk
from tests.vm.image import PROJECT, Image

Disk = PlainDisk | VolatileDisk

# They bound a hang, and measure nothing: beside other work an emulated machine gets a small part of a core.
BOOT_TIMEOUT_S = 1200.0
RUN_TIMEOUT_S = 600.0
MEMORY_MIB = 1024
IDENTITY = "/root/pydbt.identity"  # of a machine of the tests
TREE = "/vagrant"  # the project, where Vagrant puts it
LINK_PREFIX = "10.77.0"
# The least that numpy's and Debian's programs ask for; every further extension makes the emulation slower.
PROCESSOR = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16"
# What a healthy kernel never says.
ALARMS = re.compile(r"Kernel panic|\bBUG:|\bOops\b|WARNING: CPU|general protection|soft lockup|PYDBT-NO-ROOT")


class MachineFailure(AssertionError):
    """A machine that did not do what it must, with the end of its console."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command in a machine ended."""

    code: int
    output: str
    errors: str


class Machine:
    """``number`` 1 is the primary and 2 the secondary; the link between them is a pair of sockets in a shared folder.

    What a program in the machine writes to /dev/virtio-ports/power can be read from the socket ``power_line``, and answered.
    """

    def __init__(
        self, name: str, number: int, image: Image, folder: Path, sockets: Path, *, systemd: bool = False
    ) -> None:
        self.name, self.number, self.image, self.systemd = name, number, image, systemd
        self.folder, self._sockets = folder / name, sockets
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = f"{LINK_PREFIX}.{10 + number}"
        self.console_log = self.folder / "console.log"
        self.disks: dict[str, Disk] = {}
        self._root = self.folder / "root.qcow2"
        self._qmp = sockets / f"{name}.qmp"
        self._control = sockets / f"{name}.ssh"
        self.power_line = sockets / f"{name}.power"
        self.pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    # --- disks --------------------------------------------------------------------------------------------
    def add_disk(self, name: str, size_bytes: int, *, volatile: bool = False) -> Disk:
        """Before the boot. In the machine it is ``device(name)``, however the kernel numbers it."""
        disk = (
            VolatileDisk(self.folder, self._sockets, f"{self.name}-{name}", size_bytes)
            if volatile
            else PlainDisk(self.folder, f"{self.name}-{name}", size_bytes)
        )
        self.disks[name] = disk
        return disk

    @staticmethod
    def device(name: str) -> str:
        return f"/dev/disk/by-id/virtio-{name}"

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
        self._wait(lambda: self._answers(), deadline, "ssh answers")

    def _wait(self, condition: Callable[[], bool], deadline: float, what: str) -> None:
        while not condition():
            self._check_alive(what)
            if time.monotonic() > deadline:
                raise self.failure(f"not in time: {what}")
            time.sleep(0.1)

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

    # --- commands -----------------------------------------------------------------------------------------
    def run(self, command: str | Sequence[object], timeout: float = RUN_TIMEOUT_S, check: bool = True) -> Done:
        """Run a shell command as root. MachineFailure when it fails (unless ``check`` is off) or takes too long."""
        text = command if isinstance(command, str) else shlex.join(map(str, command))
        self._check_alive(text)
        process = subprocess.Popen(
            [*self._ssh(), text], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace",
        )  # fmt: skip
        deadline = time.monotonic() + timeout
        while True:
            try:
                output, errors = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                # A machine that died leaves its connection open for a while: do not wait for that.
                if self.alive and time.monotonic() < deadline:
                    continue
                process.kill()
                process.wait()
                # No communicate(): ssh's shared connection holds the other ends of the pipes.
                for pipe in (process.stdout, process.stderr):
                    pipe.close()
                self._check_alive(text)
                raise self.failure(f"not within {timeout:.0f} s: {text}") from None
        done = Done(process.returncode, output, errors)
        if done.code == 255:
            # ssh's own failure: let a panic get to its end, and be told as what it is.
            with contextlib.suppress(subprocess.TimeoutExpired):
                if self._process is not None:
                    self._process.wait(3)
            self._check_alive(text)
        if check and done.code:
            raise self.failure(f"{text} ended with {done.code}:\n{done.output[-3000:]}{done.errors[-3000:]}")
        return done

    def ssh_command(self, command: str = "", *, terminal: bool = False) -> list[str]:
        """The words of a command on this machine for a person at a terminal: no time limit, output as it comes."""
        return [*self._ssh(*(["-t"] if terminal else [])), *([command] if command else [])]

    def spawn(self, command: str, log: str) -> int:
        """Run a shell command in the background, both outputs to a file; its process number, a group of its own."""
        words = f"setsid -f sh -c {shlex.quote(f'echo $$ >{log}.pid; exec {command}')} >{log} 2>&1 </dev/null"
        self.run(f"{words}; until [ -s {log}.pid ]; do sleep 0.05; done")
        return int(self.run(f"cat {log}.pid").output)

    def python(self, code: str, timeout: float = RUN_TIMEOUT_S) -> Any:
        """Run Python in the project's environment; what it prints last is JSON."""
        done = self.run(f"cd {TREE} && .venv/bin/python -c {shlex.quote(code)}", timeout)
        return json.loads(done.output.strip().splitlines()[-1])

    def put(self, here: Path, there: str, timeout: float = RUN_TIMEOUT_S) -> None:
        self._copy([f"{here}", f"root@127.0.0.1:{there}"], timeout)

    def get(self, there: str, here: Path, timeout: float = RUN_TIMEOUT_S) -> None:
        self._copy([f"root@127.0.0.1:{there}", f"{here}"], timeout)

    def put_project(self) -> None:
        """This tree as it is now. Compiled modules go along, which spares the machine that work, the first one here as well."""
        for folder in (PROJECT / "pydbt", *(PROJECT / "tests" / name for name in ("lab", "vm"))):
            compileall.compile_dir(folder, quiet=2)
        without = [
            f"--exclude={name}"
            for name in (".git", ".venv", "*.egg-info", ".pytest_cache", ".hypothesis", ".ruff_cache")
        ]
        self._copy(["--delete", *without, f"{PROJECT}/", f"root@127.0.0.1:{TREE}/"], RUN_TIMEOUT_S)

    def _copy(self, arguments: list[str], timeout: float) -> None:
        self._check_alive("copying")
        shell = shlex.join(map(str, self._ssh_options()))
        done = subprocess.run(
            ["rsync", "-a", "-S", "-e", f"ssh {shell}", *arguments], capture_output=True, text=True, timeout=timeout
        )
        if done.returncode:
            raise self.failure(f"copying {arguments[-2:]} failed: {done.stderr[-1000:]}")

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

    # --- the ways in --------------------------------------------------------------------------------------
    def _ssh_options(self) -> list[object]:
        options = (
            "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10", "BatchMode=yes",
            "ControlMaster=auto", f"ControlPath={self._control}", "ControlPersist=600",
        )  # fmt: skip
        return ["-i", self.image.key, "-p", self._port, *(word for option in options for word in ("-o", option))]

    def _ssh(self, *more: object) -> list[str]:
        return ["ssh", *map(str, self._ssh_options()), *map(str, more), "root@127.0.0.1"]

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return (
                subprocess.run(
                    [*self._ssh(), "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20
                ).returncode
                == 0
            )
        return False

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

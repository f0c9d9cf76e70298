"""Two machines, ``primary`` and ``secondary``, each with data disks, joined by a cable, in folders of their own.

In a test::

    def test_it(machines):
        machines.primary.run("mkfs.xfs -f " + machines.primary.device("data"), timeout=60)
        machines.primary.put(Path("here"), "/root/there"); machines.primary.get("/root/there", Path("here"))
        machines.primary.power_cut(random.Random(seed)); machines.primary.boot()

where ``machines`` is the fixture of ``conftest.py`` (``from tests.vm.conftest import machines`` elsewhere), or::

    with pair({"data": 320 << 20}, volatile=True) as machines: ...

with the disks that are wanted. With ``--on`` (``kinds.py``) these are machines that run somewhere, lent for the time.

By hand: ``scripts/vm up``, ``scripts/vm ssh primary "uname -a"``, ``scripts/vm down``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydbt.kernel.code_cache import FOLDER
from pydbt.kernel.tracing.ahead import compile_ahead
from tests.lab.identities import identity
from tests.vm.image import Image, cache, image
from tests.vm.kinds import chosen
from tests.vm.machine import IDENTITY, Machine, MachineFailure
from tests.vm.over_ssh import lent_pair
from tests.vm.qemu import QemuMachine

MIB = 1 << 20
DISKS = {"data": 512 * MIB}
FULL = bool(os.environ.get("PYDBT_VM_FULL"))
"""Whether this is the full lane, with all variants."""


@dataclass(frozen=True, slots=True)
class Pair:
    primary: Machine
    secondary: Machine

    @property
    def both(self) -> tuple[Machine, Machine]:
        return self.primary, self.secondary

    def cut_link(self) -> None:
        for machine in self.both:
            machine.cut_link()

    def mend_link(self) -> None:
        for machine in self.both:
            machine.mend_link()

    def check_healthy(self) -> None:
        """No kernel complained, or MachineFailure."""
        for machine in self.both:
            if alarms := machine.alarms():
                raise machine.failure(f"its kernel complained: {alarms[:5]}")

    def close(self) -> None:
        for machine in self.both:
            machine.close()


def boot_both(machines: Sequence[QemuMachine], *, outlive: bool = False, compile_there: bool = False) -> None:
    """Both at once, with the project as it is now; with its programs compiled here, or not compiled at all."""
    # Started from this thread: a machine ends with the thread that started it.
    for machine in machines:
        machine.start(outlive=outlive)
    with ThreadPoolExecutor(2) as pool:
        try:
            list(pool.map(partial(_ready, compile_there=compile_there), machines))
        except BaseException:  # a person's Ctrl-C too: nobody waits for a machine that nobody wants
            for machine in machines:
                machine.close()
            raise


def _ready(machine: QemuMachine, compile_there: bool) -> None:
    machine.until_up()
    machine.put_project()
    _put_identity(machine)
    if not compile_there and (FULL or machine.name == "primary"):
        _put_programs(machine)


def _put_programs(machine: QemuMachine) -> None:
    """What its first start would compile, which takes minutes on an emulated processor.

    It is used there where the same compiler is installed here and there. A secondary that takes over needs it as well.
    """
    folder = machine.image.folder / "programs"
    compile_ahead(machine.image.kernel, folder)
    machine.put(folder, f"{FOLDER.parent}/")
    machine.run(f"rm -rf {FOLDER} && mv {FOLDER.parent}/programs {FOLDER} && chown -R root:root {FOLDER}")


def _put_identity(machine: Machine) -> None:
    machine.put(identity(machine.name), IDENTITY)
    machine.run(f"chown root:root {IDENTITY}; chmod 600 {IDENTITY}")
    machine.run("sync")  # what is put there survives a power cut


def make_machines(
    built: Image,
    folder: Path,
    sockets: Path,
    disks: Mapping[str, int],
    *,
    volatile: bool = False,
    systemd: bool = False,
) -> tuple[QemuMachine, QemuMachine]:
    """Not booted yet. ``sockets`` must be a short path: the kernel takes 107 characters."""
    both = (
        QemuMachine("primary", 1, built, folder, sockets, systemd=systemd),
        QemuMachine("secondary", 2, built, folder, sockets, systemd=systemd),
    )
    for machine in both:
        for name, size_bytes in disks.items():
            machine.add_disk(name, size_bytes, volatile=volatile)
    return both


@contextlib.contextmanager
def pair(
    disks: Mapping[str, int] = DISKS,
    *,
    volatile: bool = False,
    systemd: bool = False,
    packages: tuple[str, ...] = (),
    line: str = "",
    compile_there: bool = False,
    keep_logs: Path | None = None,
) -> Iterator[Pair]:
    """Both booted, with fresh disks; gone at the end, whatever happened. ``keep_logs`` gets their consoles.

    ``packages``: what they have installed besides. ``line``: of their kernel, else the suite's own. ``compile_there``: their
    first start compiles the programs, for minutes.
    """
    if chosen().name != "qemu":
        if volatile or packages or line:
            raise MachineFailure(
                "disks that forget, other packages and other kernels are of machines that are made anew: use --on qemu"
            )
        with _lent(disks) as machines:
            yield machines
        return
    built = image(packages, line)
    with run_folders() as (folder, sockets):
        both = make_machines(built, folder, sockets, disks, volatile=volatile, systemd=systemd)
        machines = Pair(*both)
        try:
            boot_both(both, compile_there=compile_there)
            yield machines
            machines.check_healthy()
        finally:
            machines.close()
            if keep_logs is not None:
                for machine in both:
                    if machine.console_log.exists():
                        shutil.copy(machine.console_log, keep_logs / f"{machine.name}-console.log")


@contextlib.contextmanager
def _lent(disks: Mapping[str, int]) -> Iterator[Pair]:
    """Two that run somewhere; at the end they are as before."""
    with tempfile.TemporaryDirectory(prefix="pydbt-vm-", dir="/tmp") as sockets:
        both = lent_pair(chosen(), Path(sockets))
        machines = Pair(*both)
        try:
            for machine in both:
                machine.take(disks)
                _put_identity(machine)
            yield machines
            machines.check_healthy()
        finally:
            machines.close()


@contextlib.contextmanager
def run_folders() -> Iterator[tuple[Path, Path]]:
    """One for files and one for sockets, of this run alone. Those of a run that was killed go as well: its lock is free."""
    for old in cache().glob("run-*"):
        with contextlib.suppress(OSError), (old / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.read() or "/nonexistent", ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=cache()))
    sockets = Path(tempfile.mkdtemp(prefix="pydbt-vm-", dir="/tmp"))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(sockets))
        lock.flush()
        folder = folder.rename(folder.with_name(folder.name.replace("new-", "run-")))  # locked before others look at it
        try:
            yield folder, sockets
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(sockets, ignore_errors=True)

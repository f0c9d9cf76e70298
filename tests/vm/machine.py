"""What a test does with one of the two machines, whatever kind it is: a command, a copy of a file, a cut link, a reboot.

Kinds: ``qemu.py`` boots machines for the tests, ``over_ssh.py`` drives two that run somewhere. Nothing here waits for ever: every
command has a time limit, and a machine that is gone raises ``MachineFailure`` with what is known of its end.
"""

from __future__ import annotations

import abc
import compileall
import json
import random
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.vm.image import PROJECT

# They bound a hang, and measure nothing: beside other work an emulated machine gets a small part of a core.
BOOT_TIMEOUT_S = 1200.0
RUN_TIMEOUT_S = 600.0
IDENTITY = "/root/pydbt.identity"  # of a machine of the tests
TREE = "/vagrant"  # the project, where Vagrant puts it
_CONNECTION_FAILED = 255  # ssh's own exit code
# What stays on the machine it was made on.
_NOT_COPIED = (".git", ".venv", ".vagrant", "*.egg-info", ".pytest_cache", ".hypothesis", ".ruff_cache")


class MachineFailure(AssertionError):
    """A machine that did not do what it must, with the end of its console."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command in a machine ended."""

    code: int
    output: str
    errors: str


class Disk(Protocol):
    """One data disk. In the machine it is ``Machine.device(name)``."""

    size_bytes: int

    @property
    def path(self) -> Path:
        """The file of this host behind it. MachineFailure where there is none."""


class Machine(abc.ABC):
    """``number`` 1 is the primary and 2 the secondary. ``address`` is that on the link between them."""

    disks: Mapping[str, Disk]

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.address = ""

    @staticmethod
    def device(name: str) -> str:
        """A data disk, however the kernel numbers it; its partitions are ``-part1`` and so on."""
        return f"/dev/disk/by-id/virtio-{name}"

    # --- what differs from kind to kind ---------------------------------------------------------------------
    @property
    @abc.abstractmethod
    def alive(self) -> bool:
        """Whether it runs, as far as this host can tell without asking it."""

    @abc.abstractmethod
    def until_up(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Until it takes commands."""

    @abc.abstractmethod
    def reboot(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """As a person reboots: systemd stops every unit in its order, and the machine boots again."""

    @abc.abstractmethod
    def cut_link(self) -> None:
        """Nothing goes from here to the other machine or comes from it, and neither side is told."""

    @abc.abstractmethod
    def mend_link(self) -> None: ...

    @abc.abstractmethod
    def alarms(self) -> list[str]:
        """Lines that no healthy kernel writes."""

    @abc.abstractmethod
    def failure(self, what: str) -> MachineFailure:
        """With what is known of the machine."""

    @abc.abstractmethod
    def close(self) -> None:
        """Nothing of the tests is left of it, or on it."""

    @abc.abstractmethod
    def _ssh_options(self) -> list[object]:
        """Of ssh, without the destination."""

    @property
    @abc.abstractmethod
    def _destination(self) -> str:
        """As ssh and rsync name the machine."""

    # Before a command, where ssh does not come as root.
    _sudo: tuple[str, ...] = ()

    def _as_root(self, text: str) -> str:
        return shlex.join([*self._sudo, "bash", "-c", text]) if self._sudo else text

    def _check_alive(self, doing: str) -> None:
        """MachineFailure when it is gone."""
        if not self.alive:
            raise self.failure(f"the machine is gone ({doing})")

    def _after_a_broken_connection(self, doing: str) -> None:
        """MachineFailure when it is gone, or going."""
        self._check_alive(doing)

    # --- what only some kinds can do ------------------------------------------------------------------------
    def boot(self, *, outlive: bool = False) -> None:
        raise self.failure("it cannot be switched on from here: use --on qemu")

    def power_cut(self, chance: random.Random | None = None) -> None:
        raise self.failure("its plug cannot be pulled from here: use --on qemu")

    def shut_down(self) -> None:
        raise self.failure("it could not be switched on again from here: use --on qemu")

    def freeze(self) -> None:
        raise self.failure("it cannot be frozen from here: use --on qemu")

    def thaw(self) -> None:
        raise self.failure("it cannot be frozen from here: use --on qemu")

    # --- commands -------------------------------------------------------------------------------------------
    def run(self, command: str | Sequence[object], timeout: float = RUN_TIMEOUT_S, check: bool = True) -> Done:
        """Run a shell command as root. MachineFailure when it fails (unless ``check`` is off) or takes too long."""
        text = command if isinstance(command, str) else shlex.join(map(str, command))
        self._check_alive(text)
        process = subprocess.Popen(
            [*self._ssh(), self._as_root(text)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace",
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
                    if pipe is not None:
                        pipe.close()
                self._check_alive(text)
                raise self.failure(f"not within {timeout:.0f} s: {text}") from None
        done = Done(process.returncode, output, errors)
        if done.code == _CONNECTION_FAILED:
            self._after_a_broken_connection(text)
        if check and done.code:
            raise self.failure(f"{text} ended with {done.code}:\n{done.output[-3000:]}{done.errors[-3000:]}")
        return done

    def ssh_command(self, command: str = "", *, terminal: bool = False) -> list[str]:
        """The words of a command on this machine for a person at a terminal: no time limit, output as it comes."""
        return [*self._ssh(*(["-t"] if terminal else [])), *([self._as_root(command)] if command else [])]

    def spawn(self, command: str, log: str) -> int:
        """Run a shell command in the background, both outputs to a file; its process number, a group of its own."""
        words = f"setsid -f sh -c {shlex.quote(f'echo $$ >{log}.pid; exec {command}')} >{log} 2>&1 </dev/null"
        self.run(f"{words}; until [ -s {log}.pid ]; do sleep 0.05; done")
        return int(self.run(f"cat {log}.pid").output)

    def python(self, code: str, timeout: float = RUN_TIMEOUT_S) -> Any:
        """Run Python in the project's environment; what it prints last is JSON."""
        done = self.run(f"cd {TREE} && .venv/bin/python -c {shlex.quote(code)}", timeout)
        return json.loads(done.output.strip().splitlines()[-1])

    def answers(self) -> bool:
        try:
            words = [*self._ssh(), self._as_root("true")]
            return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=20).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    # --- files ----------------------------------------------------------------------------------------------
    def put(self, here: Path, there: str, timeout: float = RUN_TIMEOUT_S) -> None:
        self._copy([f"{here}", f"{self._destination}:{there}"], timeout)

    def get(self, there: str, here: Path, timeout: float = RUN_TIMEOUT_S) -> None:
        self._copy([f"{self._destination}:{there}", f"{here}"], timeout)

    def put_project(self) -> None:
        """This tree as it is now. Compiled modules go along, which spares the machine that work, the first one here as well."""
        for folder in (PROJECT / "pydbt", *(PROJECT / "tests" / name for name in ("lab", "vm"))):
            compileall.compile_dir(folder, quiet=2)
        without = [f"--exclude={name}" for name in _NOT_COPIED]
        self._copy(["--delete", *without, f"{PROJECT}/", f"{self._destination}:{TREE}/"], RUN_TIMEOUT_S)

    def _copy(self, arguments: list[str], timeout: float) -> None:
        self._check_alive("copying")
        shell = shlex.join(map(str, self._ssh_options()))
        there = ["--rsync-path", shlex.join([*self._sudo, "rsync"])]
        done = subprocess.run(
            ["rsync", "-a", "-S", "-e", f"ssh {shell}", *there, *arguments], capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip
        if done.returncode:
            raise self.failure(f"copying {arguments[-2:]} failed: {done.stderr[-1000:]}")

    # --- the ways in ----------------------------------------------------------------------------------------
    def _ssh(self, *more: object) -> list[str]:
        return ["ssh", *map(str, self._ssh_options()), *map(str, more), self._destination]

    def _wait(self, condition: Callable[[], bool], deadline: float, what: str) -> None:
        while not condition():
            self._check_alive(what)
            if time.monotonic() > deadline:
                raise self.failure(f"not in time: {what}")
            time.sleep(0.1)

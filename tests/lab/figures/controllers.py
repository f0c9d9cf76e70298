"""Real controllers: a secondary and a primary as processes of their own, and a network to cut between them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydbt.controller.control import call
from pydbt.controller.primary.leftover import PINS
from pydbt.core.errors import MachineError, PydbtError
from pydbt.kernel.capture import Capture
from tests.lab.figures.disks import end_with_parent, run, wait_until

_END_TIMEOUT_S = 30


class Controller:
    """One ``controller`` process. ``state_dir`` is where its control socket is."""

    def __init__(self, role: str, arguments: list[str], state_dir: Path, namespace: str | None = None) -> None:
        self.role, self.state_dir = role, state_dir
        self._log = state_dir.parent / f"{state_dir.name}.log"
        prefix = ["ip", "netns", "exec", namespace] if namespace else []
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "pydbt.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
                process_group=0,
            )
        wait_until(self._answers, f"the {role} is up")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise MachineError(f"the {self.role} ended with exit code {self.process.returncode}: {self.last_words(1)}")
        try:
            self.status()
        except PydbtError:
            return False
        return True

    def status(self) -> dict[str, Any]:
        return call(self.state_dir, {"command": "status"})

    def ask(self, command: str, timeout_s: float = 600) -> dict[str, Any]:
        """Send a command and wait for its end."""
        return call(self.state_dir, {"command": command, "timeout": timeout_s}, timeout_s + 10)

    def last_words(self, count: int = 12) -> str:
        """The end of its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-count:]) or "(no word)"

    def in_sync(self) -> bool:
        self._answers()
        return self.status()["mode"] == "normal"

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def secondary(
    target: Path, state_dir: Path, address: str, *options: str, namespace: str | None = None
) -> Iterator[Controller]:
    """A running ``controller secondary``."""
    arguments = ["secondary", str(target), "--listen", address, "--state", str(state_dir), *options]
    controller = Controller("secondary", arguments, state_dir, namespace)
    try:
        yield controller
    finally:
        controller.end()


@contextlib.contextmanager
def primary(source: Path, state_dir: Path, address: str, *options: str) -> Iterator[Controller]:
    """A running ``controller run``, taken down with its programs at the end."""
    arguments = ["run", str(source), "--secondary", address, "--state", str(state_dir), *options]
    pins: Path | None = None
    try:
        controller = Controller("primary", arguments, state_dir)
        try:
            pins = PINS / controller.status()["volume"]
            yield controller
        finally:
            with contextlib.suppress(PydbtError):
                controller.ask("down", 20)
            controller.end()
    finally:
        if pins is not None and pins.exists():
            Capture.remove_pins(pins)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Link:
    """A pair of virtual network devices; the far end is in a namespace of its own."""

    namespace: str
    near: str
    far_address: str

    def cut(self) -> None:
        run("ip", "link", "set", self.near, "down")

    def mend(self) -> None:
        run("ip", "link", "set", self.near, "up")

    def wire_bytes(self) -> int:
        """Bytes that crossed it so far, both directions, with the headers of every protocol."""
        counters = Path("/sys/class/net") / self.near / "statistics"
        return sum(int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))


@contextlib.contextmanager
def network_link() -> Iterator[Link]:
    """A network of two hosts, from the range that is set aside for measurements (RFC 2544)."""
    number = os.getpid()
    namespace, near, far = f"pydbt-bench-{number}", f"pb{number}a", f"pb{number}b"
    subnet = f"198.18.{number % 250}"
    run("ip", "netns", "add", namespace)
    try:
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace)
        run("ip", "address", "add", f"{subnet}.1/24", "dev", near)
        run("ip", "link", "set", near, "up")
        run("ip", "-n", namespace, "address", "add", f"{subnet}.2/24", "dev", far)
        run("ip", "-n", namespace, "link", "set", far, "up")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        yield Link(namespace, near, f"{subnet}.2")
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
        subprocess.run(["ip", "link", "delete", near], capture_output=True)

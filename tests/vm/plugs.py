"""Who holds the plugs of the machines: each can ask over its power line to have another one's power cut (``fence_power``)."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

from tests.vm.pair import Pair
from tests.vm.qemu import QemuMachine

_LOOK_S = 0.5


class Plugs:
    """Answers ``off NAME``, ``status NAME`` and ``status``, one line each. ``cut`` has the names, in the order of the cuts."""

    def __init__(self, machines: Pair, chance: random.Random) -> None:
        self.cut: list[str] = []
        self._machines = {machine.name: machine for machine in machines.both if isinstance(machine, QemuMachine)}
        self._chance = chance
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(machine,), name=f"power line of {machine.name}", daemon=True)
            for machine in self._machines.values()
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(10)

    def _serve(self, machine: QemuMachine) -> None:
        """The line is there while the machine runs, and again after its next boot."""
        while not self._ends.wait(_LOOK_S):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
                line.connect(str(machine.power_line))
                line.settimeout(_LOOK_S)
                self._answer_all(line)

    def _answer_all(self, line: socket.socket) -> None:
        received = b""
        while not self._ends.is_set():
            with contextlib.suppress(TimeoutError):
                if not (part := line.recv(4096)):
                    return
                received += part
            *questions, received = received.split(b"\n")
            for question in questions:
                line.sendall(self._answer(question.decode(errors="replace").split()) + b"\n")

    def _answer(self, words: list[str]) -> bytes:
        match words:
            case ["status"]:
                return b"ok"
            case ["status", name] if name in self._machines:
                return b"on" if self._machines[name].alive else b"off"
            case ["off", name] if name in self._machines:
                with self._lock:
                    self._machines[name].power_cut(self._chance)
                    self.cut.append(name)
                return b"ok"
        return b"unknown"


@contextlib.contextmanager
def held_plugs(machines: Pair, chance: random.Random) -> Iterator[Plugs]:
    plugs = Plugs(machines, chance)
    try:
        yield plugs
    finally:
        plugs.close()

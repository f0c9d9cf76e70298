"""A real primary with several real secondaries, each behind a cable of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab.cable import Cable, laid_cable
from tests.lab.cluster import Replica, Source
from tests.lab.disks import Device
from tests.lab.identities import identity
from tests.lab.patience import until
from tests.lab.programs import Outcome, Status, command


class Several(Source):
    """One volume. The primary begins with the secondaries that ``start_primary`` is given."""

    def __init__(self, folder: Path, source: Device, wires: Sequence[Cable], options: Sequence[object]) -> None:
        super().__init__(folder, source, ("--identity", identity("primary"), *options))
        self.replicas = [self._replica(number, wire) for number, wire in enumerate(wires)]

    def _replica(self, number: int, wire: Cable) -> Replica:
        folder = self.folder / f"replica{number}"
        folder.mkdir()
        return Replica(folder / "replica.img", folder / "state", folder / "secondary.log", self.size_bytes, wire=wire)

    def start_primary(self, *replicas: Replica) -> None:
        self.run_primary(*(replica.address for replica in replicas))

    def close(self) -> None:
        """Leave nothing, whatever happened."""
        try:
            self.end_primary()
        finally:
            for replica in self.replicas:
                replica.end()

    def wait(self, *words: object, timeout_s: float = 120) -> Outcome:
        """``controller wait``, with options of its own if there are any."""
        if not words:
            return self.try_wait(timeout_s)
        return command("wait", "--state", self.primary_state, "--timeout", timeout_s, *words, timeout_s=timeout_s + 60)

    def of(self, replica: Replica) -> Status:
        """The primary's view of one secondary; nothing when it has no such secondary, or does not answer."""
        entries: list[Status] = (self.status() or {"secondaries": []})["secondaries"]
        return next((entry for entry in entries if entry["secondary"] == replica.address), {})

    def until_normal(self, *replicas: Replica) -> None:
        for replica in replicas:

            def is_normal(one: Replica = replica) -> bool:
                return bool(self.of(one).get("mode") == "normal")

            until(is_normal, f"{replica.address} is in mode normal")

    def secondaries(self, *words: object) -> Outcome:
        return command("secondaries", "--state", self.primary_state, *words)


class Witness:
    """Looks at one secondary all the time; ``modes`` are all that it was seen in."""

    def __init__(self, several: Several, replica: Replica) -> None:
        self.modes: set[str] = set()
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(several, replica), daemon=True)
        self._thread.start()

    def _run(self, several: Several, replica: Replica) -> None:
        while not self._stop.wait(0.02):
            if mode := several.of(replica).get("mode"):
                self.modes.add(mode)
                self.looks += 1

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)


@contextlib.contextmanager
def several(folder: Path, source: Device, count: int, *options: object) -> Iterator[Several]:
    """Machines and cables that are not started yet, and leave nothing behind."""
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(laid_cable()) for _ in range(count)]
        made = Several(folder, source, wires, options)
        stack.callback(made.close)
        yield made

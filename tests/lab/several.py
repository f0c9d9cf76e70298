"""A real primary with several real secondaries, each behind a cable of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.cable import Cable, cable
from tests.lab.cluster import _ask, free_port
from tests.lab.disks import BlockDevice
from tests.lab.images import assert_identical
from tests.lab.programs import Daemon, Outcome, command, until


class Replica:
    """One secondary, in an image file, and every way to hurt it."""

    def __init__(self, folder: Path, number: int, wire: Cable, size_bytes: int) -> None:
        self.folder, self.wire, self.size_bytes = folder / f"replica{number}", wire, size_bytes
        self.folder.mkdir(parents=True)
        self.target, self.state = self.folder / "replica.img", self.folder / "state"
        self.address = f"{wire.far_address}:{free_port()}"
        self.process: Daemon | None = None

    def start(self) -> None:
        create = () if self.target.exists() else ("--create", self.size_bytes)
        words = ["secondary", self.target, "--listen", self.address, "--state", self.state, "--insecure", *create]
        self.process = Daemon(self.folder / "secondary.log", words, self.wire.enter)
        until(lambda: self.status() is not None or not self.process.alive, "the secondary answers")
        assert self.process.alive, self.process.words()[-2000:]

    def status(self) -> dict[str, Any] | None:
        return _ask(self.state)

    def compare(self, source: Path, when: str) -> None:
        """End it, replay its journal, and find the image identical."""
        assert self.process.terminate() == 0, self.process.words()[-2000:]
        done = command("secondary", self.target, "--state", self.state, "--replay-only")
        assert done.code == 0, done
        assert_identical(source, self.target, self.size_bytes, when)


class Several:
    """One volume. The primary begins with the secondaries that ``start_primary`` is given."""

    def __init__(self, folder: Path, source: BlockDevice, wires: list[Cable], options: tuple[object, ...]) -> None:
        self.folder, self.source, self.options = folder, source, options
        self.size_bytes = source.size_sectors * 512
        self.replicas = [Replica(folder, number, wire, self.size_bytes) for number, wire in enumerate(wires)]
        self.state = folder / "primary"
        self.primary: Daemon | None = None

    def start_primary(self, *replicas: Replica) -> None:
        named = [word for replica in replicas for word in ("--secondary", replica.address)]
        words = ["run", self.source.path, *named, "--state", self.state, "--insecure", *self.options]
        self.primary = Daemon(self.folder / "primary.log", words)
        until(lambda: self.status() is not None or not self.primary.alive, "the primary answers")
        assert self.primary.alive, self.primary.words()[-2000:]

    def close(self) -> None:
        """Leave nothing, whatever happened."""
        for daemon in (self.primary, *(replica.process for replica in self.replicas)):
            if daemon is not None:
                daemon.end()
        if self.state.exists():
            command("down", "--state", self.state)

    def status(self) -> dict[str, Any] | None:
        return _ask(self.state)

    def of(self, replica: Replica) -> dict[str, Any]:
        """What the primary says of one secondary; nothing when it has no such secondary, or does not answer."""
        entries = (self.status() or {"secondaries": []})["secondaries"]
        return next((entry for entry in entries if entry["secondary"] == replica.address), {})

    def until_normal(self, *replicas: Replica) -> None:
        for replica in replicas:
            until(
                lambda replica=replica: self.of(replica).get("mode") == "normal", f"{replica.address} is in mode normal"
            )

    def wait(self, *words: object, timeout_s: float = 120) -> Outcome:
        return command("wait", "--state", self.state, "--timeout", timeout_s, *words, timeout_s=timeout_s + 60)

    def secondaries(self, *words: object) -> Outcome:
        return command("secondaries", "--state", self.state, *words)


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
def several(folder: Path, source: BlockDevice, count: int, *options: object) -> Iterator[Several]:
    """Machines and cables that are not started yet, and leave nothing behind."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(cable()) for _ in range(count)]
        made = Several(folder, source, wires, options)
        stack.callback(made.close)
        yield made

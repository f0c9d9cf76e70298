"""A manager of services (systemd) hears when a controller does its work, that its loop turns, and when it ends."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.harm import pins_of
from tests.lab.cluster import cluster
from tests.lab.disks import loop_device
from tests.lab.patience import PATIENCE_S, until
from tests.lab.raw import DirectWriter

MIB = 1 << 20
READY, SIGN, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


class Manager:
    """What a service says, as systemd hears it."""

    def __init__(self, place: Path, wire: socket.socket) -> None:
        self.place, self._wire, self.heard = place, wire, []

    def next(self) -> str:
        """The next message; TimeoutError when there is none for long."""
        self.heard.append(self._wire.recv(4096).decode().splitlines()[0])
        return self.heard[-1]

    def forget(self) -> None:
        self._wire.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self._wire.recv(4096).decode().splitlines()[0])
        self._wire.settimeout(PATIENCE_S)
        self.heard.clear()

    def has_heard(self, message: str) -> bool:
        self._wire.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self._wire.recv(4096).decode().splitlines()[0])
        self._wire.settimeout(PATIENCE_S)
        return message in self.heard


@contextlib.contextmanager
def listening(place: Path) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(place))
        wire.settimeout(PATIENCE_S)
        yield Manager(place, wire)


def test_both_say_when_they_are_ready_while_they_live_and_when_they_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(2 * 10**6))  # a sign each half second
    with (
        listening(tmp_path / "a") as of_primary,
        listening(tmp_path / "b") as of_secondary,
        loop_device(tmp_path, 16 * MIB) as device,
        cluster(tmp_path / "c", device, primary_options=("--whole-device",)) as both,
    ):
        monkeypatch.setenv("NOTIFY_SOCKET", str(of_secondary.place))
        both.replica.start()
        assert of_secondary.next() == READY
        monkeypatch.setenv("NOTIFY_SOCKET", str(of_primary.place))
        both.run_primary(both.address)
        assert of_primary.next() == READY
        assert (pins_of(both) / "meta").exists(), "not before every write is tracked"

        both.wait()
        with DirectWriter(device.path) as writer:
            writer.put(0, b"\1" * 4096)
        both.wait()
        for manager in (of_primary, of_secondary):  # also at rest
            manager.forget()
            assert [manager.next() for _ in range(6)] == [SIGN] * 6

        both.primary.freeze()
        of_primary.forget()
        time.sleep(2)
        assert not of_primary.has_heard(SIGN), "a loop that stands still gives no sign"
        both.primary.thaw()
        until(lambda: of_primary.has_heard(SIGN), "it turns again")

        assert both.primary.terminate() == 0 and of_primary.has_heard(STOPPING)
        assert both.secondary.terminate() == 0 and of_secondary.has_heard(STOPPING)

"""A change of places is refused while nothing has changed, for whatever this side would need as a secondary afterwards."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary import handing_over
from pydbt.controller.primary.handing_over import HandingOver
from pydbt.controller.requests import Request
from pydbt.core.errors import BusyError, PeerError, PydbtError, UsageError
from pydbt.core.primary.modes import Mode
from pydbt.core.protocol.frames import HANDOVER
from pydbt.network.connection import FramedConnection
from tests.lab.programs import free_port


class Side:
    """A primary in sync. ``sent``: what the secondary was asked."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Any] = []
        self.held: list[int] = []
        state = SimpleNamespace(taints=[])
        connection = SimpleNamespace(features=(HANDOVER,), send=self.sent.append, local_host="127.0.0.1")
        self.peer: Any = SimpleNamespace(
            address="127.0.0.1:7790", brain=SimpleNamespace(mode=Mode.NORMAL, state=state), connection=connection
        )
        options = PrimaryOptions(Path("/dev/x"), (("127.0.0.1", 7790),), tmp_path, insecure=True)
        self.volume: Any = SimpleNamespace(options=options, device=SimpleNamespace(path="/dev/x"), peers={1: self.peer})
        self.busy = False
        monkeypatch.setattr(handing_over, "require_unused", lambda *_: None)
        monkeypatch.setattr(handing_over, "check_target", lambda *_, **__: None)
        system = SimpleNamespace(O_RDWR=0, O_EXCL=0, O_CLOEXEC=0, open=self._open, close=self.held.remove)
        monkeypatch.setattr(handing_over, "os", system)

    def _open(self, path: str, flags: int) -> int:
        if self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.held.append(3)
        return 3

    def switch(self, listen: str | None) -> HandingOver:
        return HandingOver(
            self.volume, self.peer, Request("switchover", threading.Event(), arguments={"listen": listen})
        )

    def refused(self, kind: type[PydbtError], listen: str | None, *words: str) -> None:
        with pytest.raises(kind) as caught:
            self.switch(listen)
        assert all(word in str(caught.value) for word in words), caught.value
        assert not self.sent and not self.held, "the secondary was asked, or the device is held"


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Side:
    return Side(tmp_path, monkeypatch)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_that_another_program_has_is_refused(side: Side, taken: int) -> None:
    side.refused(BusyError, f"127.0.0.1:{taken}", "in use by another program", "--listen", "nothing was changed")


def test_the_port_of_the_other_side_is_refused_where_a_secondary_of_another_volume_has_it(
    side: Side, taken: int
) -> None:
    side.peer.address = f"10.0.0.2:{taken}"
    side.refused(BusyError, None, f"port {taken} of 127.0.0.1", "--listen")


@pytest.mark.parametrize(
    ("listen", "kind"),
    [("192.0.2.7:7790", UsageError), ("no.such.host.invalid:7790", PeerError), ("unix:/no/such/folder/s", UsageError)],
)
def test_an_address_that_is_not_of_this_machine_is_refused(side: Side, listen: str, kind: type[PydbtError]) -> None:
    side.refused(kind, listen, "could not be the secondary", "--listen", "nothing was changed")


def test_a_disk_that_is_too_small_for_the_journal_is_refused(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(place: Path, limit_bytes: int) -> None:
        raise UsageError(f"the disk of {place} is too small for {limit_bytes}")

    port = free_port()
    monkeypatch.setattr(handing_over, "require_journal_room", refuses)
    side.refused(UsageError, f"127.0.0.1:{port}", "too small")
    assert not listens(port)


def test_the_place_is_held_from_the_question_on_and_handed_to_the_secondary(side: Side) -> None:
    port = free_port()
    change = side.switch(f"127.0.0.1:{port}")
    assert side.sent[-1].listen == f"127.0.0.1:{port}" and side.held
    with pytest.raises(BusyError):
        side.switch(f"127.0.0.1:{port}")
    change.steps.give_up("the secondary cannot")
    change.give_up()
    assert not side.held and not listens(port), "given up, and the port is still held"
    side.switch(f"127.0.0.1:{port}").give_up(PydbtError("stopped"))


def test_a_socket_of_this_machine_is_taken_away_when_it_is_given_up(side: Side, tmp_path: Path) -> None:
    place = tmp_path / "s"
    change = side.switch(f"unix:{place}")
    assert place.is_socket()
    change.give_up(PydbtError("stopped"))
    assert not place.exists()


def test_a_free_port_that_the_kernel_chose_is_told_to_the_secondary(side: Side) -> None:
    change = side.switch("127.0.0.1:0")
    port = int(side.sent[-1].listen.rpartition(":")[2])
    assert port and listens(port)
    change.give_up(PydbtError("stopped"))


def test_a_device_that_is_taken_at_the_last_moment_leaves_the_port_free(side: Side) -> None:
    side.busy, port = True, free_port()
    side.refused(BusyError, f"127.0.0.1:{port}", "is in use")
    assert not listens(port)


@pytest.mark.parametrize(
    ("family", "name", "scope"),
    [
        (socket.AF_INET6, ("fe80::1", 7790, 0, socket.if_nametoindex("lo")), "lo"),
        (socket.AF_INET6, ("::1", 7790, 0, 0), ""),
        (socket.AF_INET, ("127.0.0.1", 7790), ""),
        (socket.AF_UNIX, "", ""),
    ],
)
def test_an_address_of_one_link_keeps_its_interface(family: int, name: Any, scope: str) -> None:
    nothing = dict.fromkeys(("settimeout", "setsockopt"), lambda *_: None)
    sock: Any = SimpleNamespace(family=family, getsockname=lambda: name, **nothing)
    assert FramedConnection(sock).local_scope == scope

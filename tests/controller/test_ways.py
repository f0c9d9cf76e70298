"""The loop looks at each connection now and then, and watches the way to each secondary, also before and after a connection."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from pydbt.controller.primary.inbox import Heard, Inbox
from pydbt.controller.primary.ways import CONNECTION_LOOK_S, Ways
from pydbt.core.primary.events import LinkSeen
from pydbt.core.primary.interruption import TcpView, Way

VIEW = TcpView(0, 0.0, 0, None)
WAY = Way("192.0.2.7", "", "eth0", is_up=True, has_carrier=False, has_local=True)


class Watch:
    """In the place of the thread."""

    def __init__(self, changed: Any) -> None:
        self.changed, self.ways, self.closed = changed, {}, False

    def look_at(self, ways: dict[int, tuple[str, str]]) -> None:
        self.ways = ways

    def close(self) -> None:
        self.closed = True


class Connection:
    """A connection that can be made and lost."""

    def __init__(self, host: str) -> None:
        self.address = (host, 7790)
        self.live: tuple[str, str] | None = None

    def tcp_view(self) -> TcpView | None:
        return VIEW if self.live else None

    def ends(self) -> tuple[str, str] | None:
        return self.live


def made(*hosts: str) -> tuple[Any, Ways]:
    peers = {number: SimpleNamespace(connection=Connection(host)) for number, host in enumerate(hosts)}
    volume: Any = SimpleNamespace(peers=peers, events=deque(), inbox=Inbox())
    return volume, Ways(volume, Watch)


def test_a_way_is_watched_before_during_and_after_a_connection() -> None:
    volume, ways = made("192.0.2.7", "beta.example")
    ways.advance(0.0)
    assert ways._watch.ways == {0: ("192.0.2.7", "")}, "a name is looked up by who connects, and not here"
    volume.peers[1].connection.live = ("192.0.2.8", "192.0.2.1")
    ways.advance(CONNECTION_LOOK_S / 2)
    assert not volume.events, "not in each turn"
    ways.advance(CONNECTION_LOOK_S)
    assert ways._watch.ways == {0: ("192.0.2.7", ""), 1: ("192.0.2.8", "192.0.2.1")}
    assert list(volume.events) == [(1, LinkSeen(VIEW))]
    volume.peers[1].connection.live = None
    ways.advance(2 * CONNECTION_LOOK_S)
    assert ways._watch.ways[1] == ("192.0.2.8", ""), "the address that answered last; this side's may be another one"


def test_a_change_of_a_way_reaches_the_brain_of_its_secondary_and_nobody_when_that_is_removed() -> None:
    volume, ways = made("192.0.2.7")
    ways._watch.changed(0, WAY)
    assert volume.inbox.take(0.0) == Heard(volume.peers[0], LinkSeen(WAY))
    del volume.peers[0]
    ways._watch.changed(0, WAY)
    assert volume.inbox.take(0.0) is None
    ways.close()
    assert ways._watch.closed

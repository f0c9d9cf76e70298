"""Hears from the kernel (rtnetlink) when links, addresses or routes change, and looks then at the ways to peers."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pydbt.core.primary.interruption import Way

if TYPE_CHECKING:
    from pyroute2 import IPRoute

# RTMGRP_* of linux/rtnetlink.h: links; addresses and routes of IPv4 and of IPv6.
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_GROUPS = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE
# IFF_* of linux/if.h
_UP, _LOOPBACK, _LOWER_UP = 0x1, 0x8, 0x10000
# A router's tables may change thousands of times per second: this long is slept between two looks.
_BETWEEN_LOOKS_S = 0.05
# Without any notification it is looked this often all the same: one may be lost when the socket's buffer is full.
_LOOK_S = 30.0
# The last two: a blackhole, and an address that no route leads to.
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESRCH, errno.EINVAL}

_log = logging.getLogger("pydbt")

Ends = tuple[str, str]
"""Addresses of a connection: the peer's, and this side's, which is empty before there is a connection."""


class WayWatch:
    """A thread. ``changed`` is called from it with the number of a way and how it is now, first when it was seen first.

    Where netlink is refused it tells nothing, and the debug log why.
    """

    def __init__(self, changed: Callable[[int, Way], None]) -> None:
        self._changed = changed
        self._ways: dict[int, Ends] = {}
        self._known: dict[int, tuple[Ends, Way]] = {}
        self._told: dict[int, Way] = {}  # the last of each number, also of other ends
        self._closed = False
        self._waker, self._woken = socket.socketpair()
        try:
            threading.Thread(target=self._run, name="ways", daemon=True).start()
        except RuntimeError as error:  # no memory for a thread, or too many of them
            self._woken.close()
            _log.debug("no thread can watch links and routes (%s): the heartbeat alone finds outages", error)

    def look_at(self, ways: dict[int, Ends]) -> None:
        """Watch these ways from now on, and no others."""
        if ways != self._ways:
            self._ways = dict(ways)
            self._wake()

    def close(self) -> None:
        """End the thread; it is not waited for."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # woken already, or the thread has ended
            self._waker.send(b"x", socket.MSG_DONTWAIT)

    def _run(self) -> None:
        try:
            with contextlib.closing(_notifications()) as news:
                # Between processes of this machine there is no way.
                while not (self._ways or self._closed):
                    self._wait(news)
                if not self._closed:
                    self._follow(news)
        except Exception as error:  # a way is not worth more than the replication
            _log.debug("the kernel does not tell of links and routes (%s): the heartbeat alone finds outages", error)
            self._take_back()
        finally:
            self._woken.close()

    def _follow(self, news: socket.socket) -> None:
        # Only here: it takes half a second, and nobody waits for it.
        from pyroute2 import IPRoute

        with IPRoute() as kernel:
            while not self._closed:
                self._look(kernel)
                self._wait(news)

    def _take_back(self) -> None:
        """What was told last is not known any more, and nothing would ever tell that a way is there again."""
        for number, way in self._told.items():
            interface = way.interface or "that is not known"
            self._changed(number, replace(way, interface=interface, is_up=True, has_carrier=True, has_local=True))

    def _wait(self, news: socket.socket) -> None:
        ready, _, _ = select.select([news, self._woken], [], [], _LOOK_S)
        if news in ready and not self._closed:
            time.sleep(_BETWEEN_LOOKS_S)
        for one in ready:
            with contextlib.suppress(OSError):  # nothing more to read, or more news than the buffer holds
                while one.recv(1 << 16, socket.MSG_DONTWAIT):
                    pass

    def _look(self, kernel: IPRoute) -> None:
        ways = self._ways
        self._known = {number: known for number, known in self._known.items() if ways.get(number) == known[0]}
        for number, ends in ways.items():
            way = _way(kernel, *ends)
            if way is not None and self._known.get(number) != (ends, way):
                self._known[number] = ends, way
                self._told[number] = way
                self._changed(number, way)


def _notifications() -> socket.socket:
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    news.bind((0, _GROUPS))
    return news


def _way(kernel: IPRoute, remote: str, local: str) -> Way | None:
    """As the kernel would send a packet now; None when it does not tell.

    When the route leads elsewhere because the interface of the connection's own address is down, that interface is reported:
    answers to this address come in nowhere else.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        interface = next((route.get_attr("RTA_OIF") for route in kernel.route("get", dst=remote)), None)
        if interface is None:
            return None
        name, flags = _link(kernel, interface)
        owner = _owner(kernel, local) if local else interface
        if owner not in (None, interface) and not flags & _LOOPBACK:
            own_name, own_flags = _link(kernel, owner)
            if not (own_flags & _UP and own_flags & _LOWER_UP):
                name, flags = own_name, own_flags
    except NetlinkError as error:
        return Way(remote, local, "", False, False, True) if error.code in _NO_WAY else None
    except (OSError, ValueError):
        return None
    return Way(remote, local, name, bool(flags & _UP), bool(flags & _LOWER_UP), owner is not None)


def _link(kernel: IPRoute, interface: int) -> tuple[str, int]:
    (link,) = kernel.get_links(interface)
    return str(link.get_attr("IFLA_IFNAME")), int(link["flags"])


def _owner(kernel: IPRoute, local: str) -> int | None:
    """The interface that has an address; None when none has it."""
    for address in kernel.get_addr(family=socket.AF_INET6 if ":" in local else socket.AF_INET):
        if local in (address.get_attr("IFA_LOCAL"), address.get_attr("IFA_ADDRESS")):
            return int(address["index"])
    return None

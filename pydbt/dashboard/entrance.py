"""Where a dashboard listens: at an address that it opens itself, or at sockets that a manager of services keeps for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from pydbt.core.errors import UsageError
from pydbt.network.address import SocketAddress, format_address, resolve, unix_path
from pydbt.network.handed_over import listening_place
from pydbt.network.listen import ManyAddresses, listen
from pydbt.network.local import remove_socket


class Entrance:
    """``places``: host and port of each socket; of one's own, the host as it was named. ``close`` when nothing serves there."""

    def __init__(self, sockets: list[socket.socket], places: Sequence[tuple[str, int]], *, is_own: bool) -> None:
        self.sockets, self.places = sockets, tuple(places)
        self._is_own = is_own

    @classmethod
    def opened(cls, host: str, port: int) -> Entrance:
        """BusyError or UsageError when nobody can listen there."""
        listener = listen(host, port)
        sockets = listener.each if isinstance(listener, ManyAddresses) else [listener]
        number = 0 if unix_path(host) is not None else int(sockets[0].getsockname()[1])
        return cls(sockets, [(host, number)], is_own=True)

    @classmethod
    def kept(cls, sockets: list[socket.socket]) -> Entrance:
        """UsageError when some of them are sockets of this machine and some are not: a token is needed at these alone."""
        made = cls(sockets, [listening_place(sock) for sock in sockets], is_own=False)
        if len({unix_path(host) is not None for host, _ in made.places}) > 1:
            raise UsageError(
                "the sockets that were handed over are ports and unix:PATH together, and only these need no token: "
                "use one service for each kind"
            )
        return made

    @property
    def is_local(self) -> bool:
        """Whether it is a socket of this machine."""
        return unix_path(self.places[0][0]) is not None

    @property
    def port(self) -> int:
        return self.places[0][1]

    @property
    def hosts(self) -> frozenset[str]:
        return frozenset(host.lower() for host, _ in self.places)

    def address(self, machine: str, *, is_secure: bool) -> str:
        """As a browser needs it: at every address of this machine, by its name."""
        host = self.places[0][0]
        if self.is_local:
            return host
        shown = machine if host in ("0.0.0.0", "::") else host
        return f"http{'s' * is_secure}://{format_address(shown, self.port)}/"

    def open_to(self, users: frozenset[int]) -> None:
        """Many may come at once; and a socket of this machine may be found by all, because the kernel tells who they are.

        One that was handed over has the mode that its manager gave it.
        """
        for sock in self.sockets:
            sock.listen(socket.SOMAXCONN)
        path = unix_path(self.places[0][0])
        if self._is_own and path is not None and users - {0, os.geteuid()}:
            os.chmod(path, 0o666)

    def close(self) -> None:
        for sock in self.sockets:
            if self._is_own:
                remove_socket(sock)
            sock.close()


def beyond_loopback(places: Sequence[tuple[str, int]]) -> str:
    """The first place that other machines reach; empty when there is none. PeerError when a host has no address."""
    return next((format_address(*place) for place in places if not _is_of_this_machine(place[0])), "")


def _is_of_this_machine(host: str) -> bool:
    return unix_path(host) is not None or all(
        ip_address(_text_of(address).partition("%")[0]).is_loopback for _, address in resolve(host, 0, passive=True)
    )


def _text_of(address: SocketAddress) -> str:
    return str(address[0])

"""Puts a dashboard together: what it listens at, who asks the controllers, and who may read."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydbt.controller.control import call
from pydbt.controller.registry import name_of
from pydbt.core.errors import UsageError
from pydbt.dashboard.collector import Collector
from pydbt.dashboard.entrance import Entrance, beyond_loopback
from pydbt.dashboard.house import House
from pydbt.dashboard.pages import STATIC_FOLDER, load_pages
from pydbt.dashboard.panorama import Panorama
from pydbt.dashboard.places import Finder
from pydbt.dashboard.remote import RemoteDashboard
from pydbt.dashboard.secure import client_tls, reader_of, server_tls
from pydbt.dashboard.server import Front, serve_house
from pydbt.dashboard.tokens import Token
from pydbt.dashboard.workers import Workers
from pydbt.network.address import format_address
from pydbt.network.tls import load_identity
from pydbt.posix.privileges import Capability, forbid_core_dumps, keep_only
from pydbt.posix.service_manager import ServiceManager
from pydbt.store.peer_pin import PeerPin

WORKERS = 32
"""Questions to controllers at the same time, beside those for their status."""
KEEPS = frozenset({Capability.DAC_OVERRIDE, Capability.DAC_READ_SEARCH, Capability.BPF})
"""A state directory and its socket may be another user's; what a stopped volume lacks is in maps of the kernel."""


@dataclass(frozen=True, slots=True)
class OtherMachine:
    """A dashboard elsewhere; ``name``: what that machine is to prove, empty for whatever it was the first time."""

    name: str
    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class DashboardOptions:
    """As the command line has them. ``users``: who may use a socket of this machine; ``names``: more names of this server.

    ``peers``: the folder that keeps what the other machines have proved. ``kept``: listening sockets that a manager of services
    has handed over; ``listen`` counts where there is none.
    """

    listen: tuple[str, int]
    machine: str
    token: Token
    finder: Finder
    names: frozenset[str]
    users: frozenset[int]
    metrics_only: bool
    identity: Path | None
    certificate: Path | None
    key: Path | None
    others: tuple[OtherMachine, ...]
    peers: Path
    kept: tuple[socket.socket, ...] = ()


def run_dashboard(options: DashboardOptions, ready: Callable[[str], None], manager: ServiceManager) -> int:
    """Serve until it is stopped; its exit code. ``ready`` is called with the address once it answers. PydbtError before that."""
    forbid_core_dumps()
    kept = Entrance.kept(list(options.kept)) if options.kept else None
    beyond = beyond_loopback(kept.places if kept is not None else [options.listen])
    if beyond and options.identity is None and options.certificate is None:
        raise UsageError(
            f"{beyond} can be reached by other machines, and without TLS everybody on the way could read the "
            "token: give --identity, or --certificate with --key, or listen on 127.0.0.1"
        )
    if options.others and options.identity is None:
        raise UsageError("--of needs --identity: a dashboard elsewhere tells nothing to a machine that proves no name")
    is_secure = options.certificate is not None or bool(beyond)
    tls = server_tls(options.identity, options.certificate, options.key) if is_secure else None
    panorama = Panorama()
    collector = Collector(options.finder, panorama, options.machine)
    remotes = _remotes(options, panorama)
    entrance = kept or Entrance.opened(*options.listen)
    try:
        entrance.open_to(options.users)
        keep_only(KEEPS, runs_programs=False)
        house = _house(options, panorama, collector, remotes, entrance, is_secure)
        address = entrance.address(options.machine, is_secure=is_secure)

        def told() -> None:
            ready(address)
            manager.ready(f"serving {address}")

        identity = options.identity
        proved = (lambda _: "") if identity is None else functools.partial(reader_of, identity)
        beside = [remote.run for remote in remotes]
        collector.start()
        try:
            serve_house(house, Front(entrance.sockets, options.users, tls, proved, told, beside))
        finally:
            manager.stopping()
            collector.stop()
    finally:
        entrance.close()
    return 0


def _house(
    options: DashboardOptions,
    panorama: Panorama,
    collector: Collector,
    remotes: list[RemoteDashboard],
    entrance: Entrance,
    is_secure: bool,
) -> House:
    def ask(identity: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if (place := collector.place_of(identity)) is not None:
            return call(place.where, request, timeout_s)
        for remote in remotes:
            if remote.knows(identity):
                return remote.ask(identity, request, timeout_s)
        raise KeyError(identity)

    own_names = options.names | entrance.hosts | {options.machine.lower()}
    return House(
        token=options.token,
        panorama=panorama,
        ask=ask,
        workers=Workers(WORKERS),
        own_names=None if entrance.is_local else own_names,
        cookie_name=f"pydbt-{entrance.port}",
        pages={} if options.metrics_only else load_pages(STATIC_FOLDER),
        metrics_only=options.metrics_only,
        is_secure=is_secure,
    )


def _remotes(options: DashboardOptions, panorama: Panorama) -> list[RemoteDashboard]:
    if not options.others or options.identity is None:
        return []
    identity, tls = load_identity(options.identity, reading=True), client_tls(options.identity)
    return [
        RemoteDashboard(
            other.address,
            identity,
            tls,
            PeerPin(options.peers, other.name, name_of(format_address(*other.address))),
            panorama,
        )
        for other in options.others
    ]


def users_named(names: tuple[str, ...]) -> frozenset[int]:
    """The numbers of users by their names, with root and this user. UsageError for one that there is not."""
    import pwd

    found = {0, os.geteuid()}
    for name in names:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            raise UsageError(f"there is no user {name!r} on this machine: name the user of the proxy") from None
    return frozenset(found)

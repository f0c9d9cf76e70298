"""Addresses as people write them (HOST:PORT), and whether traffic to one stays on this machine."""

from __future__ import annotations

import socket

from pydbt.core.errors import PeerError, Unreachable, UsageError

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
"""As ``socket.getaddrinfo`` gives it: IPv4, IPv6 with flow and scope, and a family that this Python does not know."""


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[V6ADDRESS]:PORT``. Raises UsageError."""
    host, colon, port_text = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"{text!r} is ambiguous: write an IPv6 address in brackets, as in [::1]:7790")
    if not colon or not host or not port_text.isascii() or not port_text.isdigit():
        raise UsageError(f"{text!r} is not an address: use HOST:PORT, as in 192.0.2.7:7790")
    if len(port_text) > 9 or int(port_text) > 65535:
        raise UsageError(f"{text!r} names port {port_text[:12]}, and ports go from 1 to 65535")
    return host, int(port_text)


def format_address(host: str, port: int) -> str:
    """The text that ``parse_address`` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of an address that any version of this program wrote: an IPv6 address may lack its brackets."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def resolve(host: str, port: int, *, passive: bool = False) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """Every address of a host name, in the system's order. Raises PeerError."""
    flags = socket.AI_PASSIVE if passive else 0
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreachable(f"the address of {host} cannot be found: {reason}") from None
    return [(entry[0], entry[4]) for entry in found]


def is_loopback(host: str) -> bool:
    """Whether every address of a host is a loopback address; False for an unknown name."""
    try:
        addresses = [str(address[0]) for _, address in resolve(host, 0)]
    except PeerError:
        return False
    return bool(addresses) and all(_loopback(address) for address in addresses)


def _loopback(text: str) -> bool:
    import ipaddress  # only here, because most commands do without it

    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_plain_tcp(host: str, insecure: bool) -> None:
    """UsageError for plain TCP to another machine, unless the operator gave ``--insecure``."""
    if not insecure and not is_loopback(host):
        raise UsageError(
            f"{host} is not loopback and the connection is not encrypted: give --identity (see controller pki), "
            "or add --insecure if the network is trusted"
        )

"""Addresses as people write them: HOST:PORT, or unix:PATH for a socket of this machine, whose port is 0 here."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

from pydbt.core.errors import Unreachable, UsageError

UNIX = "unix:"
MAX_UNIX_PATH_BYTES = 107
"""As the kernel's sockaddr_un has room for it, with its zero byte (include/uapi/linux/un.h)."""

_LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")

SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
"""As ``socket.getaddrinfo`` gives it: IPv4, IPv6 with flow and scope, and a family that this Python does not know."""


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[V6ADDRESS]:PORT``; ``unix:PATH`` itself, and 0. Raises UsageError.

    Blanks around it are not part of it.
    """
    text = text.strip()
    if text.startswith(UNIX):
        return _unix(text), 0
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


def _unix(text: str) -> str:
    path = text.removeprefix(UNIX)
    if not path.startswith("/") or not path.isprintable():
        raise UsageError(f"{text!r} is not an address: use unix: and an absolute path, as in unix:/run/pydbt/vdb.sock")
    if len(path.encode(errors="surrogateescape")) > MAX_UNIX_PATH_BYTES:
        raise UsageError(
            f"the path in {text!r} is longer than the {MAX_UNIX_PATH_BYTES} bytes that a socket's path may have"
        )
    return UNIX + os.path.normpath(path)


def format_address(host: str, port: int) -> str:
    """The text that ``parse_address`` reads."""
    if unix_path(host) is not None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Host and port of an address that any version of this program wrote: an IPv6 address may lack its brackets."""
    if text.startswith(UNIX):
        return text, 0
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


def with_scope(text: str, scope: str) -> str:
    """The address of another machine as this one reaches it: an IPv6 address of one link needs the interface of this side.

    ``scope``: the interface over which that machine is connected, empty where addresses have no scope. Raises UsageError.
    """
    host, port = parse_address(text)
    bare = host.partition("%")[0]
    try:
        of_one_link = ip_address(bare).is_link_local and ":" in bare
    except ValueError:  # a name, or a path
        return text
    return format_address(f"{bare}%{scope}", port) if of_one_link and scope else text


def unreachable_name(host: str, port: int) -> str:
    """A sentence on a name that leads to this machine's loopback alone.

    Debian's ``/etc/hosts`` has such a line for the machine's own name.

    Empty for every other name, for an address, and for the names of loopback itself.
    """
    if unix_path(host) is not None or host in _LOOPBACK_NAMES or _is_loopback(host) is not None:
        return ""
    found = [str(address[0]) for _, address in resolve(host, port, passive=True)]
    if not found or not all(map(_is_loopback, found)):
        return ""
    return (
        f"{host} is {found[0]} on this machine (see /etc/hosts), and no other machine can connect there: name the address of the "
        "network"
    )


def _is_loopback(text: str) -> bool | None:
    """None when it is a name and no address."""
    try:
        return ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return None


def unix_path(host: str) -> str | None:
    """The path of the socket that a host ``unix:PATH`` names; None for a host of the network."""
    return host.removeprefix(UNIX) if host.startswith(UNIX) else None


def check_plain_tcp(host: str, insecure: bool) -> None:
    """UsageError for plain TCP, unless the operator gave ``--insecure``. Loopback is open to every user of the machine."""
    if not insecure and unix_path(host) is None:
        raise UsageError(
            f"{host} is named without --identity, and plain TCP authenticates nobody, on loopback neither: give --identity (see "
            "controller pki), or unix:PATH for both sides on one machine, or add --insecure if everybody who can reach "
            "the port is trusted"
        )

"""Which peer gives its place to another one when more have come than there is room for, of those that have proved nothing.

Whoever has one address often has all of its network: of IPv6 the 2**64 of a /64 (RFC 4291, section 2.5.1), of a machine itself
all of 127/8. So peers are counted by network, and a crowd displaces only its own. And the address of the primary that was
welcomed last is known to be no stranger's: nobody else displaces it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address, ip_network


def displaced(hosts: Mapping[int, str], welcomed: str = "") -> int:
    """The peer that gives up its place; ``hosts`` has the address of each, in the order of their coming, one at least.

    It is the one that has waited longest, in the network that has the most of them. The address ``welcomed`` counts as a network
    of its own, and gives up a place only when it has more than half of them: then it is a crowd itself.
    """
    networks = {peer: host if host == welcomed else network_of(host) for peer, host in hosts.items()}
    crowds = Counter(networks.values())
    if crowds[welcomed] <= len(hosts) // 2 and len(crowds) > 1:
        del crowds[welcomed]
    largest, _ = crowds.most_common(1)[0]
    return next(peer for peer, network in networks.items() if network == largest)


def network_of(host: str) -> str:
    """The /64 of an IPv6 address, 127/8 or the /24 of an IPv4 address, also of one in an IPv6 address; else the text itself."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, 64), strict=False))
        address = address.ipv4_mapped
    return str(ip_network((address, 8 if address.is_loopback else 24), strict=False))

"""A network of two hosts: the secondary's is a namespace of its own, and the cable between them can be pulled."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute, NetNS, netns

from tests.lab.patience import StepFailed

# Set aside for measurements between devices (RFC 2544), so that hardly anybody routes it; then a corner of a private one.
_RANGES = (ipaddress.ip_network("198.19.0.0/16"), ipaddress.ip_network("10.217.0.0/16"))
_PREFIX_BITS = 30
_NAMESPACE = re.compile(r"pydbt-demo-[0-9]+")


@dataclass(frozen=True, slots=True)
class Cable:
    """A pair of virtual network cards, one here and one in a namespace, named after the process that made them."""

    namespace: str
    near: str
    far: str
    near_address: str
    far_address: str

    @classmethod
    def choose(cls, number: int) -> Cable:
        """Names and addresses that nobody on this machine uses or has a route to. StepFailed when there are none."""
        taken = _networks_in_use()
        for whole in _RANGES:
            count = 1 << (_PREFIX_BITS - whole.prefixlen)
            for step in range(64):
                place = int(whole.network_address) + 4 * ((number + step * 61) % count)
                network = ipaddress.ip_network((place, _PREFIX_BITS))
                if not any(network.overlaps(other) for other in taken):
                    near, far = (str(host) for host in network.hosts())
                    return cls(f"pydbt-demo-{number}", f"pd{number}p", f"pd{number}s", near, far)
        raise StepFailed(f"every network tried in {' and '.join(map(str, _RANGES))} is in use on this machine")

    @property
    def namespace_file(self) -> Path:
        return Path("/run/netns") / self.namespace

    def lay(self) -> None:
        """Make both ends and bring them up."""
        netns.create(self.namespace)
        with IPRoute() as here, NetNS(self.namespace) as there:
            here.link("add", ifname=self.near, kind="veth", peer={"ifname": self.far, "net_ns_fd": self.namespace})
            for side, name, address in ((here, self.near, self.near_address), (there, self.far, self.far_address)):
                index = side.link_lookup(ifname=name)[0]
                side.addr("add", index=index, address=address, prefixlen=_PREFIX_BITS)
                side.link("set", index=index, state="up")
            there.link("set", index=there.link_lookup(ifname="lo")[0], state="up")

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told.

        At the far end: without our own route to it, what is sent would leave by the default route.
        """
        self._set("down")

    def mend(self) -> None:
        self._set("up")

    def _set(self, state: str) -> None:
        with NetNS(self.namespace) as there:
            there.link("set", index=there.link_lookup(ifname=self.far)[0], state=state)

    def remove(self) -> None:
        """Take away what there is of it; harmless when that is nothing."""
        assert _NAMESPACE.fullmatch(self.namespace), self.namespace
        with IPRoute() as here:
            for index in here.link_lookup(ifname=self.near):
                here.link("del", index=index)
        if self.namespace_file.exists():
            with contextlib.suppress(OSError):
                netns.remove(self.namespace)
        with contextlib.suppress(OSError):  # a file that never became a namespace
            os.unlink(self.namespace_file)


def _networks_in_use() -> list[ipaddress.IPv4Network]:
    """Of every address and every route but the default one."""
    found = []
    with IPRoute() as here:
        for message in here.get_addr(family=2):
            found.append((message.get("IFA_ADDRESS"), message["prefixlen"]))
        for message in here.get_routes(family=2):
            found.append((message.get("RTA_DST"), message["dst_len"]))
    return [ipaddress.ip_network(f"{place}/{bits}", strict=False) for place, bits in found if place and bits]

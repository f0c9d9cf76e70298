"""A network of two hosts: the second is a namespace of its own, and the cable between them can be pulled.

Every name and address has the process in it that made it, so that several tests, demos and figures run side by side.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute, netns

from tests.lab.patience import StepFailed, run

# Set aside for measurements between devices (RFC 2544), so that hardly anybody routes it; then a corner of a private one.
_RANGES = (ipaddress.IPv4Network("198.19.0.0/16"), ipaddress.IPv4Network("10.217.0.0/16"))
_PREFIX_BITS = 30
# Between the networks of one process and the next, so that two workers of one test run lie far apart.
_NETWORKS_BETWEEN_PROCESSES = 251
_NAMESPACE = re.compile(r"pydbt-(demo|test)-[0-9]+(-[0-9]+)?")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Cable:
    """A pair of virtual network cards, one here and one in a namespace, named after the process that made them."""

    namespace: str
    near: str
    far: str
    near_address: str
    far_address: str

    @classmethod
    def choose(cls, purpose: str, number: int | None = None) -> Cable:
        """Names and addresses that nobody on this machine uses or has a route to. StepFailed when there are none.

        ``purpose`` is demo or test; a process that lays several cables gives each a ``number``.
        """
        mine = f"{os.getpid()}" + ("" if number is None else f"-{number}")
        card = f"p{purpose[0]}{mine.replace('-', '.')}"
        near, far = _free_network(_NETWORKS_BETWEEN_PROCESSES * os.getpid() + (number or 0))
        cable = cls(f"pydbt-{purpose}-{mine}", f"{card}p", f"{card}s", near, far)
        assert _NAMESPACE.fullmatch(cable.namespace) and len(cable.near) <= 15, cable
        return cable

    @property
    def namespace_file(self) -> Path:
        return Path("/run/netns") / self.namespace

    @property
    def enter(self) -> list[str]:
        """Words before a command, which then runs at the far end.

        Only the network is another one: a mount namespace of its own, which `ip netns exec` makes, would keep our
        mounts busy.
        """
        return ["nsenter", f"--net={self.namespace_file}"]

    def lay(self) -> None:
        """Make both ends and bring them up."""
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.namespace)
        here: list[str] = []
        for where, card, address in ((here, self.near, self.near_address), (self.enter, self.far, self.far_address)):
            run(*where, "ip", "address", "add", f"{address}/{_PREFIX_BITS}", "dev", card)
            run(*where, "ip", "link", "set", card, "up")
        run(*self.enter, "ip", "link", "set", "lo", "up")
        # A rule can come before the table of local addresses only when this one is not the very first.
        for words in (("add", "priority", "100", "lookup", "local"), ("del", "priority", "0")):
            run(*self.enter, "ip", "rule", *words)

    # By commands: pyroute2 enters a namespace in a copy of this process, which heeds this process's signals.
    def cut(self) -> None:
        """Nothing passes any more, and nobody is told: both cards keep their carrier, as behind a switch.

        At the far end: without our own route to it, sent data would leave by the default route.
        """
        self._far_rules("add")

    def mend(self) -> None:
        self._far_rules("del")

    def _far_rules(self, change: str) -> None:
        for priority, which in (("10", ("iif", self.far)), ("11", ("to", self.near_address))):
            run(*self.enter, "ip", "rule", change, "priority", priority, *which, "blackhole")

    def unplug(self) -> None:
        """Nothing passes any more, and both ends lose their carrier."""
        run(*self.enter, "ip", "link", "set", self.far, "down")

    def plug(self) -> None:
        run(*self.enter, "ip", "link", "set", self.far, "up")

    def throttle(self, rate_bytes_per_s: int) -> None:
        """From here to the namespace this much passes at most; the rest waits, as behind a slow line."""
        words = ("tbf", "rate", f"{rate_bytes_per_s}bps", "burst", 64 << 10, "latency", "100ms")  # bps: bytes
        run("tc", "qdisc", "add", "dev", self.near, "root", *words)

    def unthrottle(self) -> None:
        run("tc", "qdisc", "del", "dev", self.near, "root")

    def wire_bytes(self) -> int:
        """Bytes that crossed it so far, both directions, with the headers of every protocol."""
        counters = Path("/sys/class/net") / self.near / "statistics"
        return sum(int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))

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


@contextlib.contextmanager
def laid_cable() -> Iterator[Cable]:
    """Laid, and taken away again whatever happens."""
    _remove_stale()
    cable = Cable.choose("test", next(_numbers))
    try:
        cable.lay()
        yield cable
    finally:
        cable.remove()


def _remove_stale() -> None:
    """Namespaces of processes that were killed; their cards go with them."""
    for path in Path("/run/netns").glob("pydbt-test-*"):
        if not Path("/proc", path.name.split("-")[2]).exists():
            with contextlib.suppress(OSError):
                netns.remove(path.name)


def _free_network(number: int) -> tuple[str, str]:
    """Both addresses of a network of two hosts, found from a number on."""
    taken = _networks_in_use()
    for whole in _RANGES:
        count = 1 << (_PREFIX_BITS - whole.prefixlen)
        for step in range(64):
            place = int(whole.network_address) + 4 * ((number + step * 61) % count)
            network = ipaddress.IPv4Network((place, _PREFIX_BITS))
            if not any(network.overlaps(other) for other in taken):
                near, far = (str(host) for host in network.hosts())
                return near, far
    raise StepFailed(f"every network tried in {' and '.join(map(str, _RANGES))} is in use on this machine")


def _networks_in_use() -> list[ipaddress.IPv4Network]:
    """Of every address and every route but the default one."""
    found = []
    with IPRoute() as here:
        for message in here.get_addr(family=2):
            found.append((message.get("IFA_ADDRESS"), message["prefixlen"]))
        for message in here.get_routes(family=2):
            found.append((message.get("RTA_DST"), message["dst_len"]))
    return [ipaddress.IPv4Network(f"{place}/{bits}", strict=False) for place, bits in found if place and bits]

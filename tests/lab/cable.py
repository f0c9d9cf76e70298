"""A network namespace for the secondary, joined to this one by a cable that can be pulled out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from pyroute2 import IPRoute, NetNS, netns


class Cable:
    """A veth pair between this namespace and one of its own."""

    def __init__(self, number: int) -> None:
        name = f"{os.getpid() % 100000}{number % 10}"
        self.namespace = f"pydbt-test-{name}"
        self.near, self.far = f"pn{name}", f"pf{name}"
        network = (os.getpid() * 251 + number) % 16000  # two processes of a test run lie far apart
        prefix = f"10.213.{network // 64}.{(network % 64) * 4}"
        base, last = prefix.rsplit(".", 1)
        self.near_address, self.far_address = f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}"

    def lay(self) -> None:
        netns.create(self.namespace)
        with IPRoute() as here, NetNS(self.namespace) as there:
            here.link("add", ifname=self.near, kind="veth", peer={"ifname": self.far, "net_ns_fd": self.namespace})
            near = here.link_lookup(ifname=self.near)[0]
            here.addr("add", index=near, address=self.near_address, prefixlen=30)
            here.link("set", index=near, state="up")
            far = there.link_lookup(ifname=self.far)[0]
            there.addr("add", index=far, address=self.far_address, prefixlen=30)
            there.link("set", index=far, state="up")
            there.link("set", index=there.link_lookup(ifname="lo")[0], state="up")

    def _set(self, state: str) -> None:
        with IPRoute() as here:
            here.link("set", index=here.link_lookup(ifname=self.near)[0], state=state)

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._set("down")

    def mend(self) -> None:
        self._set("up")

    def throttle(self, rate_bytes_per_s: int) -> None:
        """From here to the namespace not more than so much passes; the rest waits, as behind a slow line."""
        with IPRoute() as here:
            near = here.link_lookup(ifname=self.near)[0]
            here.tc("add", "tbf", near, 0x10000, rate=rate_bytes_per_s, burst=64 << 10, latency="100ms")

    def remove(self) -> None:
        with IPRoute() as here:
            for index in here.link_lookup(ifname=self.near):
                here.link("del", index=index)
        with contextlib.suppress(OSError):
            netns.remove(self.namespace)

    @property
    def enter(self) -> Callable[[], None]:
        """Moves the calling process into the namespace."""
        return lambda: netns.setns(self.namespace)


_numbers = iter(range(1 << 30))


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Laid, and taken away again whatever happens."""
    new = Cable(next(_numbers))
    try:
        new.lay()
        yield new
    finally:
        new.remove()

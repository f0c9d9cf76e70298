"""What the manager of services is told: that this service is ready, and that its loop turns.

Format: sd_notify(3), sd_watchdog_enabled(3).
A message is one datagram. The libraries for this have no wheel, or must be compiled.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import time
from collections.abc import MutableMapping
from math import inf

_WATCHED_SHARE = 0.25
"""A sign of life after each quarter of the time that the manager waits for one: a turn of the loop may take the other three."""


class ServiceManager:
    """Without a manager every call does nothing. For one thread at a time.

    ``sign_interval_s``: a sign of life is due this often; infinity where nobody waits for any.
    """

    def __init__(self, place: str = "", sign_interval_s: float = inf) -> None:
        self._place, self.sign_interval_s = place, sign_interval_s
        self._next_sign = 0.0

    @classmethod
    def that_started_us(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """The one that the environment names. Its variables are taken out, so that no child speaks for this process."""
        place = environment.pop("NOTIFY_SOCKET", "")
        waits_us, for_process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        watched = place and waits_us.isdecimal() and int(waits_us) and for_process in ("", str(os.getpid()))
        if watched and sys.__stderr__ is not None:
            # It ends a loop that hangs with SIGABRT: then the log has the place.
            with contextlib.suppress(OSError, ValueError):
                faulthandler.enable(sys.__stderr__)
        return cls(place, int(waits_us) / 1e6 * _WATCHED_SHARE if watched else inf)

    def ready(self, what: str) -> None:
        """The service does its work from now on; ``what``: one line for people."""
        self._send(f"READY=1\nSTATUS={what}")

    def stopping(self) -> None:
        """The service ends by itself: no sign of life is due any more."""
        self._send("STOPPING=1")

    def sign_of_life(self) -> None:
        """Call this at each turn of the main loop. It tells as often as is needed."""
        now = time.monotonic()
        if self.sign_interval_s < inf and now >= self._next_sign:
            self._next_sign = now + self.sign_interval_s
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._place:
            return
        address = "\0" + self._place[1:] if self._place.startswith("@") else self._place
        # A manager that does not answer must hold nothing up: its queue may be full, or it is being replaced.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire,
        ):
            wire.setblocking(False)
            wire.sendto(message.encode(errors="replace"), address)


NO_MANAGER = ServiceManager()
"""Of a process that nobody manages, as on a terminal."""

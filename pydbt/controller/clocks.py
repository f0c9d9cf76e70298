"""Ages on a machine that may have been suspended: both clocks of it are read now and then."""

from __future__ import annotations

import threading
import time

from pydbt.core.protocol.stream_times import ClockOffset
from pydbt.core.suspensions import Suspensions

_offset = ClockOffset()  # of this machine
_suspensions = Suspensions()  # of this machine
_lock = threading.Lock()


def look_at_clocks() -> None:
    """Find a suspension soon after it: what comes later is not told as from before it. From any thread."""
    with _lock:
        _suspensions.read(time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME))


def passed_s(at: float, now: float) -> float:
    """Seconds since a moment of the monotonic clock, with those of suspensions; ``now`` is that clock's, too."""
    look_at_clocks()
    return _suspensions.passed_s(at, now)


def woke_at() -> float | None:
    """When the last suspension was found to be over, by the monotonic clock; None: there was none since this process began."""
    look_at_clocks()
    return _suspensions.woke_at


def now_after(at: float | None) -> float:
    """Now, as a moment that is as much later than ``at`` as has passed, suspensions included; None: there was nothing before."""
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    return now if at is None else at + passed_s(at, now)


def monotonic_ns() -> int:
    """The clock that the programs stamp writes with."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def clock_offset_ns() -> int:
    """What is added to that clock to get nanoseconds since 1970, by the wall clock of now. From any thread."""
    with _lock:
        return _offset.look(monotonic_ns(), time.time_ns())

"""Loaded by a Python program that is started with this folder in PYTHONPATH: its wall clock is off by what a file tells.

The kernel has one CLOCK_REALTIME for all; a test may not set it. Monotonic clocks go on, as they do when a clock is set.
"""

import datetime
import os
import time

_OFFSET = os.environ["TEST_CLOCK_OFFSET"]  # the path of a file with seconds
_time, _time_ns = time.time, time.time_ns


def offset_s() -> float:
    with open(_OFFSET, encoding="ascii") as file:
        return float(file.read() or 0)


class SetDatetime(datetime.datetime):
    """Of the clock that was set."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "SetDatetime":
        return cls.fromtimestamp(time.time(), tz)


time.time = lambda: _time() + offset_s()
time.time_ns = lambda: _time_ns() + int(offset_s() * 1_000_000_000)
datetime.datetime = SetDatetime  # type: ignore[misc]

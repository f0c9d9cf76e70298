"""What a dashboard of twenty volumes costs while five look at it: all at rest, and all under load."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydbt.core.units import MIB, format_bytes
from tests.lab.figures.folders import memory_folder
from tests.lab.figures.metrics import VOLUMES, full_status
from tests.lab.figures.report import Figure, figure
from tests.lab.served_dashboard import Controller, Dashboard, Machine, serving

NAME = "watchers"
WATCHERS = 5
_SETTLE_S = 5.0
_BARS = {"at rest": 5.0, "under load": 10.0}
_PACE_S = 0.5


def measure(quick: bool) -> list[Figure]:
    """The processor time of the dashboard's process, over real control sockets whose controllers are made up."""
    seconds, rounds = (10.0, 1) if quick else (30.0, 3)
    figures = []
    for what, bar in _BARS.items():
        told = [_percent(seconds, is_loaded=what != "at rest") for _ in range(rounds)]
        values, sizes = [one for one, _ in told], sorted(size for _, size in told)
        measured = f"{WATCHERS} streams, {format_bytes(sizes[rounds // 2])} in {seconds:g} s"
        figures.append(
            figure(
                NAME,
                f"dashboard of {VOLUMES} volumes, {what}",
                measured,
                "% of a core",
                values,
                bar=bar,
                at_least=False,
            )
        )
    return figures


def _percent(seconds: float, *, is_loaded: bool) -> tuple[float, int]:
    """Of a core; and the bytes that the watchers got meanwhile."""
    with memory_folder(MIB) as folder, contextlib.ExitStack() as stack:
        machine = Machine(folder / "machine")
        stack.callback(machine.end)
        made = [machine.add(f"v{number:02}", **full_status(number)) for number in range(VOLUMES)]
        stack.enter_context(_changing(made, _loaded if is_loaded else _idle))
        dashboard = stack.enter_context(serving(machine))
        process = dashboard.process
        assert process is not None, "it is started here"
        watchers = [stack.enter_context(_watching(dashboard)) for _ in range(WATCHERS)]
        time.sleep(_SETTLE_S)
        before, began, size = _spent_s(process.pid), time.monotonic(), sum(map(sum, watchers))
        time.sleep(seconds)
        part = (_spent_s(process.pid) - before) / (time.monotonic() - began)
        return 100 * part, sum(map(sum, watchers)) - size


@contextlib.contextmanager
def _changing(controllers: list[Controller], more: Callable[[int], dict[str, Any]]) -> Iterator[None]:
    """Each answer differs from the one before by what ``more`` makes of its number."""
    over = threading.Event()

    def change() -> None:
        count = 0
        while not over.wait(_PACE_S):
            count += 1
            for controller in controllers:
                controller.status = {**controller.status, **more(count)}

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _idle(count: int) -> dict[str, Any]:
    """Heartbeats are sent, and the clock goes on."""
    in_sync = datetime.now(UTC).isoformat()
    return {"lag_seconds": count % 9 / 10, "last_in_sync": in_sync, "sent_bytes": (1 << 33) + count // 2 * 110}


def _loaded(count: int) -> dict[str, Any]:
    amount = count % 97 * 4096
    more = {"out_of_sync_bytes": amount, "unacknowledged_bytes": amount, "lag_bytes": amount}
    total = (1 << 33) + count * 16 * MIB
    return {**more, "write_rate_bytes": 32 * MIB + amount, "written_bytes": total, "sent_bytes": total}


@contextlib.contextmanager
def _watching(dashboard: Dashboard) -> Iterator[list[int]]:
    """A stream of the page, whose events are read and thrown away: the bytes of each piece."""
    sizes: list[int] = []
    with dashboard.wire() as sock:
        host = "{}:{}".format(*dashboard.address)
        sock.sendall(
            f"GET /api/stream HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {dashboard.token}\r\n\r\n".encode()
        )

        def read() -> None:
            with contextlib.suppress(OSError):
                while piece := sock.recv(1 << 20):
                    sizes.append(len(piece))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield sizes
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join()


def _spent_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

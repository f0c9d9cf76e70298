"""Keeps the history of a volume or replica in its state directory, in a thread, and answers what it was.

Nothing waits for it: the loop hands a status over, and goes on. The disk may be full, or hang: then there is less history, and
nothing else. It is never synced; what a power loss takes of it is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydbt.core.errors import BusyError, UsageError
from pydbt.core.seen.events import Event
from pydbt.core.seen.history import (
    FILE_BYTES,
    TIERS,
    EntryKind,
    HistoryEntry,
    PlacedBytes,
    entries_of,
    event_write,
    history_header,
    history_rows_of,
    is_of_this_version,
)
from pydbt.core.seen.history_rows import POINTS_MAX, Gathering, Rates, figures_of, history_answer
from pydbt.posix.files import write_all
from pydbt.posix.ownership import open_own
from pydbt.version import VERSION

HISTORY_FILE_NAME = "history"
WAITING_LOOKS_MAX = 32
"""Looks that wait while the disk hangs: more are forgotten."""
END_S = 2.0
"""The end of a run waits this long for what is to be written."""
HISTORY_TURN_S = 5.0
DEFAULT_SPAN_S = 86_400
DEFAULT_POINTS = 1000

_log = logging.getLogger("pydbt")

EventsSince = Callable[[int], tuple[tuple[Event, ...], int]]
"""The events behind a number, and the number to ask for next."""


class HistoryKeeper:
    """``look`` is called by the controller's own thread, ``answer`` by any. It begins at once, in a thread of its own.

    ``problem``: why nothing can be written; else empty.
    """

    def __init__(self, state_dir: Path, role: str, events: EventsSince) -> None:
        self._path, self._role, self._events = state_dir / HISTORY_FILE_NAME, role, events
        self._looks: queue.Queue[tuple[float, float, Mapping[str, Any]] | None] = queue.Queue(WAITING_LOOKS_MAX)
        self._gathering, self._wire = Gathering(), Rates()
        self._changing, self._reading = threading.Lock(), threading.Lock()
        self._next_entry, self._next_event = 1, 0
        self._descriptor: int | None = None
        self._unwritten: list[PlacedBytes] = []
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        with contextlib.suppress(RuntimeError):  # too many threads: no history
            self._thread.start()

    # --- for the controller -------------------------------------------------------------------------------
    def look(self, status: Mapping[str, Any]) -> None:
        """Take a status in. It never waits."""
        with contextlib.suppress(queue.Full):
            self._looks.put_nowait((time.time(), time.monotonic(), status))

    def close(self) -> None:
        """PlacedBytes down what there is; harmless when called again."""
        with contextlib.suppress(queue.Full):
            self._looks.put_nowait(None)
        if self._thread.ident is not None:
            self._thread.join(END_S)

    # --- for those who ask --------------------------------------------------------------------------------
    def answer(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to ``history``. UsageError for a span that there cannot be, BusyError while others wait for the disk."""
        now = time.time()
        until = now if (asked := arguments.get("until")) is None else asked
        first = until - DEFAULT_SPAN_S if (asked := arguments.get("from")) is None else asked
        points = DEFAULT_POINTS if (asked := arguments.get("points")) is None else asked
        if not -1e12 < first < until < 1e12:
            raise UsageError(
                f"a history is from a moment on (from) to a later one (until), in seconds since 1970, not {first} to {until}"
            )
        if not 1 <= points <= POINTS_MAX:
            raise UsageError(f"a history has 1 to {POINTS_MAX} points, not {points}")
        if not self._reading.acquire(timeout=HISTORY_TURN_S):
            raise BusyError("others look at the history of this volume: try again in a moment")
        try:
            data = self._data()
            rows = [history_rows_of(data, tier) for tier in range(len(TIERS))]
            found = history_answer(rows, entries_of(data), first, until, now, points)
        finally:
            self._reading.release()
        return {"from": first, "until": until, **found, "problem": self.problem}

    def _data(self) -> bytes:
        """The file, with what is not written to it yet."""
        kept = _read(self._path)
        data = bytearray(kept if is_of_this_version(kept) else b"").ljust(FILE_BYTES, b"\0")
        with self._changing:
            writes = [*self._unwritten, *self._gathering.writes()]
        for place, content in writes:
            data[place : place + len(content)] = content
        return bytes(data)

    # --- the thread ---------------------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            self._begin()
            while (look := self._looks.get()) is not None:
                moment, looked_at, status = look
                with self._changing:
                    writes = self._gathering.add(moment, figures_of(status, looked_at, self._wire))
                writes = [*writes, *self._new_events()]
                if writes or self._unwritten:
                    self._write(writes)
            self._write([*self._gathering.writes(), *self._new_events()])
        except Exception:  # a fault of ours costs history, and nothing else
            _log.exception("the history of this controller ended")
            self.problem = "the history ended by a fault: see the log"
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)

    def _begin(self) -> None:
        """Go on with the file, and mark the restart."""
        data = _read(self._path)
        if is_of_this_version(data):
            entries = entries_of(data)
            self._next_entry = entries[-1].number + 1 if entries else 1
            with self._changing:
                self._gathering = Gathering(data)
        mark = {"version": VERSION, "role": self._role}
        self._write([(0, history_header()), self._entry(EntryKind.RESTART, time.time(), mark)])

    def _new_events(self) -> list[PlacedBytes]:
        events, self._next_event = self._events(self._next_event)
        return [self._entry(EntryKind.EVENT, moment_of(event), event.to_json()) for event in events]

    def _entry(self, kind: EntryKind, moment: float, values: dict[str, Any]) -> PlacedBytes:
        number, self._next_entry = self._next_entry, self._next_entry + 1
        return event_write(HistoryEntry(kind, number, moment, values))

    def _write(self, writes: list[PlacedBytes]) -> None:
        """What cannot be written is tried again with the next rows, as long as it is little."""
        with self._changing:
            self._unwritten = [*self._unwritten, *writes][-_UNWRITTEN_MAX:]
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            # The header may have been dropped with the oldest that waited, and without one the file says nothing.
            for place, content in [(0, history_header())] * bool(self.problem) + self._unwritten:
                write_all(self._descriptor, [content], place)
        except OSError as error:
            if not self.problem:
                _log.warning(
                    "%s cannot be written (%s): the history of this time is missing; replication goes on",
                    self._path,
                    error.strerror,
                )
            self.problem = (
                f"the history of figures and events cannot be written ({error.strerror}); replication goes on"
            )
            return
        with self._changing:
            self._unwritten = []
        self.problem = ""

    def _open(self) -> int:
        """The file; one of another version, or of no version, is made anew."""
        descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT)
        try:
            if not is_of_this_version(os.pread(descriptor, FILE_BYTES, 0)):
                os.ftruncate(descriptor, 0)
            os.ftruncate(descriptor, FILE_BYTES)  # with holes: room is taken as it is written
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


def moment_of(event: Event) -> float:
    """When an event was, in seconds since 1970; now, where that cannot be read."""
    try:
        return datetime.fromisoformat(event.moment).timestamp()
    except (ValueError, OverflowError):
        return time.time()


def _read(path: Path) -> bytes:
    """The file, or nothing where there is none that can be read."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, FILE_BYTES, 0)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


_UNWRITTEN_MAX = 1000

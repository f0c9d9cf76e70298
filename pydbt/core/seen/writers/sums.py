"""The sums of all readings since the programs were attached: by process, by control group, and by file."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pydbt.core.seen.writers.ledger import Ledger
from pydbt.core.seen.writers.reading import (
    NO_ROOM,
    NOTHING_READ,
    Amount,
    File,
    Kind,
    Process,
    RowKey,
    Writer,
    WriterReading,
)

WRITERS_MAX = 65536
"""Numbers of writers that are remembered; the programs give each process one, and a busy machine has many."""


_KINDS = {int(kind): kind for kind in Kind}
_GAPS = 3
_BY_ITSELF = (Kind.JOURNAL, Kind.METADATA)


@dataclass(frozen=True, slots=True)
class NoFile:
    """Bytes of processes to no file that is known: to the device itself, discards."""


NO_FILE = NoFile()


class WriterSums:
    """``take`` each reading. What the rows do not explain of the counted bytes is *unknown*, never left out.

    ``counted_bytes``: by the capture's own counters at the last reading, which no row has a part in.
    """

    def __init__(self) -> None:
        self.by_process: Ledger[Process | Kind] = Ledger()
        self.by_group: Ledger[int | Kind] = Ledger()
        self.by_file: Ledger[File | NoFile | Kind] = Ledger()
        self.writers: dict[int, Writer] = {}
        self._processes: dict[Process, Writer] = {}
        self.lost_rows = self.lost_writers = 0
        self._explained_bytes = self.counted_bytes = 0
        self._gaps: deque[int] = deque(maxlen=_GAPS)
        self._last = NOTHING_READ
        self._out_of_normal = False

    def take(self, reading: WriterReading, seconds: float, *, out_of_normal: bool) -> None:
        """``seconds``: since the last reading, or since attaching. ``out_of_normal``: the volume was not in mode normal then."""
        if self._out_of_normal and not out_of_normal:
            for ledger in (self.by_process, self.by_group, self.by_file):
                ledger.back_to_normal()
        self._out_of_normal = out_of_normal
        self._know(reading)
        for key, amount in reading.rows.items():
            more = _grown(amount, None if key in self._last.ended else self._last.rows.get(key))
            if more.dirtied or more.written:
                self._add(key, more)
        lost = _grown(reading.lost, self._last.lost)
        if lost.dirtied or lost.written:
            self._add(RowKey(Kind.UNKNOWN, 0, None), lost)
        self.counted_bytes = reading.captured_bytes
        self._gaps.append(max(self.counted_bytes - self._explained_bytes, 0))
        self.lost_rows, self.lost_writers = reading.lost_rows, reading.lost_writers
        self._last = reading
        for one in (self.by_process, self.by_group, self.by_file):
            one.turn(seconds)

    @property
    def unseen_bytes(self) -> int:
        """Captured, and seen by no observing program: they are unknown. What a reading has just missed is in the next one."""
        return min(self._gaps, default=0)

    @property
    def captured_bytes(self) -> int:
        """What all rows of a view add up to, with ``unseen_bytes``."""
        return self._explained_bytes + self.unseen_bytes

    @property
    def excess_bytes(self) -> int:
        """In the rows, and counted by no capture: a fault. Capture is read after the rows, so that it is never what is late."""
        return max(self._explained_bytes - self.counted_bytes, 0)

    def _know(self, reading: WriterReading) -> None:
        for number, writer in reading.writers.items():
            if self.writers.get(number) != writer:
                self.writers[number] = writer
                self._processes.pop(writer.subject, None)
                self._processes[writer.subject] = writer
        while len(self.writers) > WRITERS_MAX:
            del self.writers[next(iter(self.writers))]
        while len(self._processes) > WRITERS_MAX:
            del self._processes[next(iter(self._processes))]

    def _add(self, key: RowKey, amount: Amount) -> None:
        self._explained_bytes += amount.written
        kind = _KINDS.get(key.kind, Kind.UNKNOWN)
        self._add_writer(kind, self.writers.get(key.writer), amount)
        if kind in _BY_ITSELF:
            self.by_file.add(kind, amount, self._out_of_normal)
        elif key.file == NO_ROOM:
            self.by_file.add(Kind.UNKNOWN, amount, self._out_of_normal)
        elif key.file is not None:
            self.by_file.add(key.file, amount, self._out_of_normal)  # also when it is not known who wrote it
        else:
            self.by_file.add(NO_FILE if kind is Kind.DIRECT else Kind.UNKNOWN, amount, self._out_of_normal)

    def _add_writer(self, kind: Kind, writer: Writer | None, amount: Amount) -> None:
        by_somebody = kind in (Kind.DIRECT, Kind.BUFFERED)
        if by_somebody and writer is not None:
            self.by_process.add(writer.subject, amount, self._out_of_normal)
            self.by_group.add(writer.cgroup, amount, self._out_of_normal)
            return
        unattributed = Kind.UNKNOWN if by_somebody else kind
        self.by_process.add(unattributed, amount, self._out_of_normal)
        self.by_group.add(unattributed, amount, self._out_of_normal)

    def process(self, subject: Process) -> Writer | None:
        """What was seen of it last; None: it was forgotten, because many have come since."""
        return self._processes.get(subject)


def _grown(now: Amount, before: Amount | None) -> Amount:
    """A row that is smaller than before was taken away and made anew."""
    if before is None or now.written < before.written or now.dirtied < before.dirtied:
        return now
    return Amount(now.dirtied - before.dirtied, now.written - before.written)

"""The file of a controller's history: seven days of figures and its last events, in places that are fixed.

A row of figures lies in the slot that its moment names, in a ring for each step of time; an event in the slot that its number
names. So the file never grows beyond ``FILE_BYTES``, nothing has to be moved, and a restart goes on where the time is. Each row
and each event has a checksum of its own: what a crash has torn is left out, and any bytes at all can be read.

All numbers are little endian. The layout is in docs/reference/format.md.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from pydbt.core.protocol.layout import Layout
from pydbt.core.units import NUMBER_MAX

HISTORY_VERSION = 1
HISTORY_MAGIC = b"PDBHIST\0"
COLUMNS = (
    "out_of_sync_bytes", "unacknowledged_bytes", "lag_bytes", "lag_seconds", "write_rate_bytes", "wire_rate_bytes",
    "log_used_bytes", "queue_used_bytes", "journal_used_bytes", "unapplied_bytes", "staged_bytes", "replica_state",
    "disconnected",
)  # fmt: skip
"""The figures of a row. Of each the larger one is the worse one."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A ring of rows, one for each ``step_s`` seconds."""

    step_s: int
    rows: int


TIERS = (Tier(10, 8640), Tier(60, 4320), Tier(600, 1008))
"""Each 10 s for a day, each minute for three days, each ten minutes for a week."""
EVENT_SLOTS = 4096

HISTORY_HEADER = Layout(
    magic="8s", version="I", columns="I", row_bytes="I", event_bytes="I", event_slots="I", checksum="I"
)
HISTORY_ROW = np.dtype(
    [
        ("checksum", "<u4"),
        ("looks", "<u4"),
        ("moment", "<i8"),
        ("least", "<f8", len(COLUMNS)),
        ("most", "<f8", len(COLUMNS)),
    ]
)
HISTORY_EVENT = Layout(checksum="I", kind="B", reserved="B", text_bytes="H", number="Q", moment="d")
EVENT_BYTES = 512
TEXT_BYTES_MAX = EVENT_BYTES - HISTORY_EVENT.size

ROWS_OFFSET = 64
EVENTS_OFFSET = ROWS_OFFSET + sum(tier.rows for tier in TIERS) * HISTORY_ROW.itemsize
FILE_BYTES = EVENTS_OFFSET + EVENT_SLOTS * EVENT_BYTES

Floats = npt.NDArray[np.float64]
PlacedBytes = tuple[int, bytes]
"""Bytes for a place of the file."""


class EntryKind(IntEnum):
    """What lies in an event's slot. RESTART marks the beginning of a run."""

    EVENT = 1
    RESTART = 2


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An event's slot: ``number`` counts all of them since the file was made; ``moment`` in seconds since 1970."""

    kind: EntryKind
    number: int
    moment: float
    values: dict[str, Any]


# --- the header ---------------------------------------------------------------------------------------------------
def history_header() -> bytes:
    """The first bytes of a file of this version."""
    fields = (HISTORY_MAGIC, HISTORY_VERSION, len(COLUMNS), HISTORY_ROW.itemsize, EVENT_BYTES, EVENT_SLOTS)
    whole = HISTORY_HEADER.pack(*fields, 0)
    return HISTORY_HEADER.pack(*fields, zlib.crc32(whole[: -_CHECKSUM.size]))


def is_of_this_version(data: bytes) -> bool:
    """Whether a file that begins so can be read, and gone on with."""
    return data[: HISTORY_HEADER.size] == history_header()


# --- rows ---------------------------------------------------------------------------------------------------------
def row_offset(tier: int, moment: int) -> int:
    """Where the row of the step that begins at this moment lies."""
    before = sum(one.rows for one in TIERS[:tier])
    return ROWS_OFFSET + (before + moment // TIERS[tier].step_s % TIERS[tier].rows) * HISTORY_ROW.itemsize


def row_bytes(moment: int, looks: int, least: Floats, most: Floats) -> bytes:
    """A row: the least and the most of each figure (NaN: unknown), over this many looks."""
    row = np.zeros(1, HISTORY_ROW)
    row["looks"], row["moment"], row["least"], row["most"] = looks, moment, least, most
    row["checksum"] = zlib.crc32(row.tobytes()[_CHECKSUM.size :])
    return row.tobytes()


def history_rows_of(data: bytes, tier: int) -> npt.NDArray[np.void]:
    """The rows of a ring that are whole, by their moments."""
    size = HISTORY_ROW.itemsize
    start, count = row_offset(tier, 0), TIERS[tier].rows
    region = data[start : start + count * size].ljust(count * size, b"\0")
    rows = np.frombuffer(region, HISTORY_ROW, count)
    moments, step = rows["moment"], TIERS[tier].step_s
    fits = (moments > 0) & (moments % step == 0) & (moments // step % count == np.arange(count)) & (rows["looks"] > 0)
    whole = [
        index
        for index in np.flatnonzero(fits).tolist()
        if zlib.crc32(region[index * size + _CHECKSUM.size : (index + 1) * size]) == rows["checksum"][index]
    ]
    found = rows[whole]
    return found[np.argsort(found["moment"])]


# --- events -------------------------------------------------------------------------------------------------------
def event_write(entry: HistoryEntry) -> PlacedBytes:
    """The bytes of an entry, and their place. Of one that is too long the figures are left out, then its words are cut."""
    text = b""
    for values in _shorter(entry.values):
        text = json.dumps(values).encode()
        if len(text) <= TEXT_BYTES_MAX:
            break
    fields = (int(entry.kind), 0, len(text), entry.number, entry.moment)
    body = (HISTORY_EVENT.pack(0, *fields) + text).ljust(EVENT_BYTES, b"\0")
    checksum = zlib.crc32(body[_CHECKSUM.size :])
    place = EVENTS_OFFSET + entry.number % EVENT_SLOTS * EVENT_BYTES
    return place, _CHECKSUM.pack(checksum) + body[_CHECKSUM.size :]


def _shorter(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same with less and less in it; the last one is nothing."""
    yield values
    bare = {**values, "figures": {}}
    yield bare
    words = str(values.get("words", ""))
    for length in (200, 100, 20):
        yield {**bare, "words": words[:length] + "..."}
    yield {}


def entries_of(data: bytes) -> list[HistoryEntry]:
    """The events and restarts that are whole, by their numbers."""
    found = []
    for slot in range(EVENT_SLOTS):
        at = EVENTS_OFFSET + slot * EVENT_BYTES
        body = data[at : at + EVENT_BYTES]
        if len(body) == EVENT_BYTES and body[: _CHECKSUM.size] != _NO_CHECKSUM and (entry := _entry(body, slot)):
            found.append(entry)
    return sorted(found, key=lambda entry: entry.number)


def _entry(body: bytes, slot: int) -> HistoryEntry | None:
    checksum, kind, _, text_bytes, number, moment = HISTORY_EVENT.unpack(body[: HISTORY_EVENT.size])
    if checksum != zlib.crc32(body[_CHECKSUM.size :]) or number % EVENT_SLOTS != slot or not abs(moment) < NUMBER_MAX:
        return None
    try:
        values = json.loads(body[HISTORY_EVENT.size : HISTORY_EVENT.size + text_bytes])
        return HistoryEntry(EntryKind(kind), number, moment, values) if isinstance(values, dict) else None
    except (ValueError, RecursionError):
        return None


_CHECKSUM = struct.Struct("<I")
_NO_CHECKSUM = bytes(4)

assert HISTORY_HEADER.size <= ROWS_OFFSET

"""A volume around a capture that is simulated, for tests of the parts that take a volume."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pydbt.controller.options import PrimaryOptions
from pydbt.controller.primary.loop import PrimaryLoop
from pydbt.controller.primary.metadata import Metadata
from pydbt.controller.primary.peer import Peer
from pydbt.controller.primary.state_save import SaveEnded
from pydbt.controller.primary.volume import Volume
from pydbt.core.tracking.capture_record import RECORD, RecordKind
from pydbt.core.units import Geometry
from pydbt.store.secondary_record import SecondaryRecord
from pydbt.store.volume_state import VolumeState

BLOCKS = 64
GEOMETRY = Geometry(BLOCKS * 4096, 4096)


class FakeCapture:
    """Bits and records as the programs make them. ``graces``: writes that happen during the next grace periods."""

    payload_available, payload_reason = True, ""
    memory_watched = shows_short_writes = True

    def __init__(self) -> None:
        self.maps = np.zeros((2, BLOCKS), bool)
        self.active = 0
        self.ring: list[tuple[int, int] | None] = []  # None: a place whose record was lost
        self.consumed = self.lost = 0
        self.graces: list[int] = []
        self.order: list[int] = []
        self.detached = False

    def watch_memory(self, on: bool) -> None:
        self.watches = on

    def write(self, block: int) -> None:
        self.maps[self.active][block] = True
        self.ring += [(RecordKind.SUBMIT, block), (RecordKind.COMPLETE, block)]

    def lose(self, records: int) -> None:
        """These records find no room: they take their places in the ring, and nothing is in them."""
        self.lost += records
        self.ring += [None] * records

    def _grace(self) -> None:
        if self.graces:
            self.write(self.graces.pop(0))

    def drain(self, limit: int) -> np.ndarray:
        while self.ring and self.ring[0] is None:
            del self.ring[0]
            self.consumed += 1
        hole = self.ring.index(None) if None in self.ring else len(self.ring)
        count = min(limit, hole)
        taken, self.ring = self.ring[:count], self.ring[count:]
        self.consumed += count
        records = np.zeros(len(taken), RECORD)
        for row, (kind, block) in zip(records, taken, strict=True):
            row["kind"], row["sector"], row["sectors"], row["op"] = kind, block * 8, 8, 1
        return records

    def producer_position(self) -> int:
        return self.consumed + len(self.ring)

    def consumer_position(self) -> int:
        return self.consumed

    def lost_count(self) -> int:
        return self.lost

    def counters(self):
        return SimpleNamespace(
            lost=self.lost, lost_records=self.lost, lost_completions=0, no_payload=0, unknown_ops=0, passthrough=0,
            recursion_misses=0, unmarked_misses=0, submit_misses=0, mark_misses=0, marked_sectors=None,
        )  # fmt: skip

    def set_payload(self, on: bool) -> None:
        self._grace()

    def flip(self) -> None:
        self.active ^= 1
        self._grace()

    def quiet_words(self) -> np.ndarray:
        return np.frombuffer(np.packbits(self.maps[1 - self.active], bitorder="little").tobytes(), "<u8")

    def zero_quiet(self) -> None:
        self.maps[1 - self.active][:] = False

    def payload(self, records: np.ndarray) -> list:
        self.order += (records["sector"] // 8).tolist()
        return [bytes(4096)] * len(records)

    def release(self, records: np.ndarray) -> None:
        pass

    def dirty_counts(self, *, with_quiet: bool = True) -> tuple[int, int]:
        return 0, 0

    def written_counts(self, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        active, quiet = (
            np.array([bits[low:high].sum() for low, high in pairwise(edges.tolist())], np.int64)
            for bits in (self.maps[self.active], self.maps[1 - self.active])
        )
        return active, quiet

    def detach(self) -> None:
        self.detached = True

    def data_size_bytes(self) -> int:
        return 1 << 20

    def data_used_bytes(self) -> int:
        return 4096


def give_up(loop: PrimaryLoop, peer: Peer) -> None:
    """Remove a secondary, and wait until that is written down."""
    told: list[str] = []
    loop.feed.part(peer, told.append)
    loop.volume.map_writer.wait()
    loop.take_inbox(0.0)
    assert told == [""]


def written(volume: Volume) -> None:
    """What was asked for is on the disk, and the volume has heard of it."""
    volume.map_writer.wait()
    while (item := volume.inbox.take(0.0)) is not None:
        if isinstance(item, SaveEnded):
            volume.metadata.ended(item)


def volume_of(state_dir: Path, *records: SecondaryRecord, watch_memory: str = "on") -> Volume:
    """A volume that has these secondaries on record; none of them has joined yet."""
    state = VolumeState("ab" * 16, GEOMETRY.size_bytes, 4096, "/dev/x", {}, records)
    options = PrimaryOptions(Path("/dev/x"), (("h", 1),), state_dir, watch_memory=watch_memory)
    device = SimpleNamespace(
        path="/dev/x", in_flight_writes=lambda: 0, counts_io=lambda: True, logical_block_bytes=512, mounts=list
    )
    reader = SimpleNamespace(check=lambda: None)
    return Volume(options, device, Metadata(state_dir, state), FakeCapture(), reader)

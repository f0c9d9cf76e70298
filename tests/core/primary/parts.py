"""A state for the part under test, and records as capture makes them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from pydbt.core.blocks.runs import Runs
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.events import BrainEffect, Captured, Persisted
from pydbt.core.primary.intake import Taken, take_in
from pydbt.core.primary.modes import Mode
from pydbt.core.primary.quiet_bitmap import QuietBitmap
from pydbt.core.primary.resync import Resync
from pydbt.core.primary.state import Effects, State
from pydbt.core.tracking.capture_record import RECORD, RecordKind, Records
from pydbt.core.units import Geometry

BLOCK_BYTES = 4096
SECTORS = BLOCK_BYTES // 512
Kind = TypeVar("Kind", bound=BrainEffect)


def state_of(blocks: int = 64, mode: Mode = Mode.UNSYNCHRONIZED, **settings: object) -> State:
    """A state whose count of writes in flight is certain."""
    settings = {"initial": False, "scan_used": False, **settings}
    state = State(PrimaryConfig(Geometry(blocks * BLOCK_BYTES, BLOCK_BYTES), epoch=7, **settings), 0.0)
    state.in_flight.trust()
    state.mode = mode
    return state


def runs(*pairs: tuple[int, int]) -> Runs:
    """Runs of (first, count)."""
    firsts, counts = np.array(pairs, np.int64).reshape(-1, 2).T
    return Runs(firsts, counts)


def records(*rows: tuple[RecordKind, int]) -> Records:
    """Of (kind, block): writes of one block each."""
    made = np.zeros(len(rows), RECORD)
    for row, (kind, block) in zip(made, rows, strict=True):
        row["kind"], row["sector"], row["sectors"], row["op"] = kind, block * SECTORS, SECTORS, 1
        row["pieces"] = row["data"] = int(kind == RecordKind.SUBMIT)
    return made


def write(state: State, *blocks: int, completed: bool = True) -> Taken:
    """Writes of single blocks, taken in."""
    rows = [(RecordKind.SUBMIT, block) for block in blocks]
    rows += [(RecordKind.COMPLETE, block) for block in blocks] if completed else []
    return take_in(state, Captured(records(*rows), state.position + len(rows), state.lost), state.now)


def taken_effects(state: State) -> list[BrainEffect]:
    """The effects since the last time, without lines for the operator."""
    made, state.effects = state.effects.items, Effects()
    return [effect for effect in made if type(effect).__name__ != "Log"]


def lines(state: State, level: str) -> list[str]:
    """The lines for the operator of a level, so far."""
    return [effect.message for effect in state.effects.items if getattr(effect, "level", None) == level]


def only(effects: list[BrainEffect], kind: type[Kind]) -> Kind:
    """The one effect of a kind."""
    (one,) = [effect for effect in effects if isinstance(effect, kind)]
    return one


def pending_of(state: State) -> list[int]:
    blocks: list[int] = state.tracker.pending.extents().blocks().tolist()
    return blocks


def fresh_map(quiet: QuietBitmap, resync: Resync) -> None:
    """A flip that the resynchronization asked for is merged, on disk, and given up."""
    quiet.taken(asked=True, in_log=False)
    resync.flipped()
    quiet.persist(zero_quiet=True)
    assert (
        quiet.written(Persisted(number=quiet.writes, zeroed=True), 0.0)
        and resync.map_persisted()
        and resync.map_on_disk
    )

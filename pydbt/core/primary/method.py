"""The method of US 7,039,661 as it stands for one secondary, in a bounded answer.

States, transaction log (Fig. 2), dirty map and update lists (Fig. 3).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, DirtyMap
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.modes import MODE_MOVES, PHASE_MOVES
from pydbt.core.tracking.tracker import Tracker
from pydbt.core.tracking.transaction_log import SLOT_BYTES, LogRecordKind

NEWEST_RECORDS = 200
SHOWN_LISTS = 64
SHOWN_SEQUENCES = 16
LOOKED_UPDATES = 4096
"""The lists are put together from the newest updates: to look for all of a block's takes as long as there are updates."""
SHOWN_MAP_RUNS = 200
LOOKED_SMALL_MAPS = 64


def legal_moves() -> dict[str, dict[str, list[str]]]:
    """Every legal move between the modes, and between the phases of a resynchronization."""
    return {
        "modes": {str(mode): sorted(map(str, after)) for mode, after in MODE_MOVES.items()},
        "phases": {str(phase): sorted(map(str, after)) for phase, after in PHASE_MOVES.items()},
    }


def method_of(brain: Primary) -> dict[str, Any]:
    """Log, maps and lists of this brain now, in blocks of the volume's own size."""
    tracker = brain.state.tracker
    updates, lists, is_complete = _lists(tracker)
    return {
        "log": _log(tracker, brain.transactions.names()),
        "dirty_map": _map(tracker.dirty),
        "pending_map": _map(tracker.pending),
        "updates": updates,
        "update_lists": lists,
        "update_lists_complete": is_complete,
    }


def _log(tracker: Tracker, names: dict[int, str]) -> dict[str, Any]:
    """``names``: of the file system's transactions, by sequence number."""
    log = tracker.log
    records = [
        {
            "position": record.position,
            "slot": record.position % log.capacity_slots,
            "kind": record.kind.name,
            "transaction": record.transaction,
            "name": names.get(record.sequence) if record.kind is LogRecordKind.FILE_SYSTEM else None,
            "sequence": record.sequence,
            "first_block": record.first_block,
            "count": record.count,
            "remaining": record.remaining,
            "active": record.active,
        }
        for record in log.records(NEWEST_RECORDS)
    ]
    return {
        "capacity_slots": log.capacity_slots,
        "slot_bytes": SLOT_BYTES,
        "used_slots": log.used_slots,
        "start": log.start,
        "end": log.end,
        "active_transactions": log.active_transactions,
        "records": records,
        "more": log.used_slots - len(records),
    }


def _map(blocks: DirtyMap) -> dict[str, Any]:
    """The beginning of a map, run by run; a run ends at the border of a small map."""
    indices = blocks.chunk_indices()
    shown: list[tuple[int, int]] = []
    for index in indices[:LOOKED_SMALL_MAPS]:
        if (left := SHOWN_MAP_RUNS - len(shown)) <= 0:
            break  # a small map may have 16,384 runs, and the loop waits for this
        firsts, counts = blocks.chunk_extents(index)
        shown += zip(firsts[:left].tolist(), counts[:left].tolist(), strict=True)
    count = blocks.count()
    return {
        "blocks": count,
        "small_maps": len(indices),
        "small_map_blocks": CHUNK_BLOCKS,
        "runs": [{"first_block": first, "count": length} for first, length in shown],
        "complete": count == sum(length for _, length in shown),
    }


def _lists(tracker: Tracker) -> tuple[int, list[dict[str, Any]], bool]:
    """How many updates wait, the lists of the blocks that were updated last, and whether these are all."""
    newest = tracker.lists.newest(LOOKED_UPDATES)
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for first, count, sequence in newest:
        found[first, count].append(sequence)
    shown = list(found.items())[:SHOWN_LISTS]
    lists = [
        {
            "block": first,
            "count": count,
            "sequences": sorted(sequences[:SHOWN_SEQUENCES]),
            "more": max(0, len(sequences) - SHOWN_SEQUENCES),
        }
        for (first, count), sequences in shown
    ]
    every = sum(count for _, count, _ in newest) == len(tracker.lists) and len(shown) == len(found)
    return len(tracker.lists), lists, every

"""The method is shown as it stands, and in a bounded answer, however much there is."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pydbt.core.blocks.dirty_map import CHUNK_BLOCKS, DirtyMap
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.method import (
    LOOKED_UPDATES,
    NEWEST_RECORDS,
    SHOWN_LISTS,
    SHOWN_MAP_RUNS,
    SHOWN_SEQUENCES,
    legal_moves,
    method_of,
)
from pydbt.core.primary.modes import Mode, Phase
from pydbt.core.units import Geometry
from tests.core.primary.test_file_system_transactions import COMPLETE, SUBMIT, Story, ended

BLOCKS = 1 << 20
GEOMETRY = Geometry(BLOCKS * 4096 - 512, 4096)


def brain_of(log_slots: int = 100_000) -> Primary:
    return Primary(PrimaryConfig(GEOMETRY, epoch=1, initial=False, scan_used=False, log_slots=log_slots), 0.0)


def insert(brain: Primary, *rows: tuple[int, int, int]) -> None:
    """Of (sequence, first block, count)."""
    sequences, firsts, counts = np.array(rows, np.int64).T
    assert brain.state.tracker.insert_all(sequences.astype(np.uint64), firsts, counts) == len(rows)


def test_the_figures_of_the_patent_are_shown_as_they_stand() -> None:
    """Fig. 3: block 1 has updates 1 and 3, block 4 has update 1."""
    brain = brain_of()
    insert(brain, (1, 1, 1), (1, 4, 1), (3, 1, 1))
    shown = method_of(brain)
    assert (shown["updates"], shown["update_lists_complete"]) == (3, True)
    assert shown["update_lists"] == [
        {"block": 1, "count": 1, "sequences": [1, 3], "more": 0}, {"block": 4, "count": 1, "sequences": [1], "more": 0},
    ]  # fmt: skip
    assert shown["dirty_map"]["runs"] == [{"first_block": 1, "count": 1}, {"first_block": 4, "count": 1}]
    assert shown["dirty_map"]["complete"] and shown["dirty_map"]["blocks"] == 2 and shown["pending_map"]["blocks"] == 0
    assert [record["transaction"] for record in shown["log"]["records"]] == [1, 1, 2]
    brain.state.tracker.acknowledge(1)
    log = method_of(brain)["log"]
    assert (log["start"], log["end"], log["active_transactions"], log["more"]) == (2, 4, 1, 0)
    kept, done = log["records"]
    assert kept == {
        "position": 2, "slot": 2, "kind": "WRITE", "transaction": 2, "name": None, "sequence": 3, "first_block": 1, "count": 1,
        "remaining": 1, "active": True,
    }  # fmt: skip
    assert (done["kind"], done["transaction"], done["count"], done["active"]) == ("DONE", 1, 1, False)


def test_a_transaction_of_the_file_system_stands_in_the_log_by_its_name() -> None:
    story = Story()
    story.batch((SUBMIT, 1), (SUBMIT, 2), (COMPLETE, 1), (COMPLETE, 2), done=(ended(1, 48_211, 1, 2),))
    story.acknowledge(1)
    brain = SimpleNamespace(state=story.state, transactions=story.transactions)
    records = method_of(brain)["log"]["records"]  # type: ignore[arg-type]
    assert [(one["kind"], one["name"]) for one in records if one["kind"] != "DONE"] == [
        ("WRITE", None),
        ("FILE_SYSTEM", "48211"),
        ("FILE_SYSTEM", "48211"),
    ]


def test_the_answer_is_bounded_and_says_what_it_leaves_out() -> None:
    brain = brain_of()
    insert(brain, *((number, number % 3, 1) for number in range(1, 3000)))
    insert(brain, *((number, 10 + 2 * number, 1) for number in range(3000, 12_000)))
    insert(brain, (12_000, 0, BLOCKS))
    brain.state.tracker.pending.set_range(0, BLOCKS)
    shown = method_of(brain)
    log, lists = shown["log"], shown["update_lists"]
    assert len(log["records"]) == NEWEST_RECORDS and log["more"] == 12_000 - NEWEST_RECORDS
    assert log["records"][-1]["sequence"] == 12_000 and log["records"][-1]["count"] == BLOCKS
    assert len(lists) == SHOWN_LISTS and not shown["update_lists_complete"] and shown["updates"] == 11_999 + BLOCKS
    assert lists[0] == {"block": 0, "count": BLOCKS, "sequences": [12_000], "more": 0}
    assert lists[1]["sequences"] == [11_999]
    assert (
        shown["pending_map"]["complete"]
        and len(shown["pending_map"]["runs"]) == shown["pending_map"]["small_maps"] == 32
    )
    assert shown["dirty_map"]["blocks"] == BLOCKS and len(json.dumps(shown)) < 100_000
    brain.state.tracker.pending.clear_blocks(np.arange(0, 4 * SHOWN_MAP_RUNS, 2))
    pending = method_of(brain)["pending_map"]
    assert len(pending["runs"]) == SHOWN_MAP_RUNS and not pending["complete"]


def test_small_maps_beyond_what_is_shown_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop waits for the answer, and a small map may have 16,384 runs."""
    brain, looked = brain_of(), []
    right = DirtyMap.chunk_extents
    monkeypatch.setattr(
        DirtyMap, "chunk_extents", lambda blocks, index: (looked.append(index), right(blocks, index))[1]
    )
    brain.state.tracker.pending.set_blocks(np.arange(0, BLOCKS, 2 * CHUNK_BLOCKS // SHOWN_MAP_RUNS + 1))
    shown = method_of(brain)["pending_map"]
    assert shown["small_maps"] == 32 and looked == [0, 1] and not shown["complete"]
    assert [run["first_block"] for run in shown["runs"]] == [number * 328 for number in range(SHOWN_MAP_RUNS)]


def test_the_newest_updates_of_a_block_that_is_updated_all_the_time_are_shown() -> None:
    brain = brain_of()
    insert(brain, *((number, 7, 1) for number in range(1, 101)))
    (one,) = method_of(brain)["update_lists"]
    assert one["sequences"] == list(range(101 - SHOWN_SEQUENCES, 101)) and one["more"] == 100 - SHOWN_SEQUENCES


def test_the_newest_updates_leave_out_what_was_deleted_or_acknowledged() -> None:
    lists = brain_of().state.tracker.lists
    lists.insert(np.array([5, 6, 7]), np.array([1, 2, 3], np.uint64))
    lists.insert_extents(np.array([100]), np.array([1000]), np.array([4], np.uint64))
    lists.insert(np.array([8]), np.array([5], np.uint64))
    lists.delete(6, 2)
    assert lists.newest(10) == [(8, 1, 5), (100, 1000, 4), (7, 1, 3), (5, 1, 1)]
    assert lists.newest(2) == [(8, 1, 5), (100, 1000, 4)]
    lists.acknowledge(3)
    assert lists.newest(LOOKED_UPDATES) == [(8, 1, 5), (100, 1000, 4)]


def test_every_mode_and_phase_is_in_the_machine_that_is_drawn() -> None:
    moves = legal_moves()
    assert set(moves["modes"]) == set(map(str, Mode)) and set(moves["phases"]) == set(map(str, Phase))
    assert moves["modes"]["normal"] == ["unsynchronized"]

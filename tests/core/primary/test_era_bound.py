"""After writes that no program saw the remembered era bounds what is compared, or one sentence says why it does not"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydbt.core.blocks.dirty_map import DirtyMap
from pydbt.core.primary.brain import Primary
from pydbt.core.primary.config import PrimaryConfig
from pydbt.core.primary.era_bound import Checkpoint, Eras, Intent, can_be_remembered, region, why_everything
from pydbt.core.tracking.capture_record import RECORD, RecordKind
from pydbt.core.tracking.replica_queue import Segment, StreamQueue
from pydbt.core.tracking.uncompleted import Uncompleted
from pydbt.core.units import KIB, MIB, Geometry

REPLICA, METADATA = "ab" * 16, "cd" * 16
KEPT = Intent(REPLICA, METADATA, 64 * KIB, era=17)
NOW = Eras(METADATA, 64 * KIB, era=21)


def test_the_remembered_era_bounds_what_is_compared_when_nothing_speaks_against_it() -> None:
    assert why_everything(KEPT, NOW, REPLICA, ()) == ""
    assert why_everything(KEPT, replace(NOW, era=17), REPLICA, ()) == "", "no era has begun since"


@pytest.mark.parametrize(
    ("kept", "now", "replica", "taints", "reason"),
    [
        (None, NOW, REPLICA, (), "no era was remembered"),
        (KEPT, NOW, "ef" * 16, (), "another replica"),
        (KEPT, replace(NOW, metadata="12" * 16), REPLICA, (), "metadata are others"),
        (KEPT, replace(NOW, region_bytes=4 * KIB), REPLICA, (), "regions of 4096 bytes, and were in 65536"),
        (KEPT, replace(NOW, era=16), REPLICA, (), "at era 16 and had come to era 17"),
        (KEPT, NOW, REPLICA, ("an unknown operation wrote",), "tainted besides (an unknown operation wrote)"),
    ],
)
def test_any_disagreement_about_the_era_compares_everything_and_the_reason_is_named(
    kept, now, replica, taints, reason
) -> None:
    assert reason in why_everything(kept, now, replica, taints)


@pytest.mark.parametrize("values", [{"era": 0}, {"era": 1 << 32}, {"region_bytes": 0}, {"region_bytes": 1000}])
def test_an_intent_that_exists_is_one_that_can_be(values) -> None:
    with pytest.raises(ValueError, match=r"era|region"):
        replace(KEPT, **values)


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    block_bytes=st.sampled_from([512, 4096, 65536]),
    region_bytes=st.sampled_from([4096, 65536, 1 << 20]),
)
def test_every_byte_of_a_region_and_every_block_of_the_map_is_compared_and_no_more_blocks_than_they_touch(
    data: st.DataObject, block_bytes: int, region_bytes: int
) -> None:
    geometry = Geometry(data.draw(st.integers(1, 4096)) * 512, block_bytes)
    regions = -(-geometry.size_bytes // region_bytes)
    marks = data.draw(st.sets(st.integers(0, regions - 1)))
    known = data.draw(st.sets(st.integers(0, geometry.block_count - 1), max_size=5))
    kept = DirtyMap(geometry.block_count)
    kept.set_blocks(np.array(sorted(known), np.int64))
    rows = np.array([(mark, mark + 1) for mark in sorted(marks)], np.int64).reshape(-1, 2)
    compared = set(region(rows, region_bytes, kept, geometry).extents().blocks().tolist())
    in_regions = {block for block in range(geometry.block_count)
                  if {block * block_bytes // region_bytes, ((block + 1) * block_bytes - 1) // region_bytes} & marks
                  or any(block * block_bytes // region_bytes <= mark <= ((block + 1) * block_bytes - 1) // region_bytes
                         for mark in marks)}  # fmt: skip
    assert compared == known | in_regions
    assert set(kept.extents().blocks().tolist()) == known, "the kept map was changed"


@pytest.mark.parametrize("row", [(0, 17), (-1, 1), (3, 3), (5, 4)])
def test_regions_outside_the_volume_are_those_of_another_one(row) -> None:
    with pytest.raises(ValueError, match="outside the volume"):
        region(np.array([row]), 64 * KIB, DirtyMap(256), Geometry(1 * MIB))


def brain_of(**changes) -> Primary:
    config = PrimaryConfig(Geometry(1 * MIB), epoch=7, initial=False, scan_used=False, replica=REPLICA, **changes)
    return Primary(config, 0.0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda brain: brain.state.taints.update({"an unknown operation wrote": 1}),
        lambda brain: setattr(brain.state.replica, "initial", True),
        lambda brain: setattr(brain.state.replica, "scanned", False),
        lambda brain: setattr(brain.state.replica, "identifier", ""),
        lambda brain: setattr(brain.state, "phase", "sweeping"),
    ],
    ids=["tainted", "never in sync", "not scanned", "unknown replica", "on its way"],
)
def test_an_era_is_remembered_only_where_the_map_tells_everything(spoil) -> None:
    brain = brain_of()
    assert can_be_remembered(brain)
    spoil(brain)
    assert not can_be_remembered(brain)
    attempt = Checkpoint(17, 0)
    brain.state.in_flight.trust()
    assert attempt.taken_in({1: brain})
    assert attempt.map_of(1, brain, []) is None


def test_a_checkpoint_waits_for_every_earlier_record_and_for_a_certain_count_in_flight() -> None:
    brain, attempt = brain_of(), Checkpoint(17, position=5)
    brain.state.in_flight.trust()
    assert not attempt.taken_in({1: brain})
    brain.state.position = 5
    assert attempt.taken_in({1: brain})
    brain.state.in_flight.reset()
    assert not attempt.taken_in({1: brain})


def test_outside_of_normal_mode_the_kernels_bitmaps_are_part_of_the_map() -> None:
    brain, attempt = brain_of(), Checkpoint(17, 0)
    brain.state.in_flight.trust()
    assert attempt.taken_in({1: brain})
    words = np.zeros(4, "<u8")
    words[1] = 1 << 3
    assert attempt.map_of(1, brain, [words]).extents().blocks().tolist() == [67]
    assert attempt.map_of(2, brain, [words]) is None, "it joined after the era began"


def records(*rows: tuple[int, int]) -> np.ndarray:
    """Of (cookie, kind)."""
    made = np.zeros(len(rows), RECORD)
    made["cookie"], made["kind"] = np.array(rows).T
    made["sectors"] = 8
    return made


def test_the_stream_ends_before_the_first_write_that_has_not_completed() -> None:
    flying = Uncompleted()
    batch = records((1, RecordKind.SUBMIT), (2, RecordKind.SUBMIT), (1, RecordKind.COMPLETE), (3, RecordKind.SUBMIT))
    is_write = batch["kind"] == RecordKind.SUBMIT
    flying.apply(batch, is_write, np.array([10, 11, 13]))
    assert flying.sendable_through == 10
    queue = StreamQueue()
    queue.append(Segment(batch[is_write], np.array([10, 12, 13]), 10, 0.0))
    assert queue.take(flying.sendable_through).last_sequence == 10
    assert queue.take(flying.sendable_through) is None, "the write numbered 11 and 12 is in flight"
    flying.apply(records((3, RecordKind.COMPLETE)), np.zeros(1, bool), np.empty(0, np.int64))
    assert queue.take(flying.sendable_through) is None
    flying.forget(12)
    assert queue.take(flying.sendable_through).last_sequence == 13 and queue.all_sent


def test_a_bio_used_again_was_completed_before() -> None:
    flying = Uncompleted()
    flying.apply(records((1, RecordKind.SUBMIT), (2, RecordKind.SUBMIT)), np.ones(2, bool), np.array([1, 2]))
    flying.apply(records((1, RecordKind.SUBMIT)), np.ones(1, bool), np.array([3]))
    assert flying.sendable_through == 1, "the second write is the first one in flight now"

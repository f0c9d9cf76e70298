"""Data that does not fit is counted and flagged, and the bits are still set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB
from pydbt.kernel.capture import Capture, CaptureOptions
from tests.lab.disks import Device, loop_device
from tests.lab.raw import write_blocks
from tests.lab.tracking import blocks_set, check_completions, tracked, wait_quiet

TINY_RECORDS = 64  # a ring of one page


def test_a_full_header_ring_counts_every_record_it_lost(tmp_path: Path) -> None:
    options = CaptureOptions(header_ring_bytes=4096, data_ring_bytes=0)
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device, options) as capture:
        write_blocks(device, 1009)
        wait_quiet(capture)
        counters = capture.counters()
        records = capture.drain()
        assert len(records) == TINY_RECORDS == counters.submitted_records + counters.completed_records
        assert (np.diff(records["position"]) == 1).all()
        assert counters.lost_records + counters.submitted_records == 1009
        assert counters.lost > 1009 - TINY_RECORDS
        check_completions(capture, 8 * 1009)
        assert blocks_set(capture.active_words()).tolist() == list(range(1009))
        assert len(capture.drain()) == 0
        assert capture.producer_position() == capture.consumer_position()
        check_all_is_well_again(device, capture)


def test_losses_in_between_are_passed_in_order(tmp_path: Path) -> None:
    """Drained a few at a time while it overflows: order and counts hold."""
    options = CaptureOptions(header_ring_bytes=4096, data_ring_bytes=0)
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device, options) as capture:
        found = []
        for number in range(40):
            write_blocks(device, 47, first=number * 47)
            wait_quiet(capture)
            found.append(capture.drain(31))
        while len(records := capture.drain(31)):
            found.append(records)
        together = np.concatenate(found)
        counters = capture.counters()
        submitted = (together["kind"] == RecordKind.SUBMIT).sum()
        assert submitted == counters.submitted_records and submitted + counters.lost_records == 40 * 47
        assert len(together) == submitted + counters.completed_records
        assert counters.lost > 0
        assert (np.diff(together["position"].astype(np.int64)) > 0).all()
        check_all_is_well_again(device, capture)


def test_a_full_data_ring_flags_the_records_and_keeps_their_order(tmp_path: Path) -> None:
    options = CaptureOptions(header_ring_bytes=MIB, data_ring_bytes=65536)
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device, options) as capture:
        write_blocks(device, 101)
        wait_quiet(capture)
        records = capture.drain()
        submitted = records[records["kind"] == RecordKind.SUBMIT]
        assert (submitted["sector"] // 8).tolist() == list(range(101))
        without = submitted["flags"] & RecordFlag.NO_PAYLOAD != 0
        assert 0 < without.sum() == capture.counters().no_payload < 101
        assert not without[0] and without[-1]
        assert len(capture.payload(records)) == 101 - without.sum()
        assert capture.counters().lost == 0
        capture.release(records)
        assert capture.data_used_bytes() == 0
        check_all_is_well_again(device, capture)


def test_a_write_larger_than_the_data_ring_is_flagged_and_gives_its_room_back(tmp_path: Path) -> None:
    options = CaptureOptions(header_ring_bytes=MIB, data_ring_bytes=65536)
    with loop_device(tmp_path, 64 * MIB) as device, tracked(device, options) as capture:
        write_blocks(device, 3, length=MIB)
        wait_quiet(capture)
        records = capture.drain()
        submitted = records[records["kind"] == RecordKind.SUBMIT]
        assert (submitted["flags"] & RecordFlag.NO_PAYLOAD != 0).all()
        assert capture.payload(records) == []
        capture.release(records)
        assert capture.data_used_bytes() == 0
        assert len(blocks_set(capture.active_words())) == 3 * 256
        check_all_is_well_again(device, capture)


def check_all_is_well_again(device: Device, capture: Capture) -> None:
    lost = capture.counters().lost
    assert capture.lost_count() == lost
    write_blocks(device, 5)
    wait_quiet(capture)
    records = capture.drain()
    assert (records["kind"] == RecordKind.SUBMIT).sum() == 5
    assert (records["flags"] & RecordFlag.NO_PAYLOAD == 0).all()
    if capture.payload_available:
        assert len(capture.payload(records)) == 5
    capture.release(records)
    assert capture.counters().lost == lost

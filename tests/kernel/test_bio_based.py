"""Devices without requests (zram here; dm volumes are of the same kind): completions match by cookie."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pydbt.core.tracking.audit import completed_by_bio
from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB
from tests.kernel.test_payload import work_with_files
from tests.lab.disks import zram_device
from tests.lab.images import differing_of
from tests.lab.patience import run
from tests.lab.tracking import PAYLOAD, Rebuilt, blocks_set, tracked


def test_a_file_system_on_a_bio_based_device(tmp_path: Path) -> None:
    with zram_device(128 * MIB) as device:
        before = device.contents()
        with tracked(device, PAYLOAD, bio_based=True) as capture:
            assert capture.payload_available, capture.payload_reason
            replica = Rebuilt(capture, before)
            replica.follow(lambda: run("mkfs.ext4", "-q", "-F", device.path))
            replica.follow(lambda: work_with_files(device, tmp_path / "mnt"))
            device.flush()
            replica.follow(lambda: None)
            replica.check_equals(device)

            seen = capture.counters()
            ended = completed_by_bio(seen.submitted_sectors, seen.submitted_records, seen.completed_records)
            assert seen.lost == 0 and ended == seen.submitted_sectors, "the audit would call a completion unseen"
            records = replica.records
            assert (records["flags"] & RecordFlag.BIO_BASED != 0).all()
            in_flight: set[int] = set()
            for kind, cookie in zip(records["kind"].tolist(), records["cookie"].tolist(), strict=True):
                if kind == RecordKind.SUBMIT:
                    in_flight.add(cookie)
                else:
                    in_flight.discard(cookie)
            assert not in_flight, "a submission without its completion"
            found = blocks_set(capture.active_words())
            assert np.isin(differing_of(before, device.contents()), found).all()

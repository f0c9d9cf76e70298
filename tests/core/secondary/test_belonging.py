"""Nothing but a record that is not promoted, and that names this very disk, makes a disk a target that others are kept off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydbt.core.secondary.belonging import Belonging, belonging
from pydbt.core.secondary.replica import ReplicaRecord

RECORD = ReplicaRecord(replica="12" * 16, target="block-device:wwn-1", segment_bytes=65536)
PROMOTED = replace(RECORD, promoted="2026-01-01T00:00:00+00:00")
NAMELESS = replace(RECORD, target="block-device:")
WWN1, WWN2 = {"wwid": "block-device:wwn-1"}, {"wwid": "block-device:wwn-2"}


@pytest.mark.parametrize(
    ("record", "kept", "now", "found"),
    [
        (None, {}, WWN1, Belonging.NO_RECORD),
        (RECORD, {}, WWN1, Belonging.REPLICA),
        (RECORD, WWN1, WWN1, Belonging.REPLICA),
        (RECORD, WWN1, WWN2, Belonging.OTHER_DISK),
        (RECORD, {}, {}, Belonging.OTHER_DISK),
        (PROMOTED, WWN1, WWN1, Belonging.VOLUME),
        (PROMOTED, WWN1, WWN2, Belonging.VOLUME),
        (NAMELESS, {}, {}, Belonging.NAMELESS),
    ],
)
def test_the_record_alone_decides_whether_a_disk_is_a_target(
    record: ReplicaRecord | None, kept: dict[str, str], now: dict[str, str], found: Belonging
) -> None:
    assert belonging(record, kept, now.get("wwid", "block-device:"), now) is found


def test_each_but_a_replicas_target_is_told_with_its_reason() -> None:
    told = {one: one.words("/dev/vdb", "/state") for one in Belonging}
    assert told.pop(Belonging.REPLICA) == ""
    assert all(told.values()) and len(set(told.values())) == len(told)

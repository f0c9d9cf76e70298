"""A loop device reports success for a write of which its file took only the first part: capture flags that write as failed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pydbt.core.tracking.capture_record import RecordFlag, RecordKind
from pydbt.core.units import MIB, SECTOR_BYTES
from pydbt.kernel import layout
from pydbt.kernel.btf import Btf
from tests.lab.disks import crowded_loop
from tests.lab.images import differing_of
from tests.lab.raw import DirectWriter
from tests.lab.tracking import PAYLOAD, Rebuilt, tracked

_LENGTH = 75 * 4096
_ROUNDS = 20


def write_into_little_room(path: Path, filler: Path, flags: int) -> list[int]:
    """Each time to a new place, with room for some of it. Returns the places whose writes returned without an error."""
    succeeded = []
    with DirectWriter(path, private=True, flags=flags) as writer:
        for number in range(_ROUNDS):
            os.truncate(filler, filler.stat().st_size - (1 + 7 * number % 60) * 4096)
            try:
                writer.put(number * _LENGTH, os.urandom(_LENGTH))
            except OSError:
                continue
            succeeded.append(number)
    return succeeded


@pytest.mark.parametrize("flags", [0, os.O_DSYNC], ids=["", "flushed"])
@pytest.mark.parametrize("how", ["off", "on"])
def test_a_write_that_a_loop_device_took_only_in_part_counts_as_failed(tmp_path: Path, how: str, flags: int) -> None:
    with (
        crowded_loop(tmp_path, 16 * MIB, 16 * MIB, f"--direct-io={how}") as (device, filler),
        tracked(device, PAYLOAD) as capture,
    ):
        filler.write_bytes(bytes(16 * MIB - (64 << 10)))
        replica = Rebuilt(capture, device.contents())
        succeeded: list[int] = []
        replica.follow(lambda: succeeded.extend(write_into_little_room(device.path, filler, flags)))
        differing = differing_of(replica.image, device.contents(), SECTOR_BYTES)
        silently = set(succeeded) & set((differing * SECTOR_BYTES // _LENGTH).tolist())
        assert len(silently) > _ROUNDS // 2, "hardly any write went in only in part: the test proves nothing"
        records = replica.records
        failed = records[(records["kind"] == RecordKind.COMPLETE) & (records["flags"] & RecordFlag.ERROR != 0)]
        covered = np.zeros(device.size_sectors, bool)
        for sector, sectors in zip(failed["sector"].tolist(), failed["sectors"].tolist(), strict=True):
            covered[sector : sector + sectors] = True
        assert covered[differing].all(), f"{(~covered[differing]).sum()} sectors differ with no word of a failure"


def test_a_loop_device_with_room_has_no_failed_writes(tmp_path: Path) -> None:
    with (
        crowded_loop(tmp_path, 16 * MIB, 32 * MIB) as (device, _),
        tracked(device, PAYLOAD) as capture,
        DirectWriter(device.path, private=True) as writer,
    ):
        replica = Rebuilt(capture, device.contents())
        replica.follow(lambda: [writer.put(at, os.urandom(_LENGTH)) for at in range(0, 8 * MIB, _LENGTH)])
        replica.check_equals(device)
        assert not (replica.records["flags"] & RecordFlag.ERROR).any()


def test_this_kernel_shows_what_the_file_of_a_loop_device_took() -> None:
    assert layout.loop_command(Btf.of_running_kernel()) is not None

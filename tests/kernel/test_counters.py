"""Counts are summed over programs and CPUs, whichever of them is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from pydbt.kernel import counters as module
from pydbt.kernel.counters import read_counters, read_lost
from pydbt.kernel.record import COUNTERS, Program
from pydbt.kernel.syscalls import ProgramInfo


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("value_bytes", [COUNTERS.itemsize, COUNTERS.itemsize + 4])
def test_the_losses_are_the_same_read_alone_as_among_all_counts(
    cpus: int, value_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value of a map is rounded up to 8 bytes for each CPU."""
    stride = value_bytes + 7 & ~7
    random = np.random.default_rng(cpus + value_bytes)
    values = {key: random.integers(0, 1 << 40, stride * cpus // 8, "<u8").tobytes() for key in Program}

    def lookup(fd: int, key: int, size_bytes: int) -> bytes:
        assert fd == 7 and size_bytes == len(values[key])
        return values[key]

    monkeypatch.setattr(module.syscalls, "map_lookup", lookup)
    monkeypatch.setattr(module.syscalls, "program_info", lambda fd: ProgramInfo(fd, "p", 0, 0, 10 * fd))
    programs = {Program.REQUEST_COMPLETE: 1, Program.BIO_COMPLETE: 2, Program.SUBMIT: 3}
    everything = read_counters(7, value_bytes, cpus, programs)
    assert (everything.completion_misses, everything.submit_misses, everything.recursion_misses) == (30, 30, 60)
    assert everything.marked_sectors is None and everything.unmarked_misses == 60
    assert read_lost(7, value_bytes, cpus, programs) == everything.lost
    assert everything.lost == everything.lost_records + everything.lost_completions + 60
    apart = programs | {Program.MARK: 4, Program.UNDERSTUDY: 5, Program.WITNESS: 6}
    marked = read_counters(7, value_bytes, cpus, apart)
    assert marked.marked_sectors is not None and marked.mark_misses == 40
    assert marked.submit_misses == 50, "no more than the understudy, and no more than the witness, was refused for"
    assert marked.unmarked_misses == 30, "what submit missed is marked"
    assert read_lost(7, value_bytes, cpus, apart) == marked.lost
    assert marked.lost == marked.lost_records + marked.lost_completions + marked.unrecorded + 30 + 50
    assert read_counters(7, value_bytes, cpus, apart | {Program.WITNESS: 0}).submit_misses == 0

"""The counts of the programs and of the kernel itself, summed over programs and CPUs.

A count that must be zero while the volume counts as tracked has its own name here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pydbt.core.units import SECTOR_BYTES
from pydbt.kernel import syscalls
from pydbt.kernel.record import COUNTER_NAMES, COUNTERS, Program

_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")
_LOST = COUNTER_NAMES.index("lost")
# Each write at its submission is counted by one of these.
_SEEING = (Program.SUBMIT, Program.UNDERSTUDY, Program.WITNESS)


@dataclass(frozen=True, slots=True)
class Counters:
    """All counts begin at attach. Sectors are counted after clipping to the volume."""

    submitted_records: int
    completed_records: int
    submitted_sectors: int
    completed_sectors: int
    submitted_discard_sectors: int  # part of submitted_sectors that /sys counts apart
    marked_sectors: int | None  # submitted as well, by the program that only marks; None where there is none
    lost_records: int  # submissions without room in the header ring; their bits are set
    unrecorded: int  # submissions that no program was let record (bpf/preempted.bpf.h); their bits are set
    lost_completions: int
    no_payload: int  # records whose data did not fit
    unstable: int  # completions with Flag.UNSTABLE
    unknown_ops: int  # writes of a kind whose blocks are unknown: taints
    passthrough: int  # commands that bypass the block layer: taints
    submit_misses: int  # events, at most, that no program of submissions told of: each was active on that CPU
    completion_misses: int  # the same of completions: taints
    mark_misses: int  # the same of the program that only marks; 0 where there is none
    run_time_ns: int  # only while kernel.bpf_stats_enabled
    run_count: int

    @property
    def lost(self) -> int:
        """Events that are missing from the ordered log."""
        return self.lost_records + self.lost_completions + self.recursion_misses

    @property
    def recursion_misses(self) -> int:
        """Events of which no record can exist, because the kernel did not deliver them."""
        return self.submit_misses + self.completion_misses + self.unrecorded

    @property
    def unmarked_misses(self) -> int:
        """Those of them that no other program has marked, as far as the counts tell: taints."""
        return self.completion_misses + (self.submit_misses if self.marked_sectors is None else 0)


def possible_cpus(path: Path = _POSSIBLE_CPUS) -> int:
    """The number of values in a per-CPU map: one for each possible CPU, also when it is offline."""
    return 1 + max(int(part.rpartition("-")[2]) for part in path.read_text().strip().split(","))


def read_counters(state_fd: int, value_bytes: int, cpus: int, program_fds: Mapping[Program, int]) -> Counters:
    """Read and sum the counts. Each is exact, but they are not all from the same instant."""
    totals = {program: _program_totals(state_fd, program, value_bytes, cpus) for program in program_fds}
    infos = {program: syscalls.program_info(fd) for program, fd in program_fds.items()}
    misses = {program: info.recursion_misses for program, info in infos.items()}
    completions = (totals[Program.REQUEST_COMPLETE], totals[Program.BIO_COMPLETE])
    recording = [totals[program] for program in (Program.SUBMIT, Program.UNDERSTUDY) if program in totals]
    seeing = [totals[program] for program in _SEEING if program in totals]

    def summed(parts: Iterable[dict[str, int]], name: str) -> int:
        return sum(total[name] for total in parts)

    return Counters(
        submitted_records=summed(recording, "ordinal") - summed(recording, "lost"),
        completed_records=summed(completions, "ordinal") - summed(completions, "lost"),
        submitted_sectors=summed(seeing, "sectors"),
        completed_sectors=summed(completions, "sectors"),
        submitted_discard_sectors=summed(seeing, "discard_sectors"),
        marked_sectors=totals[Program.MARK]["sectors"] if Program.MARK in totals else None,
        lost_records=summed(recording, "lost"),
        unrecorded=totals[Program.WITNESS]["lost"] if Program.WITNESS in totals else 0,
        lost_completions=summed(completions, "lost"),
        no_payload=summed(recording, "no_payload"),
        unstable=summed(completions, "unstable"),
        unknown_ops=max(total["unknown_ops"] for total in totals.values()),
        passthrough=summed(completions, "passthrough"),
        submit_misses=_submit_misses(misses),
        completion_misses=misses[Program.REQUEST_COMPLETE] + misses[Program.BIO_COMPLETE],
        mark_misses=misses.get(Program.MARK, 0),
        run_time_ns=sum(info.run_time_ns for info in infos.values()),
        run_count=sum(info.run_count for info in infos.values()),
    )


def read_lost(state_fd: int, value_bytes: int, cpus: int, program_fds: Mapping[Program, int]) -> int:
    """``Counters.lost`` alone, at a third of the cost: the controller reads it each time that it reads the ring."""
    lost, stride = _LOST, (value_bytes + 7 & ~7) // 8
    misses = {program: syscalls.program_info(fd).recursion_misses for program, fd in program_fds.items()}
    total = _submit_misses(misses) + misses[Program.REQUEST_COMPLETE] + misses[Program.BIO_COMPLETE]
    for program in program_fds:
        if program is Program.MARK:  # it makes no records
            continue
        words = memoryview(syscalls.map_lookup(state_fd, program, stride * 8 * cpus)).cast("Q")
        total += sum(words[lost::stride])
    return total


def _submit_misses(misses: Mapping[Program, int]) -> int:
    """Submissions of which no program has told. Where there is a witness it counts what submit and its understudy were refused
    for; at most so often were the last two refused for the same one."""
    if Program.WITNESS not in misses:
        return misses[Program.SUBMIT]
    return min(misses[Program.UNDERSTUDY], misses[Program.WITNESS])


def submitted_bytes(state_fd: int) -> int:
    """Bytes of the volume that were submitted since the programs were attached, whether a record was made or not."""
    info, cpus = syscalls.map_info(state_fd), possible_cpus()
    seeing = [program for program in _SEEING if program < info.max_entries]  # those of an earlier version have fewer
    return sum(_program_totals(state_fd, one, info.value_bytes, cpus)["sectors"] for one in seeing) * SECTOR_BYTES


def _program_totals(fd: int, program: Program, value_bytes: int, cpus: int) -> dict[str, int]:
    stride = value_bytes + 7 & ~7
    raw = syscalls.map_lookup(fd, program, stride * cpus)
    words = np.ndarray((cpus, COUNTERS.itemsize // 8), "<u8", raw, strides=(stride, 8))
    return dict(zip(COUNTER_NAMES, words.sum(axis=0).tolist(), strict=True))

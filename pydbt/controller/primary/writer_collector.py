"""Reads the programs that see who writes, sums up, and finds what the machine calls those who do. Used by one thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydbt.controller.primary.moments import wall_moment
from pydbt.core.seen.writers.answer import group_name, process_name, views
from pydbt.core.seen.writers.outrun import OutrunWatch, Sample
from pydbt.core.seen.writers.reading import File, Names, Process
from pydbt.core.seen.writers.sampling import ChunkSample, Sampling
from pydbt.core.seen.writers.sums import WriterSums
from pydbt.device.file_handles import group_mount, path_of_file, path_of_group
from pydbt.device.sysfs import BlockDevice
from pydbt.device.written_places import WrittenPlaces, own_mounts, written_places
from pydbt.kernel.capture import Capture
from pydbt.kernel.tracing.writers import MOUNTED, WriterPrograms
from pydbt.posix.user_names import user_names

# Mounts of other mount namespaces are looked for this often; those of this one as soon as there are new ones.
_PLACES_S = 10.0
# To find a file's name takes some microseconds, and for these its file system counts as in use.
_NEW_NAMES_MAX = 16
_NAMES_KEPT = 4096
# A name may change, and one that was not found may be found later.
_NAME_LASTS_S = 60.0


@dataclass(frozen=True, slots=True)
class VolumeStanding:
    """How the volume stands at a moment (monotonic), as the status tells it; None: not known.

    ``out_of_normal_for_s`` None: it is in mode normal.
    """

    moment: float
    connected: bool
    backlog_bytes: int | None
    out_of_sync_bytes: int | None
    out_of_normal_for_s: float | None


class WriterCollector:
    """MachineError or DeviceError when the programs cannot be attached.

    ``standing``: the last one that is known. ``is_looked_at``: somebody wants to know; names of files are looked for only then.
    """

    def __init__(
        self,
        device: BlockDevice,
        capture: Capture,
        standing: Callable[[], VolumeStanding | None],
        is_looked_at: Callable[[], bool],
    ) -> None:
        self._device, self._standing, self._is_looked_at = device, standing, is_looked_at
        places, mounts = written_places(device), own_mounts()
        with contextlib.ExitStack() as stack:
            self._programs = stack.enter_context(WriterPrograms.attach(capture.volume, capture.pin_dir))
            self._programs.set_places(_flags(places))
            self._open = stack.pop_all()
        self._since = self._turned_at = time.monotonic()
        self._places, self._mounts, self._placed_at = places, mounts, self._since
        self._sums, self._outrun = WriterSums(), OutrunWatch()
        self._sampling, self._sample, self._looks = Sampling(), ChunkSample(), 0
        self._judged_at = 0.0
        self._names = _FoundNames()
        self._users, self._users_at = user_names(), self._since
        self._group_mount = group_mount()

    def close(self) -> None:
        self._open.close()

    def turn(self) -> None:
        """One reading. DeviceError when the device is gone."""
        now = time.monotonic()
        self._look_at_places(now)
        standing = self._standing()
        reading = self._programs.read()
        out_of_normal = standing is not None and standing.out_of_normal_for_s is not None
        self._sums.take(reading, now - self._turned_at, out_of_normal=out_of_normal)
        sample = self._sampling.look((reading.looks - self._looks) / max(now - self._turned_at, 1e-3), now)
        if sample != self._sample:
            self._programs.sample(sample)
        self._looks, self._sample, self._turned_at = reading.looks, sample, now
        if standing is not None and standing.moment > self._judged_at:
            self._judged_at = standing.moment
            self._judge(standing)

    def _judge(self, standing: VolumeStanding) -> None:
        written = {
            subject: entry.written for subject, entry in self._sums.by_process.entries() if isinstance(subject, Process)
        }
        self._outrun.look(
            Sample(standing.moment, standing.connected, standing.backlog_bytes, self._sums.captured_bytes, written)
        )

    def _look_at_places(self, now: float) -> None:
        mounts = own_mounts()
        if mounts == self._mounts and now < self._placed_at + _PLACES_S:
            return
        self._places, self._mounts, self._placed_at = written_places(self._device), mounts, now
        self._programs.set_places(_flags(self._places))

    def report(self) -> dict[str, Any]:
        """The answer, but for what ``WhileWatched`` adds."""
        now = time.monotonic()
        names = self._name_all(now)
        standing = self._standing()
        return {
            "read_at": self._turned_at,
            "since": wall_moment(self._since, now),
            "limits": self._programs.problem,
            "sampled": self._sample.is_partial,
            **views(self._sums, names),
            "out_of_sync": self._out_of_sync(standing, now),
            "outrun": self._told_outrun(names, now),
        }

    def _out_of_sync(self, standing: VolumeStanding | None, now: float) -> dict[str, Any] | None:
        """None in mode normal. What was written before the programs were attached is in nobody's ``out_of_normal_bytes``."""
        if standing is None or standing.out_of_normal_for_s is None:
            return None
        left = standing.moment - standing.out_of_normal_for_s
        return {
            "since": wall_moment(left, now),
            "bytes": standing.out_of_sync_bytes,
            "watched_since": wall_moment(max(left, self._since), now),
            "written_bytes": sum(entry.out_of_normal for _, entry in self._sums.by_process.entries()),
        }

    def _told_outrun(self, names: Names, now: float) -> dict[str, Any] | None:
        found = self._outrun.found
        if found is None or not isinstance(found.process, Process):
            return None
        writer = self._sums.process(found.process)
        if writer is None:
            return None
        return {
            "name": process_name(writer),
            "process": writer.process,
            "group": group_name(writer.cgroup, names)["name"],
            "rate_bytes": found.rate_bytes,
            "link_rate_bytes": found.link_rate_bytes,
            "since": wall_moment(found.since, now),
        }

    def _name_all(self, now: float) -> Names:
        """Names of what is in the rows that are shown, as far as they were found; some new ones each time."""
        rows = self._sums.by_file.rows(_NEW_NAMES_MAX * 4)
        files = [row.subject for row in rows if isinstance(row.subject, File) and row.subject.inode]
        if not self._is_looked_at():
            files = []
        groups = [number for number, _ in self._sums.by_group.entries() if type(number) is int]
        budget = _NEW_NAMES_MAX
        for file in files:
            point = self._places.points.get(file.device)
            if point is not None and budget and self._names.is_due(file, now):
                budget -= 1
                self._names.keep(file, path_of_file(point, file.inode, file.generation), now)
        for group in groups:
            if self._group_mount is not None and budget and self._names.is_due(group, now):
                budget -= 1
                self._names.keep(group, path_of_group(self._group_mount, group), now)
        return replace(self._names.names(), users=self._users_now(now))

    def _users_now(self, now: float) -> Mapping[int, bytes]:
        if now >= self._users_at + _NAME_LASTS_S:
            self._users, self._users_at = user_names(), now
        return self._users


class _FoundNames:
    """What was found, and when; the newest ones."""

    def __init__(self) -> None:
        self._found: dict[File | int, tuple[bytes | None, float]] = {}

    def is_due(self, subject: File | int, now: float) -> bool:
        found = self._found.get(subject)
        return found is None or now >= found[1] + _NAME_LASTS_S

    def keep(self, subject: File | int, name: bytes | None, now: float) -> None:
        before = self._found.pop(subject, (None, 0.0))[0]
        # A control group that is gone keeps its name; a file that is gone may have given its number to another one.
        kept = name if isinstance(subject, File) or name is not None else before
        self._found[subject] = kept, now
        while len(self._found) > _NAMES_KEPT:
            del self._found[next(iter(self._found))]

    def names(self) -> Names:
        found = [(subject, name) for subject, (name, _) in self._found.items() if name is not None]
        return Names(
            {subject: name for subject, name in found if isinstance(subject, int)},
            {subject: name for subject, name in found if isinstance(subject, File)},
        )


def _flags(places: WrittenPlaces) -> dict[int, int]:
    return {number: MOUNTED if mounted else 0 for number, mounted in places.mounted.items()}

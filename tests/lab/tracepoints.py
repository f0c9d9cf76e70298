"""The kernel's own tracepoints of a file system, through tracefs: what ext4 and XFS themselves say of their commits."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.disks import Device
from tests.lab.patience import run

BUFFER_KIB = 4096
_MOUNTED = Path("/sys/kernel/tracing")
_LINE = re.compile(r"^.* ([\d.]+): (\w+): (.*)$", re.MULTILINE)
_EVENTS = {
    "ext4": ("jbd2/jbd2_end_commit", "jbd2/jbd2_run_stats"),
    "xfs": ("xfs/xlog_iclog_syncing", "xfs/xlog_iclog_sync_done"),
}


@dataclass(frozen=True, slots=True)
class TracedCommit:
    """``name``: as pydbt names it. ``ended_at``: when it was known to be on the disk, by the monotonic clock; None: not yet.
    ``logged_blocks``: as jbd2 counts them; None on XFS."""

    name: str
    ended_at: float | None
    logged_blocks: int | None = None


class Traced:
    """An instance of its own, so that others who trace are not disturbed."""

    def __init__(self, place: Path, kind: str) -> None:
        self._place, self._kind = place, kind

    def commits(self) -> list[TracedCommit]:
        """Of all that the kernel has traced, in their order."""
        text = (self._place / "trace").read_text()
        kept, written = map(int, re.findall(r"entries-in-buffer/entries-written: (\d+)/(\d+)", text)[0])
        assert kept == written, "the buffer of the trace is too small"
        events = [(float(at), event, words) for at, event, words in _LINE.findall(text)]
        return _of_ext4(events) if self._kind == "ext4" else _of_xfs(events)


def _of_ext4(events: list[tuple[float, str, str]]) -> list[TracedCommit]:
    logged = {
        found[1]: int(found[2])
        for _, event, words in events
        if event == "jbd2_run_stats" and (found := re.search(r"tid (\d+) .*blocks_logged (\d+)", words))
    }
    return [
        TracedCommit(found[1], at, logged.get(found[1]))
        for at, event, words in events
        if event == "jbd2_end_commit" and (found := re.search(r"transaction (\d+)", words))
    ]


def _of_xfs(events: list[tuple[float, str, str]]) -> list[TracedCommit]:
    """A record of the log is written with FUA where a commit is in it."""
    done: dict[str, float] = {}
    names: dict[str, None] = {}
    for at, event, words in events:
        found = re.search(r"lsn 0x([0-9a-f]+) flags (\S*)", words)
        if found is None:
            continue
        lsn = int(found[1], 16)
        name = f"{lsn >> 32}:{lsn & 0xFFFF_FFFF}"
        if event == "xlog_iclog_sync_done":
            done.setdefault(name, at)
        elif "NEED_FUA" in found[2]:
            names[name] = None
    return [TracedCommit(name, done.get(name)) for name in names]


@contextlib.contextmanager
def traced(device: Device, kind: str) -> Iterator[Traced]:
    """From here on the commits of this file system on this device are traced."""
    with contextlib.ExitStack() as stack:
        root = _MOUNTED
        if not (root / "events").is_dir():
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            run("mount", "-t", "tracefs", "nodev", root)
            stack.callback(run, "umount", root)
        place = Path(tempfile.mkdtemp(prefix="pydbt-test-", dir=root / "instances"))
        stack.callback(place.rmdir)
        (place / "buffer_size_kb").write_text(str(BUFFER_KIB))
        (place / "trace_clock").write_text("mono")
        number = os.stat(device.path).st_rdev
        for event in _EVENTS[kind]:
            (place / "events" / event / "filter").write_text(f"dev == {os.major(number) << 20 | os.minor(number)}")
            (place / "events" / event / "enable").write_text("1")
        yield Traced(place, kind)

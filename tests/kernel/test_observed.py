"""Programs that only observe: a start that fails leaves nothing attached, and their compiler is preferred to nobody."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.core.errors import MachineError
from pydbt.kernel import syscalls
from pydbt.kernel.tracing import observed, writers
from pydbt.kernel.tracing.observed import Observed
from pydbt.kernel.tracing.writers import WriterPrograms


@pytest.mark.parametrize("fails", ["map_info", "hash_entries"])
def test_a_start_that_fails_after_attaching_leaves_nothing_attached(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = [os.open(os.devnull, os.O_RDONLY) for _ in range(6)]
    maps = dict(zip(("wr_state", "wr_rows", "wr_places", "wr_totals", "wr_sample"), links, strict=False))
    capture = os.open(os.devnull, os.O_RDONLY)

    def fail(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(writers, "writers_values", lambda _: ({}, ""))
    monkeypatch.setattr(writers, "dirtying_tracepoint", lambda: "")
    monkeypatch.setattr(writers, "_attach", lambda *_: Observed(maps, [], links[5:]))
    monkeypatch.setattr(syscalls, "map_update", lambda *_: None)
    monkeypatch.setattr(syscalls, "obj_get", lambda _: capture)
    monkeypatch.setattr(syscalls, "map_info", lambda _: type("Info", (), {"value_bytes": 8}))
    monkeypatch.setattr(syscalls, fails, fail)
    with (
        pytest.raises(OSError, match="allocate"),
        WriterPrograms.attach(None, Path("/nowhere")) as programs,  # type: ignore[arg-type]
    ):
        programs.set_places({})  # it reads for the first time
    for fd in (*links, capture):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@contextlib.contextmanager
def score_of_its_own() -> Iterator[None]:
    """One that any process may give itself and take back; a service is given a better one than 0."""
    place = Path("/proc/self/oom_score_adj")
    before = place.read_text()
    place.write_text("100")
    try:
        yield
    finally:
        place.write_text(before)


def test_the_compiler_has_no_better_place_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[tuple[str, int]] = []
    right = subprocess.Popen.communicate

    def look(child: subprocess.Popen[bytes], *given: object) -> tuple[bytes, bytes]:
        score = Path(f"/proc/{child.pid}/oom_score_adj").read_text().strip()
        children.append((score, os.getpriority(os.PRIO_PROCESS, child.pid)))
        return right(child, b"", 60)

    monkeypatch.setattr(subprocess.Popen, "communicate", look)
    with score_of_its_own(), pytest.raises(MachineError):
        observed._load({}, 1)
    assert children == [("0", max(10, os.getpriority(os.PRIO_PROCESS, 0)))]

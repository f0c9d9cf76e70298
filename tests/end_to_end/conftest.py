"""The common part of end-to-end tests: a seed that is printed, rounds that can be raised, and a proof of a clean machine."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.disks import ensure_bpffs
from tests.lab.patience import wait_until
from tests.lab.programs import controllers_are_forked
from tests.lab.rounds import ROUNDS

PINS = Path("/sys/fs/bpf/pydbt")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """From TORTURE_SEED, else new each time; printed, so that a failure can be played again."""
    chosen = int(os.environ.get("TORTURE_SEED") or random.SystemRandom().randrange(1 << 31))
    print(f"TORTURE_SEED={chosen} ({request.node.nodeid})")
    return chosen


@pytest.fixture
def chance(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """The seed's own sequence for each test, wherever the test stands."""
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture
def rounds() -> int:
    """How often the random part is repeated: TORTURE_ROUNDS, 1 by default."""
    return ROUNDS


@pytest.fixture(autouse=True, scope="session")
def no_controller_loads() -> Iterator[None]:
    """They come out of one process that has loaded the program; in a long run, each loads it for itself."""
    with controllers_are_forked() if ROUNDS == 1 else contextlib.nullcontext():
        yield


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No pins, loop devices, mounts, processes or namespaces of this test outlive it."""
    ensure_bpffs()
    before = _pins()
    yield
    mine = str(tmp_path)
    wait_until(lambda: mine not in _output("losetup", "--list", "--noheadings", "--output", "BACK-FILE"), "loops gone")
    assert mine not in Path("/proc/self/mounts").read_text(errors="replace")
    wait_until(lambda: not _processes(mine), "no process of this test is left")
    left = _pins() - before
    assert not any(_is_mine(name, mine) for name in left), f"pins are left: {left}"
    assert f"pydbt-test-{os.getpid()}" not in _output("ip", "netns", "list")


def _pins() -> set[str]:
    return {path.name for path in PINS.iterdir()} if PINS.exists() else set()


def _is_mine(name: str, folder: str) -> bool:
    """Whether a volume of that name has its state below a folder (others may run tests at the same time)."""
    return any(
        name in path.read_text(errors="replace").replace("-", "") for path in Path(folder).glob("**/volume*.json")
    )


def _output(*command: str) -> str:
    """What a program prints of the whole machine, where others may use names that are no text."""
    return subprocess.run(command, capture_output=True, text=True, errors="replace").stdout


def _processes(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in words and path.parent.name != str(os.getpid()):
            found.append(words)
    return found


@pytest.fixture
def any_size_of_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """mkfs.xfs makes a log below 64 MiB for the tests of XFS alone, which it knows by these."""
    for name in ("TEST_DIR", "TEST_DEV", "QA_CHECK_FS"):
        monkeypatch.setenv(name, "1")

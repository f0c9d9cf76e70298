"""The demo does what README.md says of it, and leaves nothing behind, whenever and however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydbt.kernel import pins
from tests.lab.patience import wait_until
from tests.lab.rounds import short

ROOT = Path(__file__).parents[2]
PINS = Path("/sys/fs/bpf/pydbt")
PATIENCE_S = 240  # bounds a hang; a run takes about half a minute
SMALL = ("--size", "128M", "--outage", "3")


class Demo:
    """A running ``scripts/demo``, whose output is collected."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [ROOT / "scripts/demo", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.output += line

    def until(self, words: str) -> None:
        wait_until(
            lambda: words in self.output or self.process.poll() is not None, f"the demo says {words!r}", PATIENCE_S
        )
        assert words in self.output, self.output

    def end(self) -> int:
        """Its exit code, with all of its output read."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    @property
    def folder(self) -> Path:
        return Path(re.search(r"working in (\S+)", self.output)[1])

    def leftovers(self) -> list[str]:
        """What is still there of it. The script becomes the program, so its number names the network."""
        number, folder = self.process.pid, str(self.folder)
        found = [f"folder {folder}"] if self.folder.exists() else []
        found += [line for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines() if folder in line]
        found += [f"loop device over {file}" for file in backing_files().values() if file.startswith(folder)]
        found += [f"process {words}" for words in command_lines() if folder in words]
        found += [f"namespace {path}" for path in [Path(f"/run/netns/pydbt-demo-{number}")] if path.exists()]
        found += [f"link {path.name}" for path in Path("/sys/class/net").glob(f"pd{number}[ps]")]
        found += [f"registration {path}" for path in Path("/run/pydbt").glob("*") if folder in words_of(path)]
        if device := re.search(r"on /dev/(loop[0-9]+)", self.output):
            found += [f"pins {path}" for path in pins_of(device[1])]
        return found


def backing_files() -> dict[str, str]:
    found = {}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found[path.parts[3]] = path.read_text().strip()
        except OSError:
            continue  # detached by somebody just now
    return found


def words_of(path: Path) -> str:
    """The text of a file; empty when it has gone meanwhile, or is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def pins_of(device: str) -> list[Path]:
    """Pins for a loop device that has no file any more; with one it is somebody else's by now."""
    if device in backing_files():
        return []
    found = []
    for path in PINS.iterdir() if PINS.exists() else ():
        raw = pins.read_raw_meta(path)
        if raw is None:
            continue
        volume, _ = pins.decode_any(raw)  # those of others may have another version
        if (volume.disk_major, volume.disk_minor) == (7, int(device[4:])):
            found.append(path)
    return found


@pytest.fixture
def demo() -> Iterator[list[Demo]]:
    """A list for the demos that a test starts; they are ended however the test ends."""
    started: list[Demo] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            os.kill(each.process.pid, signal.SIGTERM)
            each.end()


@pytest.mark.parametrize("filesystem", ["ext4"])
def test_the_demo_ends_with_identical_images_and_leaves_nothing(demo: list[Demo], filesystem: str) -> None:
    demo.append(Demo("--fs", filesystem, *SMALL))
    assert demo[0].end() == 0, demo[0].output
    output = demo[0].output
    assert "IDENTICAL" in output and "coalesced" in output
    assert int(re.search(r"really differed\s+([0-9,]+) blocks", output)[1].replace(",", "")) > 100
    assert re.search(r"lost records\s+0\b", output)
    assert not demo[0].leftovers(), output


@pytest.mark.parametrize(
    ("number", "moment"),
    short(
        1,
        (signal.SIGINT, "pulled the cable"),
        (signal.SIGTERM, "working in"),
        (signal.SIGINT, "started `controller secondary`"),  # while the primary compiles
    ),
)
def test_an_interrupted_demo_leaves_nothing(demo: list[Demo], number: signal.Signals, moment: str) -> None:
    demo.append(Demo(*SMALL))
    demo[0].until(moment)
    demo[0].process.send_signal(number)
    assert demo[0].end() == 130, demo[0].output
    assert "Traceback" not in demo[0].output
    assert not demo[0].leftovers(), demo[0].output


@pytest.mark.variant
def test_a_kept_demo_runs_on_until_it_is_stopped(demo: list[Demo]) -> None:
    demo.append(Demo("--keep", *SMALL))
    assert demo[0].end() == 0, demo[0].output
    folder = demo[0].folder
    stop = [ROOT / "scripts/demo", "--stop", folder]
    try:
        asked = subprocess.run(
            [ROOT / ".venv/bin/controller", "status", "--state", folder / "primary", "--json"],
            capture_output=True,
            text=True,
        )
        status = json.loads(asked.stdout)
        assert status["mode"] == "normal" and status["replica_state"] == "up-to-date", status
        assert f"--stop {folder}" in demo[0].output
        told = (ROOT / "docs/reference/status.md").read_text()
        assert not [key for key in status if f"`{key}`" not in told], (
            "docs/reference/status.md has every key of the status"
        )
    finally:
        stopped = subprocess.run(stop, capture_output=True, text=True)
    assert stopped.returncode == 0, stopped
    assert not demo[0].leftovers(), stopped


def test_the_demo_refuses_what_cannot_be_with_one_sentence() -> None:
    for options, words in (
        (("--size", "1M"), "64.0 MiB"),
        (("--fs", "xfs", "--size", "100M"), "320 MiB"),
        (("--stop", "/etc"), "not the folder of a demo"),
    ):
        done = subprocess.run([ROOT / "scripts/demo", *options], capture_output=True, text=True)
        assert done.returncode == 2, done
        assert done.stdout == "" and done.stderr.count("\n") == 1 and words in done.stderr, done

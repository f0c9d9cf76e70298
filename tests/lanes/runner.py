"""Runs parts side by side on the cores there are; whatever ends it, what it started ends as well."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lanes.part import ROOT, Counts, Outcome, Part

POLL_S = 0.05
SIGN_OF_LIFE_S = 60
# A part is started although no core is free for it when this share of a core did nothing for this long.
IDLE_CORE = 0.25
IDLE_LOOK_S = 10.0
# What a program gets to take down what it has set up, after it was asked to end; then it is killed.
GRACE_S = 60
SHOWN_LINES = 400
LAST_LINES = 40
# A line of pytest's own summary.
_FAILED = re.compile(r"^(?:FAILED|ERROR) tests/\S+.{0,120}", re.MULTILINE)


class Stopped(Exception):
    """Somebody asked for the end."""


@dataclass
class Running:
    part: Part
    process: subprocess.Popen[bytes]
    folder: Path
    began: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@dataclass(frozen=True)
class Result:
    part: Part
    counts: Counts
    seconds: float
    cpu_seconds: float
    output: str
    note: str = ""

    @property
    def failed(self) -> bool:
        return self.counts.failed > 0

    def __str__(self) -> str:
        word = "FAILED" if self.failed else "ok"
        times = f"{self.seconds:7.1f} s {self.cpu_seconds:7.1f} s CPU"
        return f"{word:6} {self.part.name:14}{times}  {self.counts}{self.note}"


def run(parts: Iterable[Part], logs: Path | None = None) -> list[Result]:
    """All of them, the first in the list first; a line for each that ends, with its output when it failed.

    ``logs`` gets the output of each, and what pytest reports of its tests. Raises Stopped.
    """
    wanted, results = list(parts), {}
    with tempfile.TemporaryDirectory(prefix="pydbt-lanes-") as folder, _asked_to_end():
        for result in _Run(list(wanted), Path(folder), os.cpu_count() or 1).all():
            results[result.part.name] = result
            if logs is not None:
                (logs / f"{result.part.name}.log").write_text(f"{result.output}\n{result}\n")
                if (report := _folder(Path(folder), result.part) / "report.xml").exists():
                    shutil.copyfile(report, logs / f"{result.part.name}.xml")
    return [results[part.name] for part in wanted]


def _folder(parent: Path, part: Part) -> Path:
    return parent / part.name.replace("/", "-")


@contextlib.contextmanager
def _asked_to_end() -> Iterator[None]:
    def end(number: int, _: object) -> None:
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _caches(folder: Path) -> dict[str, str]:
    """Another place for the caches of the tools that root has made here, for a user who may not write there."""
    own = {
        "MYPY_CACHE_DIR": ".mypy_cache",
        "RUFF_CACHE_DIR": ".ruff_cache",
        "HYPOTHESIS_STORAGE_DIRECTORY": ".hypothesis",
    }
    return {
        variable: str(folder / name)
        for variable, name in own.items()
        if not os.access(ROOT / name if (ROOT / name).exists() else ROOT, os.W_OK)
    }


def _environment(folder: Path) -> dict[str, str]:
    """Of every part. Modules are compiled once and kept, whatever was asked: the program is started thousands of times."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **_caches(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def idle_seconds() -> float:
    """What all cores together have spent with nothing to do since the boot (proc_stat(5))."""
    return int(Path("/proc/stat").read_text().split(maxsplit=5)[4]) / os.sysconf("SC_CLK_TCK")


class _Idle:
    """Whether cores do nothing: the parts that run wait for something then, whatever was thought of them."""

    def __init__(self) -> None:
        self.look_again()

    def look_again(self) -> None:
        self._since, self._before = time.monotonic(), idle_seconds()

    def is_seen(self) -> bool:
        """Of the time since the last look; False when that is too short to tell."""
        seconds = time.monotonic() - self._since
        if seconds < IDLE_LOOK_S:
            return False
        idle = idle_seconds() - self._before
        self.look_again()
        return idle >= IDLE_CORE * seconds


class _Run:
    def __init__(self, parts: list[Part], folder: Path, cores: int) -> None:
        self._waiting, self._folder, self._cores = parts, folder, cores
        self._environment = _environment(folder)
        self._running: list[Running] = []
        self._idle = _Idle()
        self._heartbeat = time.monotonic() + SIGN_OF_LIFE_S

    def all(self) -> Iterator[Result]:
        try:
            while self._waiting or self._running:
                self._start()
                yield from self._ended()
                self._tell()
                time.sleep(POLL_S)
        except BaseException:
            self._end_all()
            for one in self._running:
                print(f"{one.part.name} was not over; its last lines:\n{_last(one.output(), LAST_LINES)}", flush=True)
            raise

    def _start(self) -> None:
        for part in list(self._waiting):
            free = self._cores - sum(one.part.cores for one in self._running)
            if part.cores <= free or not self._running or self._idle.is_seen():
                self._waiting.remove(part)
                self._running.append(self._launch(part))
                self._idle.look_again()

    def _launch(self, part: Part) -> Running:
        folder = _folder(self._folder, part)
        folder.mkdir()
        words = [word.format(python=sys.executable, folder=folder) for word in part.command]
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                words,
                cwd=ROOT,
                env=self._environment | part.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(part, process, folder, time.monotonic())

    def _ended(self) -> Iterator[Result]:
        for one in list(self._running):
            pid, status, usage = os.wait4(one.process.pid, os.WNOHANG)
            note = ""
            if not pid:
                if one.seconds < one.part.limit_seconds:
                    continue
                note = f", not over within {one.part.limit_seconds:.0f} s"
                pid, status, usage = self._end(one)
            self._running.remove(one)
            one.process.returncode = code = os.waitstatus_to_exitcode(status)
            counts = one.part.count(Outcome(code, one.output(), one.folder))
            if note:
                counts += Counts(failed=1)
            result = Result(one.part, counts, one.seconds, usage.ru_utime + usage.ru_stime, one.output(), note)
            print(result, flush=True)
            if result.failed:
                print(_shown(result), flush=True)
            yield result

    def _end(self, one: Running) -> tuple[int, int, object]:
        """Asked to end as by Ctrl-C, so that pytest takes down what its tests have set up."""
        one.signal(signal.SIGINT)
        return self._wait_for(one)

    def _wait_for(self, one: Running) -> tuple[int, int, object]:
        """Waited for. Asked once more, it would leave what it is just taking down."""
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            ended = os.wait4(one.process.pid, os.WNOHANG)
            if ended[0]:
                one.signal(signal.SIGKILL)
                return ended
            time.sleep(POLL_S)
        one.signal(signal.SIGKILL)
        return os.wait4(one.process.pid, 0)

    def _end_all(self) -> None:
        for one in self._running:
            one.signal(signal.SIGINT)
        for one in self._running:
            one.process.returncode = os.waitstatus_to_exitcode(self._wait_for(one)[1])

    def _tell(self) -> None:
        if time.monotonic() >= self._heartbeat:
            self._heartbeat += SIGN_OF_LIFE_S
            running = ", ".join(f"{one.part.name} ({one.seconds:.0f} s)" for one in self._running)
            print(f"       running: {running}", flush=True)


def _shown(result: Result) -> str:
    return f"--- {result.part.name}: {' '.join(result.part.command)}\n{_last(result.output, SHOWN_LINES)}\n---"


def _last(output: str, most: int) -> str:
    lines = output.splitlines()
    left_out = [f"... {len(lines) - most} lines before this"] if len(lines) > most else []
    return "\n".join(f"    {line}" for line in [*left_out, *lines[-most:]])


def summary(results: list[Result], seconds: float) -> int:
    """The closing lines, and the exit code."""
    total = sum((result.counts for result in results), Counts())
    failed = [result.part.name for result in results if result.failed]
    for result in results:
        if result.part.note:
            print(f"{result.part.name}: {result.part.note}")
    if failed:
        print(f"failed: {', '.join(failed)}")
        # Once more at the end: the output of a part that failed early is far above.
        for line in [line for result in results if result.failed for line in _FAILED.findall(result.output)]:
            print(f"    {line}")
    cpu = sum(result.cpu_seconds for result in results)
    print(f"{seconds:.0f} s, {cpu:.0f} s CPU")
    print(total, flush=True)
    return 1 if failed or not results else 0

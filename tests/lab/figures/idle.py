"""Idle volumes: what thirty of them cost, on each side, while nobody writes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pydbt.core.units import MIB
from tests.lab.disks import image, loop_over
from tests.lab.figures.folders import disk_folder
from tests.lab.figures.memory import own_bytes
from tests.lab.figures.report import Figure, figure
from tests.lab.patience import until
from tests.lab.programs import Controller, command, free_port, status_of

NAME = "idle"
_VOLUME_BYTES = 16 * MIB
# By then the programs that see who writes are gone again: they watch outside of mode normal.
_SETTLE_S = 120.0
# All volumes of one machine together, on each side.
_BAR_PERCENT = 5.0
_VOLUME = 'insecure = true\nring-size = "1M"\nrecord-ring-size = "256K"\nlog-size = "1M"\n'
_REPLICA = 'journal-size = "16M"\ninsecure = true\n'


def measure(quick: bool) -> list[Figure]:
    """Volumes of one `controller run`, replicas of one `controller secondary`, in sync and with no writer."""
    figures = []
    for count in (1, 3) if quick else (1, 30):
        seconds = 10.0 if quick else 60.0
        with disk_folder(count * 8 * MIB) as folder, _volumes(folder, count) as (primary, secondary):
            for side, process in (("primary", primary), ("secondary", secondary)):
                figures += _side(side, process, count, seconds)
    return figures


def _side(side: str, supervisor: int, count: int, seconds: float) -> list[Figure]:
    before = _spent(supervisor)
    time.sleep(seconds)
    after = _spent(supervisor)
    cpu = 100 * (after[0] - before[0]) / seconds
    switches = sum(number - before[1].get(thread, 0) for thread, number in after[1].items()) / seconds / count
    measured = f"CPU time of all processes in {seconds:g} s; {switches:.1f} switches per second and volume"
    what = f"{count} idle volume{'' if count == 1 else 's'}, {side}"
    pss = sum(own_bytes(process)["pss"] for process in _family(supervisor))
    return [
        figure(NAME, what, measured, "% of a core", [cpu], bar=_BAR_PERCENT, at_least=False),
        figure(NAME, f"... and its memory, {side}", "PSS of all processes, without BPF maps", "MiB", [pss / MIB]),
    ]


@contextlib.contextmanager
def _volumes(folder: Path, count: int) -> Iterator[tuple[int, int]]:
    """Process numbers of both supervisors, once every volume is in sync and has settled."""
    with contextlib.ExitStack() as stack:
        names = [f"idle{number}" for number in range(count)]
        for name in names:
            disk = stack.enter_context(loop_over(image(folder / f"{name}.source", _VOLUME_BYTES)))
            address = f"127.0.0.1:{free_port()}"
            replica = f'target = "{folder}/{name}.target"\nlisten = "{address}"\ncreate = {_VOLUME_BYTES}\n{_REPLICA}'
            _write(folder / "secondary" / f"{name}.toml", "secondary", folder / f"{name}.b", replica)
            volume = f'source = "{disk}"\nsecondary = "{address}"\n{_VOLUME}'
            _write(folder / "run" / f"{name}.toml", "run", folder / f"{name}.a", volume)
        processes = {}
        for role in ("secondary", "run"):
            stack.callback(_take_down, folder / role, names)
            with _environment(folder / role):
                started = Controller(folder / f"{role}.log", [role])
            stack.callback(_end, started)
            processes[role] = started.process.pid
        for name in names:
            until(partial(_in_sync, folder / f"{name}.a"), f"{name} is in sync", 600)
        time.sleep(_SETTLE_S)
        yield processes["run"], processes["secondary"]


def _write(path: Path, role: str, state_dir: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'[{role}]\nstate = "{state_dir}"\n{text}')


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """The program's files of volumes are in this folder."""
    before = os.environ.get("PYDBT_VOLUMES")
    os.environ["PYDBT_VOLUMES"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("PYDBT_VOLUMES")
        if before is not None:
            os.environ["PYDBT_VOLUMES"] = before


def _in_sync(state_dir: Path) -> bool:
    status = status_of(state_dir)
    return status is not None and status["mode"] == "normal" and status["replica_state"] == "up-to-date"


def _end(controller: Controller) -> None:
    controller.process.send_signal(signal.SIGTERM)
    controller.process.wait(120)


def _take_down(folder: Path, names: list[str]) -> None:
    """The programs of a volume stay in the kernel when its controller ends."""
    if folder.name == "run":
        for name in names:
            with _environment(folder):
                command("down", name)


def _family(supervisor: int) -> list[int]:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [supervisor, *map(int, children)]


def _spent(supervisor: int) -> tuple[float, dict[str, int]]:
    """Seconds of processor time, as the scheduler counts it, of all threads, and switches of context of each that is there."""
    seconds, switches = 0.0, dict[str, int]()
    for process in _family(supervisor):
        seconds += time.clock_gettime(_clock_of(process))
        for task in Path(f"/proc/{process}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread may have ended
                for line in (task / "status").read_text().splitlines():
                    if "ctxt_switches" in line:
                        switches[task.name] = switches.get(task.name, 0) + int(line.split()[1])
    return seconds, switches


def _clock_of(process: int) -> int:
    """Of clock_gettime(2): all its threads, also those that have ended (clock_getcpuclockid(3), MAKE_PROCESS_CPUCLOCK)."""
    of_the_scheduler = 2
    return (~process << 3) | of_the_scheduler
